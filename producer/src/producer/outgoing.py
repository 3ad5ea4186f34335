"""A task on its way out: what has an id and can be written as JSON; the gateway decides on the rest. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.errors import Refused
from producer.json_text import BadJson, dumps
from producer.models import MAX_MESSAGE_BYTES, new_task_id

#: What a caller may give for one task: ``("upper", {"text": "a"})``, or a message with `algorithm`, `payload` and more.
Given = tuple[str, Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`body` is the message that was given, with its id, as JSON on one line."""

    id: str
    body: bytes


def outgoing(given: Given, task_id: str | None = None, expires_seconds: float | None = None) -> Outgoing:
    """Writes one task; it gets an id when it has none, so that sending it again makes one task. Raises Refused."""
    message = dict(given) if isinstance(given, Mapping) else _pair(given)
    if task_id is not None:
        message["id"] = task_id
    if expires_seconds is not None:
        message.setdefault("expires_seconds", expires_seconds)
    if message.get("id") is None:
        message["id"] = new_task_id()
    try:
        body = dumps(message)
    except BadJson as error:
        raise Refused(400, "malformed", f"the payload cannot be sent as JSON: {error}") from None
    if len(body) > MAX_MESSAGE_BYTES:
        raise Refused(
            413,
            "too_large",
            f"the message has {len(body)} bytes, the limit is {MAX_MESSAGE_BYTES}; "
            "store the data elsewhere and send a reference",
        )
    return Outgoing(str(message["id"]), body)


def _pair(given: Any) -> dict[str, Any]:
    if isinstance(given, tuple) and len(given) == 2:
        return {"algorithm": given[0], "payload": given[1]}
    shape = '("algorithm", payload) or {"algorithm": ..., "payload": ...}'
    raise Refused(400, "malformed", f"a task is given as {shape}, not as {type(given).__name__}")
