"""Refusals and losses in the form of an entry, so that one place decides on all outcomes. Pure."""

from controller.errors import Refused
from controller.inflight import Run
from runnerlib.contract import BatchEntry, EntryState, FailureCode, RunError

_STATES_BY_CODE = {"stale_attempt": EntryState.STALE_ATTEMPT, "cancelled": EntryState.CANCELLED}
_CODES_BY_STATUS = {
    400: FailureCode.INVALID_PAYLOAD,
    413: FailureCode.TOO_LARGE,
    422: FailureCode.INVALID_PAYLOAD,
}


def refusal_entry(run: Run, refused: Refused) -> BatchEntry:
    """What a refusal of a call with this single run means for it."""
    problem = refused.problem
    if problem.status == 409 and problem.code in _STATES_BY_CODE:
        return BatchEntry(id=run.id, attempt=run.delivery.attempt, state=_STATES_BY_CODE[problem.code])
    code = _CODES_BY_STATUS.get(problem.status)
    text = code.value if code is not None else problem.code or FailureCode.HANDLER_ERROR.value
    return _failed(run, RunError(code=text, message=problem.detail, retryable=refused.is_retryable))


def lost_entry(run: Run, why: str) -> BatchEntry:
    return _failed(run, RunError(code=FailureCode.RUNNER_LOST.value, message=why, retryable=True))


def timeout_entry(run: Run, why: str) -> BatchEntry:
    return _failed(run, RunError(code=FailureCode.TIMEOUT.value, message=why, retryable=True))


def _failed(run: Run, error: RunError) -> BatchEntry:
    return BatchEntry(id=run.id, attempt=run.delivery.attempt, state=EntryState.FAILED, error=error)
