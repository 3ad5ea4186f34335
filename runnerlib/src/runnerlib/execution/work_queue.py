"""Runs that wait for a slot, which of them go into one call, and the time limits of that call. Pure."""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping

from pydantic_core import to_json

from runnerlib.adapter.model import Algorithm
from runnerlib.execution import outcomes
from runnerlib.frames import CALL, encode
from runnerlib.run_registry import Outcome, Run

#: Runs without a batch handler share a call up to this long: that saves messages without delaying answers noticeably.
SEQUENCE_SECONDS = 0.1
MAX_SEQUENCE = 256
#: Weight of the latest run in the mean.
_WEIGHT = 0.2
#: A mean is used after this many runs.
_ENOUGH = 3

#: Runs that may share a call: the same algorithm and, for a batch handler, the same shared values.
_Bucket = tuple[str, bytes]


class LatencyEstimate:
    """A moving mean of seconds per run for each algorithm; one long run raises it at once."""

    def __init__(self) -> None:
        self._means: dict[str, tuple[int, float]] = {}

    def observe(self, algorithm: str, seconds: float) -> None:
        count, mean = self._means.get(algorithm, (0, seconds))
        self._means[algorithm] = (count + 1, max(seconds * _WEIGHT, mean + _WEIGHT * (seconds - mean)))

    def fitting(self, algorithm: str) -> int:
        """How many runs are expected to fit into one short call."""
        count, mean = self._means.get(algorithm, (0, 0.0))
        if count < _ENOUGH:
            return 1
        return max(1, min(MAX_SEQUENCE, int(SEQUENCE_SECONDS / max(mean, 1e-6))))


class WorkQueue:
    """First come, first served by bucket; a bucket that was not emptied goes to the end, so that all get their turn."""

    def __init__(self, algorithms: Mapping[str, Algorithm], slots: int) -> None:
        self._algorithms = algorithms
        self._slots = slots
        self._buckets: OrderedDict[_Bucket, deque[Run]] = OrderedDict()
        #: members of a call that failed as a whole, each to be run alone in its process
        self._isolated: deque[Run] = deque()
        self.latency = LatencyEstimate()

    def add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._bucket(run).append(run)

    def requeue(self, runs: Iterable[Run]) -> None:
        """Runs that had been taken and never ended: they go first, in their order."""
        for run in reversed(list(runs)):
            self._bucket(run).appendleft(run)
            self._buckets.move_to_end((run.algorithm, run.shared_key), last=False)

    def add_isolated(self, runs: Iterable[Run]) -> None:
        """They go before other isolated runs: a death in the first call of a fresh process leaves the least doubt."""
        self._isolated.extendleft(reversed(list(runs)))

    @property
    def has_isolated(self) -> bool:
        _skip_ended(self._isolated)
        return bool(self._isolated)

    def take_isolated(self) -> Run:
        return self._isolated.popleft()

    def take(self, one_by_one: bool, at_most: int | None = None) -> list[Run]:
        """The runs of the next call, oldest first; empty when nothing waits.

        `one_by_one`: the slot takes several calls at the same time, so that runs without a batch handler need not
        share one.
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
        return (run for bucket in (*self._buckets.values(), self._isolated) for run in bucket if run.outcome is None)

    def clear(self) -> list[Run]:
        """Removes and returns everything that waits."""
        waiting = list(self.waiting())
        self._buckets.clear()
        self._isolated.clear()
        return waiting

    def _limit(self, name: str, waiting: int, one_by_one: bool) -> int:
        algorithm = self._algorithms[name]
        if algorithm.has_batch:
            return algorithm.batch_cap
        if one_by_one:
            return 1
        # Not more than this slot's share: the others must not stand idle meanwhile.
        return min(self.latency.fitting(name), max(1, math.ceil(waiting / self._slots)))

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


class Call:
    """One call that is in a worker process: a sequence of handler calls, one per run, or one call of the batch handler.

    `number` identifies it in frames; `now` and all other times are seconds of one monotonic clock.
    """

    def __init__(self, number: int, algorithm: Algorithm, runs: list[Run], now: float) -> None:
        self.number = number
        self.runs = runs
        #: a single run goes to the handler itself, so that only it can be to blame
        self.uses_batch_handler = algorithm.has_batch and len(runs) > 1
        self.timeout_seconds = algorithm.options.timeout_seconds
        #: index of the run in progress; in a batch all are
        self.position = 0
        #: when that one started
        self.since = now
        for run in runs if self.uses_batch_handler else runs[:1]:
            run.started_at = now

    def frame(self, now: float) -> bytes:
        """The request to the worker process: a JSON header behind its length, the payloads, and the ids as JSON."""
        payloads = [run.payload for run in self.runs]
        header = to_json(
            {
                "algorithm": self.runs[0].algorithm,
                "batch": self.uses_batch_handler,
                "lengths": [len(payload) for payload in payloads],
                "seconds_left": [None if run.deadline_at is None else run.deadline_at - now for run in self.runs],
            }
        )
        ids = to_json([(run.id, run.attempt) for run in self.runs])
        return encode(CALL, self.number, body=b"".join([len(header).to_bytes(4, "big"), header, *payloads, ids]))

    def advance(self, at: int, now: float) -> Run | None:
        """The run at `at` has ended; returns the next one of a sequence, which has started."""
        if self.uses_batch_handler:
            return None
        self.position = at + 1
        self.since = now
        if self.position == len(self.runs):
            return None
        following = self.runs[self.position]
        following.started_at = now
        return following

    @property
    def current(self) -> Run | None:
        """The run in progress, of a sequence."""
        return self.runs[self.position] if not self.uses_batch_handler and self.position < len(self.runs) else None

    @property
    def unfinished(self) -> list[Run]:
        return [run for run in self.runs if run.outcome is None]

    def next_check_at(self) -> float:
        """When :meth:`overdue` may have something to report."""
        deadlines = [run.deadline_at for run in self._in_progress() if run.deadline_at is not None]
        return min([self.since + self.timeout_seconds, *deadlines])

    def overdue(self, now: float) -> list[tuple[Run, Outcome]]:
        """Runs whose own time is over, with their outcomes. A batch that takes too long is no run's fault."""
        seconds = now - self.since
        if not self.uses_batch_handler and self.is_too_long(now):
            return [(run, outcomes.timed_out(self.timeout_seconds, seconds)) for run in self._in_progress()]
        return [
            (run, outcomes.past_deadline(seconds))
            for run in self._in_progress()
            if run.deadline_at is not None and run.deadline_at <= now
        ]

    def is_too_long(self, now: float) -> bool:
        return now - self.since >= self.timeout_seconds

    def _in_progress(self) -> list[Run]:
        runs = self.runs if self.uses_batch_handler else self.runs[self.position : self.position + 1]
        return [run for run in runs if run.outcome is None]
