"""A controller from its start to its ordered stop."""

from contextlib import AsyncExitStack
from types import TracebackType

from controller.consumer_set import ConsumerSet
from controller.ingress import IngressConsumer
from controller.maintenance import Maintenance
from controller.run_monitor import RunMonitor
from runnerlib.service.lifecycle import background


class Controller:
    """A context. Leaving it hands back, uncounted, what does not end within the grace."""

    def __init__(
        self,
        lanes: ConsumerSet,
        monitor: RunMonitor,
        maintenance: Maintenance,
        grace_seconds: float,
        ingress: IngressConsumer | None = None,
    ) -> None:
        self._lanes = lanes
        self._tending = monitor
        self._upkeep = maintenance
        self._grace_seconds = grace_seconds
        self._doorkeeper = ingress
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Controller":
        # Left in reverse order: nothing new is let in, and placements and cancel marks are followed until the last call
        # has ended.
        background(self._stack, self._tending.follow_runs(), "placements and progress")
        background(self._stack, self._tending.follow_cancels(), "cancel marks")
        background(self._stack, self._tending.follow_overdue_cancels(), "overdue cancels")
        self._stack.push_async_callback(self._lanes.stop, self._grace_seconds)
        background(self._stack, self._upkeep.sweep_for_ever(), "sweep")
        background(self._stack, self._upkeep.purge_for_ever(), "purge")
        background(self._stack, self._lanes.follow_catalogue(), "catalogue")
        if self._doorkeeper is not None:
            await self._stack.enter_async_context(self._doorkeeper)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Idempotent."""
        await self._stack.aclose()
