"""How often this process handed a task back in good order. Pure.

A quorum queue counts every return of a message (newer brokers: not those by `basic.nack`), and poison is told by that
count. So what was returned unrun is remembered and subtracted.
"""

from collections import OrderedDict
from typing import NamedTuple

#: Tasks that are remembered; the oldest are forgotten first, which only makes their count too high.
MOST_REMEMBERED = 20_000


class _Release(NamedTuple):
    broker_count: int
    uncounted: int


class Releases:
    """Bounded; by task id and attempt."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, int], _Release] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def uncounted(self, task_id: str, attempt: int, broker_count: int) -> int:
        """How many of the broker's `broker_count` were orderly releases."""
        if not broker_count or not self._known:
            return 0
        known = self._known.get((task_id, attempt))
        if known is None:
            return 0
        return known.uncounted + (1 if broker_count > known.broker_count else 0)

    def released(self, task_id: str, attempt: int, broker_count: int) -> None:
        """It is about to be handed back; the broker has counted `broker_count` until now."""
        before = self.uncounted(task_id, attempt, broker_count)
        self._known[task_id, attempt] = _Release(broker_count, before)
        self._known.move_to_end((task_id, attempt))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, task_id: str, attempt: int) -> None:
        """It was published anew: the broker counts from zero again."""
        self._known.pop((task_id, attempt), None)
