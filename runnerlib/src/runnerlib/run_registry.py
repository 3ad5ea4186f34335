"""The runs of this process, keyed (task id, attempt). Pure: no socket, no thread; the clock is an argument."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from runnerlib.contract import EntryState, RunError

#: Numbers of attempts are below it.
MAX_ATTEMPT = 2**31
#: How long an outcome is kept once it was delivered to a caller,
KEEP_DELIVERED_SECONDS = 60.0
#: and how long otherwise.
KEEP_SECONDS = 3600.0
#: Kept outcomes together; above it the oldest go first, those that were delivered before the others.
KEEP_BYTES = 64 * 1024 * 1024
#: What a kept run costs beyond its result: about 530 bytes were measured, the allocator wants its share.
_OVERHEAD_BYTES = 700

Clock = Callable[[], float]


class Outcome(NamedTuple):
    """How a run ended. `result` is JSON."""

    state: EntryState
    result: bytes | None = None
    error: RunError | None = None
    seconds: float | None = None


class Run:
    """One attempt at one task, from its acceptance to its outcome."""

    __slots__ = (
        "algorithm",
        "attempt",
        "cancel_requested",
        "deadline_at",
        "delivered_at",
        "digest",
        "ended_at",
        "id",
        "outcome",
        "payload",
        "progress",
        "shared_key",
        "started_at",
        "watchers",
    )

    def __init__(self, id: str, attempt: int, algorithm: str, payload: bytes, deadline_at: float | None = None) -> None:
        self.id = id
        self.attempt = attempt
        self.algorithm = algorithm
        self.payload = payload
        self.digest = _digest(algorithm, payload)
        self.deadline_at = deadline_at
        #: runs with equal keys may be in one call of the batch handler
        self.shared_key = b""
        self.started_at: float | None = None
        self.progress: tuple[float, str] | None = None
        self.cancel_requested = False
        self.outcome: Outcome | None = None
        self.ended_at = 0.0
        self.delivered_at: float | None = None
        #: called once each, when the run has ended
        self.watchers: tuple[Callable[[], None], ...] = ()

    @property
    def state(self) -> EntryState:
        if self.outcome is not None:
            return self.outcome.state
        return EntryState.WAITING if self.started_at is None else EntryState.RUNNING

    @property
    def kept_bytes(self) -> int:
        result = self.outcome.result if self.outcome is not None else None
        return _OVERHEAD_BYTES + (len(result) if result is not None else 0)


def pop_ended(runs: list[Run]) -> list[Run]:
    """Removes those at the end of the list that have ended. Runs end nearly in order, so only the last is looked at."""
    while runs and runs[-1].outcome is not None:
        runs.pop()
    return runs


class SubmitStatus(Enum):
    """What happens to a submitted run."""

    START = "start"
    ATTACH = "attach"
    STALE = "stale"
    CONFLICT = "conflict"


class Submission(NamedTuple):
    """`run` is the one that was started or attached to; `replaced` a lower attempt that must be stopped."""

    status: SubmitStatus
    run: Run | None = None
    replaced: Run | None = None


#: Named once: on some versions of Python, Enum makes each look-up slow.
START = SubmitStatus.START
_STALE = Submission(SubmitStatus.STALE)
_CONFLICT = Submission(SubmitStatus.CONFLICT)
_STALE_OUTCOME = Outcome(EntryState.STALE_ATTEMPT)
_UNKNOWN_OUTCOME = Outcome(EntryState.UNKNOWN)


class RunRegistry:
    """The highest attempt of each task that this process has seen, running or kept."""

    def __init__(self, clock: Clock, keep_bytes: int = KEEP_BYTES) -> None:
        self._clock = clock
        self._keep_bytes = keep_bytes
        self._runs: dict[str, Run] = {}
        # Both by the time of their entry, oldest first. What was dropped meanwhile stays in `delivered` until its turn.
        self._undelivered: OrderedDict[str, Run] = OrderedDict()
        self._delivered: deque[tuple[str, float]] = deque()
        self._kept_bytes = 0

    def submit(self, id: str, attempt: int, algorithm: str, payload: bytes, deadline_at: float | None) -> Submission:
        """Decides about a run with a payload: start it, attach to it, or refuse it."""
        known = self._runs.get(id)
        if known is not None:
            if attempt < known.attempt:
                return _STALE
            if attempt == known.attempt:
                same = known.digest == _digest(algorithm, payload)
                return Submission(SubmitStatus.ATTACH, known) if same else _CONFLICT
        replaced = self._replace(known) if known is not None else None
        run = Run(id, attempt, algorithm, payload, deadline_at)
        self._runs[id] = run
        return Submission(START, run, replaced)

    def would_start(self, id: str, attempt: int) -> bool:
        """Whether :meth:`submit` would start something; asked before anything is changed."""
        known = self._runs.get(id)
        return known is None or attempt > known.attempt

    def find(self, id: str, attempt: int | None = None) -> Run | None:
        """The run of this attempt, or of the latest one."""
        run = self._runs.get(id)
        return run if run is not None and attempt in (None, run.attempt) else None

    def is_stale(self, id: str, attempt: int) -> bool:
        known = self._runs.get(id)
        return known is not None and attempt < known.attempt

    def finish(self, run: Run, outcome: Outcome) -> bool:
        """Records how a run ended; False when it had ended before: the first outcome stays."""
        if run.outcome is not None:
            return False
        # One that was replaced or released has an outcome: this one is in `_runs`.
        run.ended_at = self._clock()
        _end(run, outcome)
        self._undelivered[run.id] = run
        self._kept_bytes += run.kept_bytes
        if self._kept_bytes > self._keep_bytes:
            self.sweep()
        return True

    def release(self, run: Run) -> None:
        """Gives a run up, uncounted: its state becomes `unknown`, and the same attempt may start again."""
        if run.outcome is None:
            if self._runs.get(run.id) is run:
                del self._runs[run.id]
            _end(run, _UNKNOWN_OUTCOME)

    def delivered(self, runs: Iterable[Run]) -> None:
        """The outcomes of those that have ended were delivered; from now on they are kept for a short while only."""
        now = self._clock()
        for run in runs:
            # A replaced run has its id in common with the one that took its place.
            if run.delivered_at is None and self._undelivered.get(run.id) is run:
                del self._undelivered[run.id]
                run.delivered_at = now
                self._delivered.append((run.id, now))

    def sweep(self) -> None:
        """Drops what was kept long enough, or what is too much; to be called now and then."""
        now = self._clock()
        while self._delivered:
            id, since = self._delivered[0]
            if now - since < KEEP_DELIVERED_SECONDS and self._kept_bytes <= self._keep_bytes:
                break
            self._delivered.popleft()
            run = self._runs.get(id)
            if run is not None and run.delivered_at == since:
                self._drop(run)
        while self._undelivered:
            oldest = next(iter(self._undelivered.values()))
            if now - oldest.ended_at < KEEP_SECONDS and self._kept_bytes <= self._keep_bytes:
                break
            self._drop(oldest)

    @property
    def undelivered(self) -> int:
        """Outcomes that were not delivered yet."""
        return len(self._undelivered)

    @property
    def kept_bytes(self) -> int:
        return self._kept_bytes

    def __len__(self) -> int:
        return len(self._runs)

    def _replace(self, known: Run) -> Run | None:
        """Makes room for a higher attempt; returns the lower one if it still runs."""
        if known.outcome is not None:
            self._drop(known)
            return None
        _end(known, _STALE_OUTCOME)
        return known

    def _drop(self, run: Run) -> None:
        del self._runs[run.id]
        if run.delivered_at is None:
            del self._undelivered[run.id]
        self._kept_bytes -= run.kept_bytes


def _digest(algorithm: str, payload: bytes) -> int:
    # Guards against a mistake, not an attack, and never leaves this process: the built-in hash is enough.
    return hash((algorithm, payload))


def _end(run: Run, outcome: Outcome) -> None:
    run.outcome = outcome
    run.payload = b""
    run.progress = None
    if run.watchers:
        watchers, run.watchers = run.watchers, ()
        for watcher in watchers:
            watcher()
