"""Keeps what must be written while the store is away, and lets nothing new in meanwhile."""

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


class StoreGate:
    """Repeats a call on the store or the queue until it succeeds. Closed while any call is being repeated."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._failing = 0
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    async def wait_open(self) -> None:
        await self._open.wait()

    async def insist(self, what: str, call: Callable[[], Awaitable[Value]], *, alone: bool = False) -> Value:
        """The result of `call`, however long it takes. The same write twice is harmless: every write is fenced.

        `alone`: only its caller waits. A broker in need takes nothing, and must be relieved of what it has.
        """
        try:
            return await call()
        except (StoreUnavailable, QueueUnavailable) as error:
            if alone:
                log.warning("held until it can be sent", call=what, reason=str(error))
                return await self._repeat(call)
            self._close(what, error)
        try:
            return await self._repeat(call)
        finally:
            self._reopen()

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

    def _reopen(self) -> None:
        self._failing -= 1
        if self._failing == 0:
            self._open.set()
            self._health.set(STORE, True)
            log.info("store and queue answer again")
