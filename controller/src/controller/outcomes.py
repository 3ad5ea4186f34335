"""What follows from the outcome of one run. Pure: no clock, no randomness and no socket of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from controller.errors import BadAnswer
from controller.runner_answers import MAX_RESULT_BYTES, Entry
from runnerlib.contract import EntryState, FailureCode, HistoryEntry, Limits, RunError
from taskqueue.tasks import Delivery

#: Delays before the next attempt, one for each earlier failure; the last one repeats.
DEFAULT_STEPS_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)
#: The second death of a process that ran this task alone fails the task: it probably kills what runs it.
LOST_PROCESSES_BUDGET = 2
#: A whole runner has many reasons to vanish that are not the task's (its machine, its container, an update by force).
#: So many losses of runners that had this task for itself fail it, with growing delays in between.
LOST_RUNNERS_BUDGET = 5
#: Attempts that end with an answer that is not believed, before the task fails.
BAD_ANSWERS_BUDGET = 3
#: A runner counts seconds left, and may find them over a little before our clock does.
EXPIRY_TOLERANCE_SECONDS = 1.0

#: What the author's code did and may not do again.
_HANDLER_FAILURES = frozenset({FailureCode.HANDLER_ERROR, FailureCode.TIMEOUT})
#: What a runner may decide about a run. Other codes are ours; from a runner they count as `handler_error`.
_RUNNER_CODES = frozenset(
    {
        FailureCode.INVALID_PAYLOAD,
        FailureCode.HANDLER_ERROR,
        FailureCode.BAD_RESULT,
        FailureCode.TIMEOUT,
        FailureCode.RUNNER_LOST,
    }
)


@dataclass(frozen=True, slots=True)
class Done:
    """It succeeded; `result` is compact JSON."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Retry:
    """The next attempt may start after this many seconds."""

    after_seconds: float
    code: FailureCode
    message: str
    #: the whole runner was lost, not the process of this task
    whole_runner: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """It failed for good."""

    code: FailureCode
    message: str
    traceback: str | None = None
    whole_runner: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """The message carries another task's id. It fails alone; that task stays as it is."""

    message: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """It was cancelled before it ended otherwise."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """The same attempt starts once more, uncounted; `alone` in a call of its own.

    `expected`: nothing is wrong, and it may happen twenty times a second.
    """

    why: str
    isolated: bool = False
    expected: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing is to be recorded: somebody else decides on this task, or has."""

    why: str


@dataclass(frozen=True, slots=True)
class AwaitDuplicate:
    """Another message's run decides on this task. This one goes round until then: its sender wants an answer too."""

    why: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a runner says and only the store can know: this task has ended, moved on, or is another one.

    It decides nothing: `controller.call` asks the store.
    """

    why: str
    #: that somebody has cancelled it
    cancelled: bool = False


Decision = Done | Retry | Fail | Conflict | Cancel | Requeue | Ignore | AwaitDuplicate


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The delays, and the source of their jitter."""

    steps_seconds: Sequence[float]
    random: Random

    def delay_seconds(self, failures_before: int) -> float:
        """The step, or by chance one of its neighbours, so that tasks that failed together come back apart.

        Always one of the steps: a broker has one delay queue for each.
        """
        own = min(failures_before, len(self.steps_seconds) - 1)
        last = len(self.steps_seconds) - 1
        return self.steps_seconds[self.random.choice((max(own - 1, 0), own, own, min(own + 1, last)))]


def decide(
    entry: Entry,
    delivery: Delivery,
    history: Sequence[HistoryEntry],
    *,
    limits: Limits,
    policy: RetryPolicy,
    now: float,
    sole_run: bool,
    cancel_requested: bool = False,
) -> Decision | Claim:
    """What becomes of a run whose entry is final.

    `history` are the task's earlier failed attempts; the budgets are counted from it. `sole_run` says that the loss of
    a runner can be charged to this run: it had its call for itself, or its runner told so (a runner repeats the members
    of a batch that dies or takes too long one by one). `now` is seconds since the epoch. `cancel_requested`: the store
    has a cancel mark.
    """
    match entry.state:
        case EntryState.SUCCEEDED:
            return _succeeded(entry, limits)
        case EntryState.CANCELLED:
            return Cancel() if cancel_requested else Claim("it was cancelled", cancelled=True)
        case EntryState.UNKNOWN:
            return Requeue("the runner does not have it")
        case EntryState.STALE_ATTEMPT:
            return Claim("it has seen a higher attempt of this task")
        case EntryState.FAILED:
            error = entry.error or RunError(code=FailureCode.HANDLER_ERROR.value, message="the runner gave no reason")
            return _failed(error, delivery, history, limits=limits, policy=policy, now=now, sole_run=sole_run)
    raise ValueError(f"an entry in state {entry.state.value} is not final")


def disbelieved(
    why: str,
    delivery: Delivery,
    history: Sequence[HistoryEntry],
    *,
    doubts: int,
    policy: RetryPolicy,
    now: float,
) -> Decision:
    """What becomes of a run of which its runner claims something that the store does not know.

    The first time, the same attempt starts again, at another runner if there is one. Then the attempt counts: the next
    one has a number that the runner may not have seen, and replaces whatever it thinks it has.
    """
    message = f"the runner says that {why}, of which the store knows nothing"
    if doubts == 0:
        return Requeue(message, isolated=True)
    before = sum(1 for past in history if past.code is FailureCode.BAD_RESULT)
    if before + 1 >= BAD_ANSWERS_BUDGET:
        return Fail(FailureCode.BAD_RESULT, message)
    error = RunError(code=FailureCode.BAD_RESULT.value, message=message)
    return _retry_in_time(policy.delay_seconds(before), FailureCode.BAD_RESULT, error, delivery, now)


def unreadable(error: BadAnswer | str, *, doubts: int, sole_run: bool) -> Decision:
    """What becomes of a run whose answer, or whose part of the answer, cannot be read.

    Something may have garbled it, so the same attempt starts once more, at another runner if there is one.
    """
    if not sole_run:
        return Requeue(f"its call had an answer that cannot be read: {error}", isolated=True)
    if doubts == 0 and not (isinstance(error, BadAnswer) and error.is_deliberate):
        return Requeue(str(error), isolated=True)
    return Fail(FailureCode.BAD_RESULT, str(error))


def runner_lost(
    why: str, delivery: Delivery, history: Sequence[HistoryEntry], *, policy: RetryPolicy, now: float, sole_run: bool
) -> Decision:
    """What becomes of a run whose whole runner is gone. See `LOST_RUNNERS_BUDGET`."""
    code = FailureCode.RUNNER_LOST
    if not sole_run:
        return Requeue("the runner was lost with several tasks in one call", isolated=True)
    before = sum(1 for past in history if past.code is code and past.whole_runner)
    if before + 1 >= LOST_RUNNERS_BUDGET:
        return Fail(code, f"{why}; it was the {LOST_RUNNERS_BUDGET}th runner lost with this task", whole_runner=True)
    error = RunError(code=code.value, message=why)
    decision = _retry_in_time(policy.delay_seconds(before), code, error, delivery, now)
    return replace(decision, whole_runner=True)


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a runner may call a run running, and how long unfinished since it was sent. Seconds."""

    running: float
    unfinished: float


def deadline(limits: Limits, neighbours: Sequence[Limits], *, members: int, margin_seconds: float) -> Deadline:
    """The controller's own deadline for each run of a call of so many members.

    A call may take its time limit once as a whole, and then once for each member that runs again alone; a single run
    may start anew because a neighbour in its process took too long. Before that it may wait in the runner for two calls
    of any of the algorithms that share its processes, `neighbours`.
    """
    longest = max((_call_seconds(each, each.batch) for each in neighbours), default=0.0)
    running = _call_seconds(limits, members) + margin_seconds
    return Deadline(running, running + 2 * longest)


def _call_seconds(limits: Limits, members: int) -> float:
    return limits.timeout_seconds * (members + 1)


def overdue(allowed: Deadline, limits: Limits, *, running_seconds: float | None, sent_seconds: float) -> str | None:
    """Why a run that its runner calls waiting or running is taken from it; None while it may go on."""
    if running_seconds is not None and running_seconds > allowed.running:
        return (
            f"the runner has called it running for {running_seconds:.0f} s and did not keep its time limit of "
            f"{limits.timeout_seconds:g} s"
        )
    if sent_seconds > allowed.unfinished:
        state = "waiting" if running_seconds is None else "unfinished"
        return f"the runner has called it {state} for {sent_seconds:.0f} s"
    return None


def _succeeded(entry: Entry, limits: Limits) -> Decision:
    result, most = entry.result, min(limits.result_bytes, MAX_RESULT_BYTES)
    if result is None:
        return Fail(FailureCode.BAD_RESULT, 'the runner\'s answer has no "result"')
    if len(result) > most:
        return Fail(
            FailureCode.BAD_RESULT,
            f"the result has {len(result)} bytes, the limit is {most}; "
            "return a reference, or raise result_bytes in OPTIONS",
        )
    return Done(result)


def _failed(
    error: RunError,
    delivery: Delivery,
    history: Sequence[HistoryEntry],
    *,
    limits: Limits,
    policy: RetryPolicy,
    now: float,
    sole_run: bool,
) -> Decision | Claim:
    if error.code == FailureCode.ID_CONFLICT.value:
        return Claim("it knows another task by this id and attempt")
    if error.code == FailureCode.EXPIRED.value:
        return _expired(error, delivery, now)
    code = _code(error.code)
    if code is FailureCode.RUNNER_LOST:
        if not sole_run:
            return Requeue("the runner was lost with several tasks in one call", isolated=True)
        before = sum(1 for past in history if past.code is code and not past.whole_runner)
        if before + 1 >= LOST_PROCESSES_BUDGET:
            return Fail(code, error.message, error.traceback)
        return _retry_in_time(policy.delay_seconds(0), code, error, delivery, now)
    if code is FailureCode.TIMEOUT or (code is FailureCode.HANDLER_ERROR and error.retryable):
        before = sum(1 for past in history if past.code in _HANDLER_FAILURES)
        if before < limits.retries:
            return _retry_in_time(policy.delay_seconds(before), code, error, delivery, now)
    return Fail(code, error.message, error.traceback)


def _expired(error: RunError, delivery: Delivery, now: float) -> Fail | Claim:
    if delivery.expires_at is None or now < delivery.expires_at - EXPIRY_TOLERANCE_SECONDS:
        return Claim("its time was over before it could start")
    return Fail(FailureCode.EXPIRED, error.message, error.traceback)


def _retry_in_time(
    after_seconds: float, code: FailureCode, error: RunError, delivery: Delivery, now: float
) -> Retry | Fail:
    if delivery.expires_at is not None and now + after_seconds >= delivery.expires_at:
        message = (
            f"no time is left for attempt {delivery.attempt + 1}; attempt {delivery.attempt} failed: {error.message}"
        )
        return Fail(FailureCode.EXPIRED, message, error.traceback)
    return Retry(after_seconds, code, error.message)


def _code(text: str) -> FailureCode:
    if text == FailureCode.TOO_LARGE.value:
        # Our own code means that the message was not kept, and cannot be replayed.
        return FailureCode.INVALID_PAYLOAD
    try:
        code = FailureCode(text)
    except ValueError:
        return FailureCode.HANDLER_ERROR
    return code if code in _RUNNER_CODES else FailureCode.HANDLER_ERROR
