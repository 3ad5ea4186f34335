"""One request that waits for runs to end."""

import asyncio
from collections.abc import Iterable

from runnerlib.run_table import Run


class Waiter:
    """Wakes one request when the last of its runs has ended."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._loop = asyncio.get_running_loop()
        self._enough: asyncio.Future[None] = self._loop.create_future()
        self._runs = [run for run in runs if run.outcome is None]
        self._left = len(self._runs)
        for run in self._runs:
            run.watchers.append(self._one_less)

    async def wait(self, seconds: float | None) -> None:
        """Until all have ended, or for so long."""
        if not self._left:
            return
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await self._enough
        finally:
            if timer is not None:
                timer.cancel()
            if self._left:
                self._leave()

    def _leave(self) -> None:
        """A run of hours is asked for thousands of times: it must not remember each."""
        for run in self._runs:
            if run.outcome is None:
                run.watchers.remove(self._one_less)

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._wake()

    def _wake(self) -> None:
        if not self._enough.done():
            self._enough.set_result(None)
