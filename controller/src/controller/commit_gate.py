"""Repeats what must be written while the store or the queue is unavailable, and stops the intake meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable, StoreUnavailable

log = get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 5.0
#: Name of this part in the process's readiness.
STORE = "store"

Value = TypeVar("Value")


class CommitGate:
    """Open while the store and the queue take writes; no new tasks are taken while it is closed."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failing = 0
        self._open = asyncio.Event()
        self._open.set()
        health.set(STORE, True)

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    async def wait_open(self) -> None:
        await self._open.wait()

    async def retry_until_available(
        self, what: str, call: Callable[[], Awaitable[Value]], *, stops_intake: bool = True
    ) -> Value:
        """Returns the result of `call`, however long that takes. Repeating a write is harmless: every write is fenced.

        With `stops_intake=False` only the caller waits: a broker under alarm accepts nothing, and the tasks that it
        has handed out must still be worked off.
        """
        try:
            return await call()
        except (StoreUnavailable, QueueUnavailable) as error:
            if not stops_intake:
                log.warning("held until it can be sent", call=what, reason=str(error))
                return await self._repeat(call)
            self._close(what, error)
        try:
            return await self._repeat(call)
        finally:
            self._failing -= 1
            if self._failing == 0:
                self._open.set()
                self._health.set(STORE, True)
                log.info("store and queue answer again")

    async def _repeat(self, call: Callable[[], Awaitable[Value]]) -> Value:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                return await call()
            except (StoreUnavailable, QueueUnavailable):
                pause = min(LAST_PAUSE_SECONDS, pause * 2)

    def _close(self, what: str, error: Exception) -> None:
        self._failing += 1
        self._open.clear()
        self._health.set(STORE, False, f"{what}: {error}")
        away = "queue" if isinstance(error, QueueUnavailable) else "store"
        log.error(f"the {away} is away; outcomes are held and nothing new is taken", call=what, reason=str(error))
