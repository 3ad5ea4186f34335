"""All worker processes of a runner."""

import asyncio
import time
from contextlib import AsyncExitStack
from types import TracebackType

from typing_extensions import Self

from runnerlib.adapter.model import Adapter
from runnerlib.execution.group import TEAR_DOWN_SECONDS, Group
from runnerlib.execution.measures import Measures
from runnerlib.execution.setup import Callbacks, ProcessSetup
from runnerlib.leftovers import TemporaryFolders
from runnerlib.run_table import Run
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background


class Pool:
    """A component: entering starts the processes (they become ready later), leaving ends them."""

    def __init__(
        self,
        adapter: Adapter,
        setup: ProcessSetup,
        callbacks: Callbacks,
        health: Health,
        measures: Measures,
        cancel_grace_seconds: float,
    ) -> None:
        self._folders = TemporaryFolders()
        self._groups = [
            Group(group, adapter, setup, callbacks, health, measures, cancel_grace_seconds, self._folders)
            for group in adapter.groups()
        ]
        self._by_algorithm = {name: group for group in self._groups for name in group.group.algorithms}
        for group in self._groups:
            measures.slots(group.group.name, group.group.slots)
        self._stack = AsyncExitStack()
        self._stop_by: float | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._folders.open)
        for group in self._groups:
            for index in range(len(group.slots)):
                background(self._stack, group.keep(index), f"worker process {index} of {group.group.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = TEAR_DOWN_SECONDS if self._stop_by is None else max(0.0, self._stop_by - time.monotonic())
        await asyncio.gather(*(group.stop(min(seconds, TEAR_DOWN_SECONDS)) for group in self._groups))
        await self._stack.aclose()
        await asyncio.to_thread(self._folders.close)

    def unready_reason(self, algorithm: str) -> str:
        """Why its processes cannot work now; empty when they can."""
        return self._by_algorithm[algorithm].unready_reason

    def working(self) -> list[str]:
        """The algorithms that can run now; none before every process has loaded, or failed to, once."""
        if not all(group.is_decided for group in self._groups):
            return []
        return [name for name, group in self._by_algorithm.items() if not group.unready_reason]

    def has_room(self, algorithm: str) -> bool:
        return self._by_algorithm[algorithm].has_room

    def add(self, algorithm: str, runs: list[Run]) -> None:
        """Queues one batch; ask :meth:`has_room` first."""
        self._by_algorithm[algorithm].add(runs)

    def cancel(self, run: Run) -> None:
        """Asks a run to stop and kills it after the grace; one that waits ends at once."""
        run.cancel_requested = True
        self._by_algorithm[run.algorithm].cancel(run)

    def stop_run(self, run: Run) -> None:
        """Stops a run whose outcome nobody wants any more."""
        self._by_algorithm[run.algorithm].stop_run(run)

    def stop_by(self, monotonic: float) -> None:
        """When processes that tear down are killed."""
        self._stop_by = monotonic

    async def drain(self, seconds: float) -> None:
        await asyncio.gather(*(group.drain(seconds) for group in self._groups))
