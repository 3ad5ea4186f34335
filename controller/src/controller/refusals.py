"""Refusals and time limits in the form of an entry, so that one place decides on all outcomes. Pure."""

from controller.errors import Refused
from controller.runner_answers import Entry
from runnerlib.contract import EntryState, FailureCode, RunError

_STATES_BY_CODE = {"stale_attempt": EntryState.STALE_ATTEMPT, "cancelled": EntryState.CANCELLED}
_CODES_BY_STATUS = {
    400: FailureCode.INVALID_PAYLOAD,
    413: FailureCode.TOO_LARGE,
    422: FailureCode.INVALID_PAYLOAD,
}


def refusal_entry(refused: Refused) -> Entry:
    """What a refusal of a call with a single run means for it."""
    problem = refused.problem
    if problem.status == 409 and problem.code in _STATES_BY_CODE:
        return Entry(_STATES_BY_CODE[problem.code])
    code = _CODES_BY_STATUS.get(problem.status)
    text = code.value if code is not None else problem.code or FailureCode.HANDLER_ERROR.value
    return _failed(RunError(code=text, message=problem.detail, retryable=refused.is_retryable))


def timeout_entry(why: str) -> Entry:
    return _failed(RunError(code=FailureCode.TIMEOUT.value, message=why, retryable=True))


def _failed(error: RunError) -> Entry:
    return Entry(EntryState.FAILED, error=error)
