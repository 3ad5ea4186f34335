"""Tasks by algorithm and state, counted at most once a second for all who ask."""

import asyncio
import time

from taskqueue.protocols import TaskStore
from taskqueue.tasks import Counts

#: Counting reads the index of every row (0.4 s with a million of them), so its answer is told for this long.
FRESH_SECONDS = 1.0


class CountsCache:
    """One for each gateway. Those who ask while it counts wait for the same answer."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._counts: list[Counts] = []
        self._counted_at: float | None = None

    async def counts(self) -> list[Counts]:
        """Not older than a second. Raises StoreUnavailable."""
        async with self._lock:
            if self._counted_at is None or time.monotonic() - self._counted_at > FRESH_SECONDS:
                self._counts = await self._store.counts()
                self._counted_at = time.monotonic()
            return self._counts
