"""Decides what may become a task. Pure: no socket, no clock, no queue."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from producer.gateway.payload_check import payload_errors
from producer.gateway.sentences import FieldError, in_one_line
from runnerlib.contract import (
    Catalogue,
    Envelope,
    EnvelopeError,
    FailureCode,
    is_algorithm,
    is_task_id,
    near_names,
    new_task_id,
    strict_json,
)
from runnerlib.contract.envelope import envelope_from
from runnerlib.contract.strict_json import StrictJsonError
from taskqueue.tasks import NewTask

#: Most messages in one batch.
MOST_IN_BATCH = 1000
#: Characters of a name that cannot be an algorithm's, as far as an answer repeats them.
_MOST_NAME = 100


class RequestFault(str, Enum):
    """Why a message is refused that would not fail as a task: it says more than there is, or two things at once."""

    INVALID_REQUEST = "invalid_request"


class Known(Protocol):
    """What is known of the environment's algorithms; a CatalogueWatch is one."""

    @property
    def catalogue(self) -> Catalogue | None: ...
    @property
    def is_sure(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that does not become a task, and why, for its sender."""

    code: FailureCode | RequestFault
    message: str
    algorithm: str | None = None
    id: str | None = None
    errors: tuple[FieldError, ...] = ()
    near: tuple[str, ...] = ()


def conflict(task: NewTask) -> Refused:
    """The same id was used before for something else."""
    message = f"the id {task.id!r} belongs to a task with another content; use another id, or none to be given one"
    return Refused(FailureCode.ID_CONFLICT, message, task.algorithm, task.id)


class Admission:
    """Turns messages into tasks or refusals. `max_bytes` bounds each message."""

    def __init__(self, known: Known, max_bytes: int) -> None:
        self._known = known
        self._max_bytes = max_bytes

    def one(self, body: bytes, now: float, spare_id: str | None = None) -> NewTask | Refused:
        """Decides on one message. `spare_id` is used when it brings no id of its own."""
        if len(body) > self._max_bytes:
            return self._too_large(len(body))
        try:
            value = strict_json.loads(body)
        except StrictJsonError as error:
            return Refused(FailureCode.MALFORMED, f"the message is {error}", id=spare_id)
        return self._value(value, now, spare_id)

    def payload(
        self,
        algorithm: str,
        body: bytes,
        now: float,
        spare_id: str | None = None,
        expires_seconds: float | None = None,
    ) -> NewTask | Refused:
        """Decides on a payload that came alone; the same as if it had come in a message."""
        if len(body) > self._max_bytes:
            return self._too_large(len(body))
        if not is_algorithm(algorithm):
            return _unknown(algorithm[:_MOST_NAME], self._known.catalogue, spare_id)
        try:
            # in a message it would be one level deeper
            value = strict_json.loads(body, max_depth=strict_json.MAX_DEPTH - 1)
        except StrictJsonError as error:
            return Refused(FailureCode.MALFORMED, f"the payload is {error}", algorithm, spare_id)
        message = {"algorithm": algorithm, "payload": value, "expires_seconds": expires_seconds}
        return self._value(message, now, spare_id)

    def array(self, body: bytes, now: float) -> list[NewTask | Refused] | Refused:
        """Decides on a JSON array of messages; one Refused when it is no such array."""
        try:
            values = strict_json.loads(body)
        except StrictJsonError as error:
            return Refused(FailureCode.MALFORMED, f"the batch is {error}")
        if not isinstance(values, list):
            return Refused(FailureCode.MALFORMED, "the batch must be a JSON array of messages")
        if len(values) > MOST_IN_BATCH:
            return _too_many(len(values))
        return [self._value(value, now, None) for value in values]

    def lines(self, body: bytes, now: float) -> list[NewTask | Refused] | Refused:
        """The same for one message on each line (NDJSON); empty lines are skipped."""
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) > MOST_IN_BATCH:
            return _too_many(len(lines))
        return [self.one(line, now) for line in lines]

    def _value(self, value: Any, now: float, spare_id: str | None) -> NewTask | Refused:
        try:
            envelope = envelope_from(value)
        except EnvelopeError as error:
            given = value.get("id") if isinstance(value, dict) else None
            return Refused(error.code, str(error), id=given if is_task_id(given) else spare_id)
        if envelope.unknown:
            return _unknown_fields(envelope, spare_id)
        if spare_id is not None and envelope.id not in (None, spare_id):
            return _two_ids(envelope, spare_id)
        if len(envelope.payload) > self._max_bytes:
            return self._too_large(len(envelope.payload))
        task_id = envelope.id or spare_id
        return self._refusal(envelope, value["payload"], task_id) or NewTask(
            id=task_id or new_task_id(),
            algorithm=envelope.algorithm,
            payload=envelope.payload,
            digest=envelope.digest,
            expires_at=None if envelope.expires_seconds is None else now + envelope.expires_seconds,
        )

    def _refusal(self, envelope: Envelope, payload: Any, task_id: str | None) -> Refused | None:
        catalogue = self._known.catalogue
        if catalogue is None:
            return None
        algorithm = catalogue.algorithms.get(envelope.algorithm)
        if algorithm is None:
            return _unknown(envelope.algorithm, catalogue, task_id) if self._known.is_sure else None
        errors = payload_errors(algorithm, payload, len(envelope.payload))
        if not errors:
            return None
        message = f"the payload does not fit {envelope.algorithm}: {in_one_line(errors)}"
        return Refused(FailureCode.INVALID_PAYLOAD, message, envelope.algorithm, task_id, errors=tuple(errors))

    def _too_large(self, size: int) -> Refused:
        message = (
            f"the message has {size} bytes, the limit is {self._max_bytes}; "
            "store the data elsewhere and send a reference"
        )
        return Refused(FailureCode.TOO_LARGE, message)


def _unknown_fields(envelope: Envelope, spare_id: str | None) -> Refused:
    """A field that means nothing here was meant to mean something."""
    first, *more = envelope.unknown
    message = first.sentence if not more else f"{first.sentence} (and {len(more)} more)"
    errors = tuple(FieldError(field.name, field.sentence) for field in envelope.unknown)
    return Refused(RequestFault.INVALID_REQUEST, message, envelope.algorithm, envelope.id or spare_id, errors=errors)


def _two_ids(envelope: Envelope, key: str) -> Refused:
    message = f"the message has the id {envelope.id!r}, but its Idempotency-Key is {key!r}; send one of them"
    return Refused(RequestFault.INVALID_REQUEST, message, envelope.algorithm, envelope.id)


def _too_many(count: int) -> Refused:
    message = f"the batch has {count} messages, the limit is {MOST_IN_BATCH}; send several batches"
    return Refused(FailureCode.TOO_LARGE, message)


def _unknown(name: str, catalogue: Catalogue | None, task_id: str | None) -> Refused:
    near = near_names(name.lower(), catalogue.algorithms) if catalogue is not None else []
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists what there is"
    message = f"no runner ever offered {name!r}; {advice}"
    return Refused(FailureCode.UNKNOWN_ALGORITHM, message, id=task_id, near=tuple(near))
