"""What an answer must be like; raises Broken with what it is."""

from typing import Any

from runnerlib.contract import PROBLEM_MEDIA_TYPE, BatchEntry, EntryState
from worker.conformance.asking import Answer
from worker.conformance.errors import Broken


def status(answer: Answer, *wanted: int) -> Answer:
    if answer.status not in wanted:
        raise Broken(f"it answered {answer}")
    return answer


def result(answer: Answer) -> Any:
    """Of ``POST /run/{algorithm}``."""
    body = status(answer, 200).json()
    if not isinstance(body, dict) or "result" not in body:
        raise Broken(f"it answered {answer}")
    return body["result"]


def problem(answer: Answer) -> dict[str, Any]:
    """An error as the contract has them."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind != PROBLEM_MEDIA_TYPE:
        raise Broken(f"an answer {answer.status} has the media type {kind or 'none'!r}")
    body = answer.json()
    if not isinstance(body, dict):
        raise Broken(f"an answer {answer} is no object")
    for field in ("code", "detail"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise Broken(f"an answer {answer} has no {field!r}")
    if "Traceback (most recent" in answer.body.decode(errors="replace"):
        raise Broken(f"an answer {answer.status} shows a traceback")
    return body


def refusal(answer: Answer, status_wanted: int, *codes: str) -> None:
    code = problem(status(answer, status_wanted))["code"]
    if code not in codes:
        raise Broken(f"the code of its answer {answer.status} is {code!r}")


def retry_after(answer: Answer) -> None:
    """What a busy or stopping runner must say."""
    text = answer.headers.get("Retry-After")
    try:
        if float(text or "") >= 0:
            return
    except ValueError:
        pass
    raise Broken(f"an answer {answer.status} has the Retry-After {text!r}")


def state(entry: BatchEntry, *wanted: EntryState) -> BatchEntry:
    if entry.state not in wanted:
        why = f" ({entry.error.code}: {entry.error.message[:200]})" if entry.error else ""
        raise Broken(f"the state of an entry is {entry.state.value}{why}")
    return entry
