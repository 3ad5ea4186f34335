"""The order of a stop: nothing new, what runs may end, whoever waits is answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from typing_extensions import Self

from runnerlib.execution.pool import Pool
from runnerlib.reception import Reception
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger

#: After the last run has ended, outcomes that nobody fetched are kept in reach for so long.
LINGER_SECONDS = 1.0
_LOOK_SECONDS = 0.05
#: Worker processes may tear down for so long after that.
_TEAR_DOWN_SECONDS = 0.7

log = get_logger(__name__)


class Drain:
    """A component without a start: leaving it drains. `leave` takes the runner off discovery's list.

    All of it together takes the grace and little more: what comes after it must still fit into the time of a stop.
    """

    def __init__(
        self,
        reception: Reception,
        pool: Pool,
        health: Health,
        grace_seconds: float,
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        self._reception = reception
        self._pool = pool
        self._health = health
        self._grace_seconds = grace_seconds
        self._leave = leave

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ends_at = time.monotonic() + self._grace_seconds
        log.info("draining", grace_seconds=self._grace_seconds)
        self._health.set("draining", False, "this runner is stopping")
        await self._leave()
        self._reception.start_draining()
        await self._pool.drain(max(0.0, ends_at - time.monotonic()))
        linger_until = min(time.monotonic(), ends_at) + LINGER_SECONDS
        while self._reception.undelivered and time.monotonic() < linger_until:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK_SECONDS)
        self._pool.stop_by(ends_at + LINGER_SECONDS + _TEAR_DOWN_SECONDS)
