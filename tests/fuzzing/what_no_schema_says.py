"""Right answers that a fuzzer takes for mistakes, each with its reason; schemathesis loads this file.

But for one call (`LEFT_OUT` beside the test) nothing else is left out of the fuzzing.
"""

import re
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure, ResponseTimeExceeded, ServerError
from schemathesis.openapi.checks import AllowHeaderMismatch, RejectedPositiveData, UseAfterFree

#: The strict reading of JSON (docs/protocol.md), for which JSON Schema has no words.
_STRICT_JSON = ("does not fit in 64 bits", "nested deeper than", "lone surrogate")
#: To JSON Schema 68.0 is an integer; to runners, which read strictly, it is not.
_NO_INTEGER = ("valid integer", "a whole number from 1")


#: What a field may be depends on another one, in a message as in a query.
_EXPIRES_LATER = "it would expire before it may start"
#: A task that starts so late answers later than the fuzzer allows.
_DELAY_SECONDS = 9


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Any, response: Any) -> bool:
    """False: it is none."""
    if isinstance(failure, AcceptedNegativeData):
        if response.status_code == 408:
            # A payload is judged where handlers run, and its time was over before that.
            return bool(response.json()["code"] != "expired")
        if set(re.findall(r"violates `(\w+)", str(failure.message))) == {"format"}:
            # A remark in JSON Schema (2020-12, Validation 7): what a date is, the runner decides.
            return False
        # HTTP has everybody ignore headers that they do not know.
        return "in header - object with unexpected properties" not in str(failure.message)
    if isinstance(failure, ServerError):
        # A handler that is cut at the caller's Task-Deadline has failed, with the status of every failed run.
        return "Task-Deadline" not in (case.headers or {}) or bool(response.json()["code"] != "timeout")
    if isinstance(failure, UseAfterFree):
        # DELETE cancels; the task is kept, and so is its result when it was faster.
        return not case.path.startswith("/tasks/")
    if isinstance(failure, ResponseTimeExceeded):
        # A delayed task is waited for, too, if it may end in the time for which `run` waits.
        return float((case.query or {}).get("delay_seconds") or 0) < _DELAY_SECONDS
    if isinstance(failure, AllowHeaderMismatch):
        # A task may have the id `batch` or `lookup`: /tasks/{task_id} answers there as well; so it is with /dead.
        return case.path not in ("/tasks/batch", "/tasks/lookup", "/dead/replay", "/dead/discard")
    if isinstance(failure, RejectedPositiveData):
        return not _is_right(case.path, response.status_code, response.json())
    return True


def _is_right(path: str, status: int, problem: dict[str, Any]) -> bool:
    detail = problem["detail"]
    match status:
        case 400:
            return any(words in detail for words in (*_STRICT_JSON, *_NO_INTEGER, _EXPIRES_LATER))
        case 408:
            # No schema can say how many seconds it takes until a run can start.
            return problem["code"] == "expired"
        case 422:
            # What a payload may hold depends on the algorithm, which stands in the same message.
            any_payload = path in ("/tasks", "/tasks/batch") and problem["code"] == "invalid_payload"
            # Nor that two places say the same.
            two_ids = "Idempotency-Key" in detail
            # Nor that one field forbids or needs another, nor which characters can be printed.
            fields = ("cannot be limited to algorithms", "'burst' needs a 'rate_per_second'", "must be printable")
            tokens = path == "/tokens" and any(words in detail for words in fields)
            return any_payload or two_ids or tokens or any(words in detail for words in (*_NO_INTEGER, _EXPIRES_LATER))
    return False
