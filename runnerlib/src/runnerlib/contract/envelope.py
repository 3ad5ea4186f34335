"""A message as a producer writes it: ``{"algorithm", "payload"}`` is enough."""

import difflib
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runnerlib.contract import strict_json
from runnerlib.contract.immutable import immutable
from runnerlib.contract.models import FailureCode
from runnerlib.contract.names import is_algorithm, is_group, is_task_id
from runnerlib.contract.strict_json import StrictJsonError

#: Default limit of one message; a setting may raise it up to :data:`MAX_MESSAGE_BYTES`.
DEFAULT_MESSAGE_BYTES = 1024 * 1024
#: RabbitMQ 4 refuses larger messages; larger things are passed by reference.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
#: Ten years; anything longer is a mistake in units.
MAX_EXPIRES_SECONDS = 10 * 366 * 86_400
#: A week; what is to happen later than that is better kept by whoever plans it.
MAX_DELAY_SECONDS = 7 * 86_400

#: What fields must be; each follows the name of its field.
GROUP_RULE = "must be 1 to 64 of A-Z a-z 0-9 . _ : -"
DELAY_RULE = f"must be a number of seconds from 0 to {MAX_DELAY_SECONDS} (7 days)"
EXPIRES_LATER_RULE = "must be more than 'delay_seconds': it would expire before it may start"

#: Every field that a message may have.
FIELDS = ("algorithm", "payload", "id", "expires_seconds", "delay_seconds", "group")
#: Names that are planned but not supported yet. Ignoring them would break what they promise.
_UNSUPPORTED = ("callback_url", "priority")
#: How much alike (0 to 1) an unknown field and a known one are before one is suggested for the other: `timeout_seconds`
#: is no misspelt `expires_seconds`.
_NEAR = 0.75
#: Characters of an unknown field's name that a sentence repeats.
_MOST_NAME = 64
#: Unknown fields of one message that are reported; finding what each resembles takes time.
_MOST_UNKNOWN = 8
_FIELDS = frozenset(FIELDS)
_PLAIN_FIELDS = frozenset(("algorithm", "payload", "id"))


class EnvelopeError(ValueError):
    """The message can never become a task; `code` is ``malformed`` or ``too_large``."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that a message should not have. `near` is the known field that was probably meant."""

    name: str
    near: str | None

    @property
    def sentence(self) -> str:
        """What is wrong with it, as a sentence for the sender."""
        shown = self.name if len(self.name) <= _MOST_NAME else f"{self.name[:_MOST_NAME]}…"
        advice = f"did you mean {self.near!r}?" if self.near else f"a message has {', '.join(FIELDS)}"
        return f"unknown field {shown!r}; {advice}"


@immutable
class Envelope:
    """One accepted message. `payload` is compact JSON; `id` is None when the sender gave none.

    `unknown` are the fields that were ignored. Where the sender gets an answer, the message is refused for them.
    """

    algorithm: str
    payload: bytes
    digest: str
    id: str | None = None
    expires_seconds: float | None = None
    delay_seconds: float | None = None
    group: str | None = None
    unknown: tuple[UnknownField, ...] = ()

    @property
    def waits_in_store(self) -> bool:
        """Whether it waits for its group's turn, or its time: not in a broker's queue."""
        return self.group is not None or self.delay_seconds is not None


def parse_envelope(body: bytes, *, max_bytes: int = DEFAULT_MESSAGE_BYTES) -> Envelope:
    """Reads one message. Raises EnvelopeError with a sentence for the sender."""
    if len(body) > max_bytes:
        raise EnvelopeError(
            FailureCode.TOO_LARGE,
            f"the message has {len(body)} bytes, the limit is {max_bytes}; "
            "store the data elsewhere and send a reference",
        )
    try:
        value = strict_json.loads(body, max_values=strict_json.MAX_VALUES)
    except StrictJsonError as error:
        raise EnvelopeError(FailureCode.MALFORMED, f"the message is {error}") from None
    return envelope_from(value)


def envelope_from(value: Any) -> Envelope:
    """Like :func:`parse_envelope` for a message that the strict parser has already read. Raises EnvelopeError."""
    if not isinstance(value, dict):
        raise _malformed('the message must be a JSON object: {"algorithm": ..., "payload": ...}')
    is_plain = value.keys() <= _PLAIN_FIELDS
    for name in () if is_plain else _UNSUPPORTED:
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
    others = {} if is_plain else _others(value)
    payload = value["payload"]
    return Envelope(
        algorithm=algorithm,
        payload=strict_json.compact(payload),
        digest=task_digest(algorithm, payload),
        id=task_id,
        **others,
    )


def _others(value: Mapping[str, Any]) -> dict[str, Any]:
    """What most messages do not have."""
    group = value.get("group")
    if group is not None and not is_group(group):
        raise _malformed(f"'group' {GROUP_RULE}")
    expires, delay = _expires(value.get("expires_seconds")), _delay(value.get("delay_seconds"))
    if expires is not None and delay is not None and delay >= expires:
        raise _malformed(f"'expires_seconds' {EXPIRES_LATER_RULE}")
    return {
        "expires_seconds": expires,
        "delay_seconds": delay,
        "group": group,
        "unknown": unknown_fields(value),
    }


def unknown_fields(message: Mapping[str, Any]) -> tuple[UnknownField, ...]:
    """The first few fields of a message that mean nothing here, each with the known one it resembles."""
    if message.keys() <= _FIELDS:
        return ()
    names = itertools.islice((name for name in message if name not in _FIELDS), _MOST_UNKNOWN)
    return tuple(UnknownField(name, _near(name)) for name in names)


def task_digest(algorithm: str, payload: Any) -> str:
    """Identifies the content of a task: the same id with another digest is an `id_conflict`."""
    return hashlib.sha256(strict_json.canonical([algorithm, payload])).hexdigest()


def _near(name: str) -> str | None:
    plain = name.lower().replace("-", "_")[:_MOST_NAME]
    longer = [field for field in FIELDS if len(plain) > 3 and field.startswith(plain)]
    return next(iter([*longer, *difflib.get_close_matches(plain, FIELDS, n=1, cutoff=_NEAR)]), None)


def _expires(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_EXPIRES_SECONDS:
        raise _malformed("'expires_seconds' must be a positive number of seconds")
    return float(value)


def _delay(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DELAY_SECONDS:
        raise _malformed(f"'delay_seconds' {DELAY_RULE}")
    return float(value) or None


def _malformed(message: str) -> EnvelopeError:
    return EnvelopeError(FailureCode.MALFORMED, message)
