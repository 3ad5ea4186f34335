"""A message as a producer writes it: ``{"algorithm", "payload"}`` is enough."""

import hashlib
from dataclasses import dataclass
from typing import Any

from runnerlib.contract import strict_json
from runnerlib.contract.names import is_algorithm, is_task_id
from runnerlib.contract.strict_json import StrictJsonError
from runnerlib.contract.tasks import FailureCode

#: Default limit of one message; a setting may raise it up to :data:`MAX_MESSAGE_BYTES`.
DEFAULT_MESSAGE_BYTES = 1024 * 1024
#: RabbitMQ 4 refuses larger messages; larger things are passed by reference.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
#: Ten years; anything longer is a mistake in units.
MAX_EXPIRES_SECONDS = 10 * 366 * 86_400

#: Names we know but do not offer yet. Dropping them silently would break a promise.
_UNSUPPORTED = ("callback_url", "priority")


class EnvelopeError(ValueError):
    """The message can never become a task; `code` is ``malformed`` or ``too_large``."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Envelope:
    """One accepted message. `payload` is compact JSON; `id` is None when the sender gave none."""

    algorithm: str
    payload: bytes
    digest: str
    id: str | None = None
    expires_seconds: float | None = None


def parse_envelope(body: bytes, *, max_bytes: int = DEFAULT_MESSAGE_BYTES) -> Envelope:
    """Reads one message. Raises EnvelopeError with a sentence for the sender."""
    if len(body) > max_bytes:
        raise EnvelopeError(
            FailureCode.TOO_LARGE,
            f"the message has {len(body)} bytes, the limit is {max_bytes}; "
            "store the data elsewhere and send a reference",
        )
    try:
        value = strict_json.loads(body)
    except StrictJsonError as error:
        raise EnvelopeError(FailureCode.MALFORMED, f"the message is {error}") from None
    return envelope_from(value)


def envelope_from(value: Any) -> Envelope:
    """The same for a message that has already been read by the strict parser. Raises EnvelopeError."""
    if not isinstance(value, dict):
        raise _malformed('the message must be a JSON object: {"algorithm": ..., "payload": ...}')
    for name in _UNSUPPORTED:
        if name in value:
            raise _malformed(f"{name!r} is not supported; leave it out")
    algorithm = value.get("algorithm")
    if not isinstance(algorithm, str) or not is_algorithm(algorithm):
        raise _malformed("'algorithm' must be a name of lower-case letters, digits and _, at most 63 characters")
    if "payload" not in value:
        raise _malformed("'payload' is missing; send {} for an algorithm without parameters")
    task_id = value.get("id")
    if task_id is not None and not is_task_id(task_id):
        raise _malformed("'id' must be 1 to 128 of A-Z a-z 0-9 . _ : -")
    payload = value["payload"]
    return Envelope(
        algorithm=algorithm,
        payload=strict_json.dumps(payload),
        digest=task_digest(algorithm, payload),
        id=task_id,
        expires_seconds=_expires(value.get("expires_seconds")),
    )


def task_digest(algorithm: str, payload: Any) -> str:
    """Same id with another digest is another task by mistake (`id_conflict`)."""
    return hashlib.sha256(strict_json.canonical([algorithm, payload])).hexdigest()


def _expires(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_EXPIRES_SECONDS:
        raise _malformed("'expires_seconds' must be a positive number of seconds")
    return float(value)


def _malformed(message: str) -> EnvelopeError:
    return EnvelopeError(FailureCode.MALFORMED, message)
