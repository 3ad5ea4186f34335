"""What follows from what happened to a run at its runner. Pure: clock and randomness are given.

====================================================  ======================================================
what happened                                         what follows
====================================================  ======================================================
succeeded                                             Done; without a result, or with too large a one: Fail
failed: an error marked retryable, or the time limit  Retry, as often as the algorithm allows; then Fail
failed: any other error                               Fail
its process died (the runner says `runner_lost`)      Retry; the second time Fail
its whole runner is gone                              Retry; the fifth time Fail
its runner is gone, after an orderly stop             StartAgain
cancelled, outdated, another task's id, expired       Unconfirmed: the store decides, unless we know it ourselves
                                                      (Cancel, Fail); see `disbelieved`
the runner does not have it                           StartAgain; `controller.call` counts repetitions
its entry, or the whole answer, cannot be read        StartAgain; the second time, or if it would repeat itself: Fail
the call was refused with a reason                    as if the run had failed with it
busy, draining, not reached, algorithm not there      StartAgain
any Retry whose time would be over by then            Fail
====================================================  ======================================================

What cannot be charged to one of several runs in a call isolates them: each is requeued for a call of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from controller.errors import BadAnswer, Busy, NotSent, Refused, RunnerError
from controller.runner_answers import MAX_RESULT_BYTES, Entry
from controller.runs import Run
from runnerlib.contract import EntryState, FailureCode, Limits, RunError
from runnerlib.contract.immutable import immutable
from taskqueue.tasks import Delivery

#: The second death of a process that ran this task alone fails the task: it probably kills what runs it.
LOST_PROCESSES_BUDGET = 2
#: A whole runner has many reasons to vanish that are not the task's (its machine, its container, a forced update).
#: So many losses of runners that had only this task fail it, with growing delays in between.
LOST_RUNNERS_BUDGET = 5
#: Attempts that end with an answer that is not believed, before the task fails.
BAD_ANSWERS_BUDGET = 3
#: A runner counts seconds left, and may find them over a little before our clock does.
EXPIRY_TOLERANCE_SECONDS = 1.0
#: How long a runner that drains, or does not know the algorithm, gets no tasks of it.
RUNNER_PAUSE_SECONDS = 1.0

#: What the author's code did and may not do again.
_HANDLER_FAILURES = frozenset({FailureCode.HANDLER_ERROR, FailureCode.TIMEOUT})
#: What a runner may decide about a run; any other code counts as `handler_error`. From a runner, `too_large` is the
#: payload's fault: as our own code it would mean that the message was not kept and cannot be replayed.
_RUNNER_CODES = {
    "invalid_payload": FailureCode.INVALID_PAYLOAD,
    "too_large": FailureCode.INVALID_PAYLOAD,
    "handler_error": FailureCode.HANDLER_ERROR,
    "bad_result": FailureCode.BAD_RESULT,
    "timeout": FailureCode.TIMEOUT,
    "runner_lost": FailureCode.RUNNER_LOST,
}
_CONFLICTS = {"stale_attempt": EntryState.STALE_ATTEMPT, "cancelled": EntryState.CANCELLED}
_CODES_BY_STATUS = {400: FailureCode.INVALID_PAYLOAD, 413: FailureCode.TOO_LARGE, 422: FailureCode.INVALID_PAYLOAD}


@immutable
class Done:
    """It succeeded; `result` is compact JSON."""

    result: bytes


@immutable
class Retry:
    """The attempt failed; the next one may start after so many seconds."""

    after_seconds: float
    code: FailureCode
    message: str
    #: the whole runner was lost, not the process of this task
    whole_runner: bool = False


@immutable
class Fail:
    """It failed for good."""

    code: FailureCode
    message: str
    traceback: str | None = None
    whole_runner: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """The message carries another task's id: the message fails, that task stays as it is."""

    code: ClassVar[FailureCode] = FailureCode.ID_CONFLICT

    message: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """It was cancelled before it ended otherwise."""


@dataclass(frozen=True, slots=True)
class StartAgain:
    """The same attempt starts once more, uncounted; `isolated` in a call of its own.

    `expected`: nothing is wrong, and it may happen twenty times a second. `distrusted`: the runner's answer is not
    believed, so another runner gets the task if there is one.
    """

    why: str
    isolated: bool = False
    expected: bool = False
    distrusted: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing is recorded: the outcome of this task is already decided, or will be by another message."""

    why: str


@dataclass(frozen=True, slots=True)
class AwaitDuplicate:
    """Another message's run decides on this task. This message is delayed until then: its sender wants a reply too."""

    why: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What a runner says and only the store can know, so the store is asked: the task has ended, moved on, or is
    another one. `cancelled`: the runner says that it was cancelled."""

    why: str
    cancelled: bool = False


Decision = Done | Retry | Fail | Conflict | Cancel | StartAgain | Ignore | AwaitDuplicate


@dataclass(frozen=True, slots=True)
class OutcomePolicy:
    """Decides what becomes of runs.

    Parameters:
        steps_seconds: delays before the next attempt, one for each earlier failure; the last one repeats.
        random: the source of their jitter.
        wall: seconds since the epoch.
    """

    steps_seconds: Sequence[float]
    random: Random
    wall: Callable[[], float]

    def decide(self, run: Run, entry: Entry, limits: Limits) -> Decision | Unconfirmed:
        """What becomes of a run whose entry is final. The budgets are counted from the run's history."""
        match entry.state:
            case EntryState.SUCCEEDED:
                return _succeeded(entry.result, min(limits.result_bytes, MAX_RESULT_BYTES))
            case EntryState.FAILED:
                return self._failed(run, entry.error or RunError(code="", message="the runner gave no reason"), limits)
            case EntryState.CANCELLED:
                return Cancel() if run.cancel_requested else Unconfirmed("it was cancelled", cancelled=True)
            case EntryState.UNKNOWN:
                return StartAgain("the runner does not have it")
            case EntryState.STALE_ATTEMPT:
                return Unconfirmed("it has seen a higher attempt of this task")
        raise ValueError(f"an entry in state {entry.state.value} is not final")

    def call_failed(self, run: Run, error: RunnerError, limits: Limits, *, sole_run: bool) -> Decision | Unconfirmed:
        """What becomes of a run whose call got no answer, or one that cannot be read."""
        match error:
            case BadAnswer():
                return unreadable(error, disbelieved_answers=run.disbelieved_answers, sole_run=sole_run)
            case Refused() if error.problem.status != 404:
                if sole_run:
                    return self.decide(run, _refusal_entry(error), limits)
                return StartAgain(f"the runner refused a call with several tasks: {error}", isolated=True)
        return StartAgain(str(error), expected=isinstance(error, Busy))

    def runner_lost(self, run: Run, why: str, *, sole_run: bool, has_left: bool = False) -> Decision:
        """What becomes of a run whose whole runner is gone. `has_left`: it was stopped in order."""
        if has_left:
            return StartAgain(f"{why}, stopped in order")
        if not sole_run:
            return StartAgain("the runner was lost with several tasks in one call", isolated=True)
        code = FailureCode.RUNNER_LOST
        before = sum(1 for past in run.history if past.code is code and past.whole_runner)
        if before + 1 >= LOST_RUNNERS_BUDGET:
            message = f"{why}; it was the {LOST_RUNNERS_BUDGET}th runner lost with this task"
            return Fail(code, message, whole_runner=True)
        return replace(self._retry(run, before, code, RunError(code=code.value, message=why)), whole_runner=True)

    def disbelieved(self, run: Run, why: str) -> Decision:
        """What becomes of a run of which its runner claims something that the store does not know.

        The first time, the same attempt starts again. Then the attempt counts: the next one has a number that the
        runner may not have seen, and replaces whatever it thinks it has.
        """
        code, message = FailureCode.BAD_RESULT, f"the runner says that {why}, of which the store knows nothing"
        if run.disbelieved_answers == 0:
            return StartAgain(message, isolated=True, distrusted=True)
        before = sum(1 for past in run.history if past.code is code)
        if before + 1 >= BAD_ANSWERS_BUDGET:
            return Fail(code, message)
        return self._retry(run, before, code, RunError(code=code.value, message=message))

    def delay_seconds(self, failures_before: int) -> float:
        """The step, or by chance one of its neighbours, so that tasks that failed together come back apart.

        Always one of the steps: a broker has one delay queue for each.
        """
        last = len(self.steps_seconds) - 1
        own = min(failures_before, last)
        return self.steps_seconds[self.random.choice((max(own - 1, 0), own, own, min(own + 1, last)))]

    def _failed(self, run: Run, error: RunError, limits: Limits) -> Decision | Unconfirmed:
        if error.code == FailureCode.ID_CONFLICT.value:
            return Unconfirmed("it knows another task by this id and attempt")
        if error.code == FailureCode.EXPIRED.value:
            expires_at = run.delivery.expires_at
            if expires_at is None or self.wall() < expires_at - EXPIRY_TOLERANCE_SECONDS:
                return Unconfirmed("its time was over before it could start")
            return Fail(FailureCode.EXPIRED, error.message, error.traceback)
        code = _RUNNER_CODES.get(error.code, FailureCode.HANDLER_ERROR)
        if code is FailureCode.RUNNER_LOST:
            # The runner has repeated the members of a batch one by one: it was this run that its process died of.
            before = sum(1 for past in run.history if past.code is code and not past.whole_runner)
            if before + 1 < LOST_PROCESSES_BUDGET:
                return self._retry(run, 0, code, error)
        elif code is FailureCode.TIMEOUT or (code is FailureCode.HANDLER_ERROR and error.retryable):
            before = sum(1 for past in run.history if past.code in _HANDLER_FAILURES)
            if before < limits.retries:
                return self._retry(run, before, code, error)
        return Fail(code, error.message, error.traceback)

    def _retry(self, run: Run, failures_before: int, code: FailureCode, error: RunError) -> Retry | Fail:
        """Fails the task instead when its time would be over before the next attempt."""
        after_seconds, attempt = self.delay_seconds(failures_before), run.delivery.attempt
        expires_at = run.delivery.expires_at
        if expires_at is None or self.wall() + after_seconds < expires_at:
            return Retry(after_seconds, code, error.message)
        message = f"no time is left for attempt {attempt + 1}; attempt {attempt} failed: {error.message}"
        return Fail(FailureCode.EXPIRED, message, error.traceback)


def unreadable(error: BadAnswer | str, *, disbelieved_answers: int, sole_run: bool) -> Decision:
    """What becomes of a run whose answer, or whose part of the answer, cannot be read.

    Something may have garbled it, so the same attempt starts once more, at another runner if there is one.
    """
    if not sole_run:
        return StartAgain(f"its call had an answer that cannot be read: {error}", isolated=True)
    if disbelieved_answers == 0 and not (isinstance(error, BadAnswer) and error.would_repeat):
        return StartAgain(str(error), isolated=True, distrusted=True)
    return Fail(FailureCode.BAD_RESULT, str(error))


def pause_seconds(error: RunnerError) -> float | None:
    """How long the runner of a failed call gets no tasks of this algorithm. None: it is no reason for a pause."""
    if isinstance(error, Busy):
        return error.retry_after_seconds
    if isinstance(error, NotSent | BadAnswer) or (isinstance(error, Refused) and error.problem.status != 404):
        return None
    return RUNNER_PAUSE_SECONDS


def timed_out(why: str) -> Entry:
    """The entry of a run that its runner did not end in time."""
    error = RunError(code=FailureCode.TIMEOUT.value, message=why, retryable=True)
    return Entry(EntryState.FAILED, error=error)


def id_conflict(delivery: Delivery) -> Conflict:
    """For a message whose id is another task's."""
    return Conflict(f"{delivery.id!r} is the id of another task; give every task an id of its own")


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a runner may call a run running, and how long unfinished since it was sent. Seconds."""

    running: float
    unfinished: float


def deadline(limits: Limits, neighbours: Sequence[Limits], *, members: int, margin_seconds: float) -> Deadline:
    """The controller's own deadline for each run of a call of so many members.

    A call may take its time limit once as a whole, and then once for each member that runs again alone; a single run
    may be restarted because a neighbour in its process took too long. Before that it may wait in the runner for two
    calls of any of the algorithms that share its processes, `neighbours`.
    """
    longest = max((each.timeout_seconds * (each.batch + 1) for each in neighbours), default=0.0)
    running = limits.timeout_seconds * (members + 1) + margin_seconds
    return Deadline(running, running + 2 * longest)


def reason_to_take_away(
    allowed: Deadline, limits: Limits, *, running_seconds: float | None, sent_seconds: float
) -> str | None:
    """Why a run that its runner calls waiting or running is taken from it; None while it may continue."""
    if running_seconds is not None and running_seconds > allowed.running:
        return (
            f"the runner has called it running for {running_seconds:.0f} s and did not keep its time limit of "
            f"{limits.timeout_seconds:g} s"
        )
    if sent_seconds > allowed.unfinished:
        state = "waiting" if running_seconds is None else "unfinished"
        return f"the runner has called it {state} for {sent_seconds:.0f} s"
    return None


def _succeeded(result: bytes | None, most: int) -> Done | Fail:
    if result is None:
        return Fail(FailureCode.BAD_RESULT, 'the runner\'s answer has no "result"')
    if len(result) > most:
        return Fail(
            FailureCode.BAD_RESULT,
            f"the result has {len(result)} bytes, the limit is {most}; "
            "return a reference, or raise result_bytes in OPTIONS",
        )
    return Done(result)


def _refusal_entry(refused: Refused) -> Entry:
    """What the refusal of a call with a single run means for it."""
    problem = refused.problem
    if problem.status == 409 and problem.code in _CONFLICTS:
        return Entry(_CONFLICTS[problem.code])
    code = _CODES_BY_STATUS.get(problem.status)
    text = code.value if code is not None else problem.code
    return Entry(EntryState.FAILED, error=RunError(code=text, message=problem.detail, retryable=refused.is_retryable))
