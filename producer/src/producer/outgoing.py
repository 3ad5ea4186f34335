"""A task on its way out: checked here as every door of the environment checks it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.errors import Refused
from runnerlib.contract import Envelope, EnvelopeError, FailureCode, StrictJsonError, new_task_id, strict_json
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES, parse_envelope

_STATUS = {FailureCode.TOO_LARGE: 413}

#: What a caller may give for one task: ``("upper", {"text": "a"})``, or a message with `algorithm`, `payload` and more.
Given = tuple[str, Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`message` is what was given, with an id; `size` is that of its JSON."""

    id: str
    message: dict[str, Any]
    envelope: Envelope
    size: int


def outgoing(given: Given, task_id: str | None = None, expires_seconds: float | None = None) -> Outgoing:
    """Checks one task; it gets an id when it has none, so that sending it again makes one task. Raises Refused."""
    message = dict(given) if isinstance(given, Mapping) else _pair(given)
    if task_id is not None:
        message["id"] = task_id
    if expires_seconds is not None:
        message.setdefault("expires_seconds", expires_seconds)
    if message.get("id") is None:
        message["id"] = new_task_id()
    try:
        body = strict_json.dumps(message)
        envelope = parse_envelope(body, max_bytes=MAX_MESSAGE_BYTES)
    except EnvelopeError as error:
        raise Refused(_STATUS.get(error.code, 400), error.code.value, str(error)) from None
    except (StrictJsonError, TypeError, RecursionError) as error:
        raise Refused(400, FailureCode.MALFORMED.value, f"the payload cannot be sent as JSON: {error}") from None
    return Outgoing(str(message["id"]), message, envelope, len(body))


def _pair(given: Any) -> dict[str, Any]:
    if isinstance(given, tuple) and len(given) == 2:
        return {"algorithm": given[0], "payload": given[1]}
    shape = '("algorithm", payload) or {"algorithm": ..., "payload": ...}'
    raise Refused(400, FailureCode.MALFORMED.value, f"a task is given as {shape}, not as {type(given).__name__}")
