"""Callers that ask for one row each at the same time share one look into the database."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: Rows of one load; all of them are in memory at the same time.
MAX_BATCH = 256


class BatchLoader(Generic[Value]):
    """`value = await loader.get(key)`: one load is under way at a time, and all who ask meanwhile share the next.

    A single caller waits for its own load only. Lives on the event loop.
    """

    def __init__(self, load: Callable[[Sequence[str]], Awaitable[dict[str, Value]]]) -> None:
        self._load = load
        self._asked: dict[str, asyncio.Future[Value | None]] = {}
        self._running: asyncio.Task[None] | None = None

    async def get(self, key: str) -> Value | None:
        """The value, or None if there is none. Raises what `load` raises, for all who share it."""
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="load rows")
        # a caller that is cancelled takes nothing from those that asked for the same
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._asked:
                keys = list(self._asked)[:MAX_BATCH]
                await self._answer({key: self._asked.pop(key) for key in keys})
        finally:
            self._running = None

    async def _answer(self, asked: dict[str, asyncio.Future[Value | None]]) -> None:
        try:
            found = await self._load(list(asked))
        except Exception as error:
            # It belongs to the callers, if they are still there to take it.
            for future in asked.values():
                future.set_exception(error)
                future.exception()
            return
        for key, future in asked.items():
            future.set_result(found.get(key))
