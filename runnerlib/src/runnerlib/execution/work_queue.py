"""Runs that wait for a slot, and which of them go into one call. Pure."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping

from runnerlib.adapter.model import Algorithm
from runnerlib.execution.pace import Pace
from runnerlib.run_table import Run

#: Runs that may travel together: the same algorithm and, for a batched twin, the same shared values.
_Bucket = tuple[str, bytes]


class WorkQueue:
    """First come, first served by bucket; a bucket that was not emptied goes to the end, so that all get their turn."""

    def __init__(self, algorithms: Mapping[str, Algorithm], slots: int) -> None:
        self._algorithms = algorithms
        self._slots = slots
        self._buckets: OrderedDict[_Bucket, deque[Run]] = OrderedDict()
        #: suspects: members of a call that failed as a whole, each to be run by itself
        self._alone: deque[Run] = deque()
        self.pace = Pace()

    def add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._bucket(run).append(run)

    def add_again(self, runs: Iterable[Run]) -> None:
        """Runs that had been taken and never started: they go first, in their order."""
        for run in reversed(list(runs)):
            bucket = self._bucket(run)
            bucket.appendleft(run)
            self._buckets.move_to_end((run.algorithm, run.shared_key), last=False)

    def add_alone(self, runs: Iterable[Run]) -> None:
        """They go before other suspects: the first call of a fresh process is the one whose death tells most."""
        self._alone.extendleft(reversed(list(runs)))

    @property
    def has_alone(self) -> bool:
        _skip_ended(self._alone)
        return bool(self._alone)

    def take_alone(self) -> Run:
        return self._alone.popleft()

    def take(self, one_by_one: bool, at_most: int | None = None) -> list[Run]:
        """The runs of the next call, oldest first; empty when nothing waits.

        `one_by_one`: the slot takes calls at the same time, so that runs without a twin need not share one.
        """
        while self._buckets:
            key, waiting = next(iter(self._buckets.items()))
            _skip_ended(waiting)
            if not waiting:
                del self._buckets[key]
                continue
            limit = self._limit(key[0], len(waiting), one_by_one)
            taken = _take(waiting, limit if at_most is None else min(limit, at_most))
            if waiting:
                self._buckets.move_to_end(key)
            else:
                del self._buckets[key]
            return taken
        return []

    def waiting(self) -> Iterator[Run]:
        return (run for bucket in (*self._buckets.values(), self._alone) for run in bucket if run.outcome is None)

    def clear(self) -> list[Run]:
        """Everything that waits."""
        waiting = list(self.waiting())
        self._buckets.clear()
        self._alone.clear()
        return waiting

    def _limit(self, name: str, waiting: int, one_by_one: bool) -> int:
        algorithm = self._algorithms[name]
        if algorithm.has_batch:
            return algorithm.batch_cap
        if one_by_one:
            return 1
        # Not more than this slot's share: the others must not stand idle meanwhile.
        return min(self.pace.fitting(name), max(1, math.ceil(waiting / self._slots)))

    def _bucket(self, run: Run) -> deque[Run]:
        key = (run.algorithm, run.shared_key)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = deque()
        return bucket


def _skip_ended(waiting: deque[Run]) -> None:
    """Cancelled, replaced and expired runs stay in the queue until their turn comes."""
    while waiting and waiting[0].outcome is not None:
        waiting.popleft()


def _take(waiting: deque[Run], limit: int) -> list[Run]:
    taken: list[Run] = []
    while waiting and len(taken) < limit:
        run = waiting.popleft()
        if run.outcome is None:
            taken.append(run)
    return taken
