"""Tells readiness whether the store answers and takes what is written, so that senders are led to gateways whose store
does."""

import asyncio

from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger
from taskqueue.errors import StoreUnavailable
from taskqueue.opening import STORE
from taskqueue.protocols import TaskStore

log = get_logger(__name__)

LOOK_SECONDS = 2.0
#: No task needs to have it: one indexed look-up is all that is asked.
_ANY_ID = "-"


class StoreWatch:
    """Changes nothing but the part `store` of `health`, and that only when the store goes away or comes back."""

    def __init__(self, store: TaskStore, health: Health) -> None:
        self._store = store
        self._health = health
        self._is_away = False
        self._refused_write = False

    def refused(self, reason: str) -> None:
        """A request met a store that cannot serve. A full disk can still be read, so from now on writes are tried."""
        self._refused_write = True
        self._away(reason)

    async def watch(self) -> None:
        """Looks for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await (self._store.check_writing() if self._refused_write else self._store.get(_ANY_ID))
            except StoreUnavailable as error:
                self._away(str(error))
            else:
                self._back()

    def _away(self, reason: str) -> None:
        self._health.set(STORE, False, reason)
        if not self._is_away:
            log.warning("the store cannot serve; tasks are refused until it can", reason=reason)
        self._is_away = True

    def _back(self) -> None:
        if self._is_away:
            self._health.set(STORE, True)
            log.info("the store can serve again")
        self._is_away = self._refused_write = False
