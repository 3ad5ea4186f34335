"""Holds work that others pay for to a part of the time."""

import asyncio
import time

#: Shorter pauses are left for later: timers are not that exact.
_LEAST_SECONDS = 0.002


class Pace:
    """Time that is shared: whoever takes some waits until it is over, and what was taken before it."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def take(self, seconds: float) -> None:
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + seconds
        if self._free_at - now > _LEAST_SECONDS:
            await asyncio.sleep(self._free_at - now)
