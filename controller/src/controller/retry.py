"""What follows from the outcome of one run. Pure: no clock, no randomness and no socket of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import orjson

from runnerlib.contract import BatchEntry, EntryState, FailureCode, HistoryEntry, Limits, RunError
from taskqueue.tasks import Delivery

#: Delays before the next attempt, one for each earlier failure; the last one repeats.
DEFAULT_STEPS_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)
#: The second loss of a runner that had a task for itself fails the task: it probably kills what runs it.
LOST_RUNNERS_BUDGET = 2

#: What the author's code did and may not do again.
_HANDLER_FAILURES = frozenset({FailureCode.HANDLER_ERROR, FailureCode.TIMEOUT})
#: All that a runner may say of a run; any other code counts as `handler_error`.
_RUNNER_CODES = frozenset(
    {
        FailureCode.INVALID_PAYLOAD,
        FailureCode.TOO_LARGE,
        FailureCode.ID_CONFLICT,
        FailureCode.EXPIRED,
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


@dataclass(frozen=True, slots=True)
class Fail:
    """It failed for good."""

    code: FailureCode
    message: str
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The message carries another task's id. It fails alone; that task stays as it is."""

    message: str


@dataclass(frozen=True, slots=True)
class CancelledDecision:
    """It was cancelled before it ended otherwise."""


@dataclass(frozen=True, slots=True)
class Again:
    """The same attempt starts once more, uncounted; `alone` in a call of its own.

    `expected`: nothing is wrong, and it may happen twenty times a second.
    """

    why: str
    alone: bool = False
    expected: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing is to be recorded: somebody else decides on this task, or has."""

    why: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Another message's run decides on this task. This one goes round until then: its sender wants an answer too."""

    why: str


Decision = Done | Retry | Fail | Conflict | CancelledDecision | Again | Drop | Follow


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
    entry: BatchEntry,
    delivery: Delivery,
    history: Sequence[HistoryEntry],
    *,
    limits: Limits,
    policy: RetryPolicy,
    now: float,
    lone: bool,
) -> Decision:
    """What becomes of a run whose entry is final.

    `history` are the task's earlier failed attempts; the budgets are counted from it. `lone` says that the loss of
    a runner can be charged to this run: it had its call for itself, or its runner told so (a runner repeats the members
    of a batch that dies or takes too long one by one). `now` is seconds since the epoch.
    """
    match entry.state:
        case EntryState.SUCCEEDED:
            return _succeeded(entry, limits)
        case EntryState.CANCELLED:
            return CancelledDecision()
        case EntryState.UNKNOWN:
            return Again("the runner does not have it")
        case EntryState.STALE_ATTEMPT:
            return Drop("a higher attempt of this task has been seen by the runner")
        case EntryState.FAILED:
            error = entry.error or RunError(code=FailureCode.HANDLER_ERROR.value, message="the runner gave no reason")
            return _failed(error, delivery, history, limits=limits, policy=policy, now=now, lone=lone)
    raise ValueError(f"an entry in state {entry.state.value} is not final")


def _succeeded(entry: BatchEntry, limits: Limits) -> Decision:
    if "result" not in entry.model_fields_set:
        return Fail(FailureCode.BAD_RESULT, 'the runner\'s answer has no "result"')
    try:
        result = orjson.dumps(entry.result)
    except (TypeError, ValueError) as error:
        return Fail(FailureCode.BAD_RESULT, f"the result cannot be written as JSON: {error}")
    if len(result) > limits.result_bytes:
        return Fail(
            FailureCode.BAD_RESULT,
            f"the result has {len(result)} bytes, the limit is {limits.result_bytes}; "
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
    lone: bool,
) -> Decision:
    code = _code(error.code)
    if code is FailureCode.RUNNER_LOST:
        if not lone:
            return Again("the runner was lost with several tasks in one call", alone=True)
        before = sum(1 for past in history if past.code is FailureCode.RUNNER_LOST)
        if before + 1 >= LOST_RUNNERS_BUDGET:
            return Fail(code, error.message, error.traceback)
        return _retry_in_time(policy.delay_seconds(0), code, error, delivery, now)
    if code is FailureCode.TIMEOUT or (code is FailureCode.HANDLER_ERROR and error.retryable):
        before = sum(1 for past in history if past.code in _HANDLER_FAILURES)
        if before < limits.retries:
            return _retry_in_time(policy.delay_seconds(before), code, error, delivery, now)
    return Fail(code, error.message, error.traceback)


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
    try:
        code = FailureCode(text)
    except ValueError:
        return FailureCode.HANDLER_ERROR
    return code if code in _RUNNER_CODES else FailureCode.HANDLER_ERROR
