"""Which algorithms are paused, as a process knows it that hands their tasks out, or tells why they wait."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import MappingProxyType

from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TaskStore
from taskqueue.tasks import Pause

_log = logging.getLogger(__name__)

#: A pause is known everywhere after this long.
READ_EVERY_SECONDS = 1.0


class PauseWatch:
    """Reads the pauses from the store once a second. Keeps the last answer while the store is away.

    `on_change` is called when something was paused or resumed, and after the first answer.
    """

    def __init__(self, store: TaskStore, on_change: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._on_change = on_change
        self._paused: Mapping[str, Pause] = MappingProxyType({})
        #: whether the store has answered
        self.is_known = False

    @property
    def paused(self) -> Mapping[str, Pause]:
        """By algorithm."""
        return self._paused

    async def watch(self) -> None:
        """For ever."""
        is_away = False
        while True:
            try:
                await self.read()
            except StoreUnavailable as error:
                if not is_away:
                    _log.warning("which algorithms are paused cannot be read now: %s", error)
                is_away = True
            else:
                is_away = False
            await asyncio.sleep(READ_EVERY_SECONDS)

    async def read(self) -> None:
        """Reads them now. Raises StoreUnavailable."""
        paused = await self._store.paused()
        before, was_known = self._paused, self.is_known
        self._paused, self.is_known = MappingProxyType(paused), True
        if paused != before or not was_known:
            self._on_change()


def pause_sentence(algorithm: str, pause: Pause) -> str:
    """Why its tasks wait."""
    by = f" by {pause.by}" if pause.by else ""
    since = datetime.fromtimestamp(pause.at, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{algorithm!r} is paused{by} since {since}"
