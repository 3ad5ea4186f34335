"""How many tasks travel together, and to which runner. Pure: no sockets and no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from controller.runner_answers import Entry
from runnerlib.contract import Limits

#: Tasks of an algorithm without a batch handler share a call if they are expected to take no more than this together.
CALL_SECONDS = 0.1
#: Calls that are shorter than this may wait at the runner, so that it always has work.
SHORT_CALL_SECONDS = 0.1
#: A runner refuses larger calls of more than one.
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: Bytes of an item beside its payload: id, attempt, deadline, punctuation.
ITEM_BYTES = 256
#: Most tasks of one algorithm that one controller has taken, however many its runners could take: AMQP's limit of a
#: prefetch, and all of them are in memory.
MOST_OUT = 65_535
#: What a call costs beside its handler; no measurement is below it.
_SHORTEST_TASK_SECONDS = 1e-5
#: A slow measurement counts at once, a fast one slowly: too small a batch costs less than a blocked slot.
_WEIGHT_UP = 0.5
_WEIGHT_DOWN = 0.2
#: A call of fewer tasks than share one now counts in proportion, if none took longer than this: a busy machine delays
#: a single task of microseconds by milliseconds, which says nothing about the next five hundred.
_DELAY_SECONDS = 0.01


class LatencyEstimate:
    """How long tasks and calls of one algorithm take, as measured by its runners (moving averages)."""

    def __init__(self) -> None:
        self.task_seconds: float | None = None
        self.call_seconds: float | None = None
        #: tasks that may share a call for now; it at most doubles with each call, so that one lucky measurement does
        #: little harm
        self._trusted = 1

    def observe(self, entries: Iterable[Entry], elapsed_seconds: float, *, batched: bool) -> None:
        """Adds the ended runs of one call. `elapsed_seconds` is used where a runner measured nothing."""
        ended = list(entries)
        if not ended:
            return
        share = elapsed_seconds / len(ended)
        seconds = [share if entry.seconds is None else entry.seconds for entry in ended]
        weight = 1.0 if max(seconds) > _DELAY_SECONDS else min(1.0, len(ended) / self._trusted)
        self.task_seconds = _average(self.task_seconds, sum(seconds) / len(seconds), weight)
        self.call_seconds = _average(self.call_seconds, max(seconds) if batched else sum(seconds), weight)
        fitting = int(CALL_SECONDS / max(self.task_seconds, _SHORTEST_TASK_SECONDS))
        self._trusted = max(1, min(self._trusted * 2, fitting))

    @property
    def is_short(self) -> bool:
        """Whether calls are known to be short."""
        return self.call_seconds is not None and self.call_seconds < SHORT_CALL_SECONDS

    def batch_size(self, limits: Limits) -> int:
        """Most tasks for one call."""
        if limits.batched:
            return limits.batch
        return min(limits.batch, self._trusted)

    def calls_at_once(self, limits: Limits) -> int:
        """Most calls in flight at one runner."""
        return limits.slots * 2 if self.is_short else limits.slots


def _average(known: float | None, seconds: float, weight: float) -> float:
    if known is None:
        return seconds
    return known + weight * (_WEIGHT_UP if seconds > known else _WEIGHT_DOWN) * (seconds - known)


@dataclass(frozen=True, slots=True)
class Room:
    """What the available runners of an algorithm can take now."""

    #: the least loaded runner that can be sent a call; None when there is none
    next_runner: str | None
    #: calls that may be sent to all of them together
    calls: int
    #: slots that do nothing now
    free_slots: int


def room(loads: Mapping[str, int], limits: Limits, calls_at_once: int) -> Room:
    """`loads`: available runner → its calls in flight. Costs as much for a thousand slots as for one."""
    least = min(((load, runner) for runner, load in loads.items() if load < calls_at_once), default=None)
    calls = sum(max(0, calls_at_once - load) for load in loads.values())
    free = sum(max(0, limits.slots - load) for load in loads.values())
    return Room(None if least is None else least[1], calls, free)


def share(waiting: int, free_slots: int, cap: int) -> int:
    """How many of the waiting tasks the next call takes, so that all free slots get some."""
    return max(1, min(cap, ceil(waiting / max(1, free_slots))))


def prefetch(cap: int, calls_at_once: int, runners: int, stranded: int = 0) -> int:
    """Most tasks to take from the queue: as many as the runners can be sent, and the stranded ones.

    Further tasks wait in the queue, where they can be cancelled, expire, or be taken by another controller. `stranded`
    are tasks that occupy no slot any more, e.g. of a runner that does not answer.
    """
    if runners == 0:
        return 0
    return min(MOST_OUT, cap * calls_at_once * runners + stranded)
