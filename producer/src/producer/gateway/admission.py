"""Decides which messages become tasks. Pure: no socket, no clock, no queue."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from producer.gateway.error_messages import FieldError, in_one_line
from producer.gateway.payload_check import payload_errors
from producer.gateway.problem_codes import ProblemCode
from runnerlib.contract import (
    Catalogue,
    Envelope,
    EnvelopeError,
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
MAX_BATCH = 1000
#: Longest part of an impossible algorithm name that a response repeats.
_MAX_NAME = 100
_LINE = re.compile(rb"\S[^\n]*")


class CatalogueView(Protocol):
    """What is known of the environment's algorithms; a CatalogueWatch is one."""

    @property
    def catalogue(self) -> Catalogue | None:
        """None until discovery has answered for the first time."""

    @property
    def is_sure(self) -> bool:
        """Whether a name missing from the catalogue is really unknown."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that does not become a task, and why."""

    code: ProblemCode
    message: str
    algorithm: str | None = None
    id: str | None = None
    errors: tuple[FieldError, ...] = ()
    near: tuple[str, ...] = ()
    #: when the same request would be let in, for one that came too soon
    retry_after_seconds: int | None = None


def conflict(task: NewTask) -> Refused:
    """The id was used before, with other content, or by another token; which of the two is not told."""
    message = (
        f"the id {task.id!r} belongs to another task: its content, or who sent it, is another; "
        "use another id, or none to be given one"
    )
    return Refused(ProblemCode.ID_CONFLICT, message, task.algorithm, task.id)


class Admission:
    """Turns messages into tasks or refusals. `max_bytes` limits each message.

    `now` is in seconds since the epoch. An `idempotency_key` is the id of a message that has none.
    """

    def __init__(self, view: CatalogueView, max_bytes: int) -> None:
        self._view = view
        self._max_bytes = max_bytes

    def one(self, body: bytes, now: float, idempotency_key: str | None = None) -> NewTask | Refused:
        """Checks one message."""
        if len(body) > self._max_bytes:
            return self._too_large(len(body))
        try:
            value = strict_json.loads(body, max_values=strict_json.MAX_VALUES)
        except StrictJsonError as error:
            return Refused(ProblemCode.MALFORMED, f"the message is {error}", id=idempotency_key)
        return self._message(value, now, idempotency_key)

    def payload(
        self,
        algorithm: str,
        body: bytes,
        now: float,
        idempotency_key: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> NewTask | Refused:
        """Checks a payload that was sent alone, as if it had come in a message with these other fields."""
        if len(body) > self._max_bytes:
            return self._too_large(len(body))
        if not is_algorithm(algorithm):
            return _unknown(algorithm[:_MAX_NAME], self._view.catalogue, idempotency_key)
        try:
            # in a message it would be one level deeper
            value = strict_json.loads(body, max_depth=strict_json.MAX_DEPTH - 1, max_values=strict_json.MAX_VALUES)
        except StrictJsonError as error:
            return Refused(ProblemCode.MALFORMED, f"the payload is {error}", algorithm, idempotency_key)
        return self._message({**(fields or {}), "algorithm": algorithm, "payload": value}, now, idempotency_key)

    def batch(self, body: bytes, now: float, *, in_lines: bool) -> list[NewTask | Refused] | Refused:
        """Checks each message of a JSON array, or of NDJSON `in_lines`. One Refused for the batch as a whole."""
        messages: Any
        if in_lines:
            messages = [line.group() for line in islice(_LINE.finditer(body), MAX_BATCH + 1)]
        else:
            try:
                messages = strict_json.loads(body, max_values=strict_json.MAX_VALUES)
            except StrictJsonError as error:
                return Refused(ProblemCode.MALFORMED, f"the batch is {error}")
            if not isinstance(messages, list):
                return Refused(ProblemCode.MALFORMED, "the batch must be a JSON array of messages")
        if len(messages) > MAX_BATCH:
            message = f"the batch has more than {MAX_BATCH} messages; send several batches"
            return Refused(ProblemCode.TOO_LARGE, message)
        return [self.one(each, now) if in_lines else self._message(each, now) for each in messages]

    def _message(self, value: Any, now: float, key: str | None = None) -> NewTask | Refused:
        try:
            envelope = envelope_from(value)
        except EnvelopeError as error:
            given = value.get("id") if isinstance(value, dict) else None
            return Refused(ProblemCode[error.code.name], str(error), id=given if is_task_id(given) else key)
        task_id = envelope.id or key
        refused = self._refused(envelope, value["payload"], task_id, key)
        return refused or NewTask(
            id=task_id or new_task_id(),
            algorithm=envelope.algorithm,
            payload=envelope.payload,
            digest=envelope.digest,
            expires_at=None if envelope.expires_seconds is None else now + envelope.expires_seconds,
            group=envelope.group,
            not_before=None if envelope.delay_seconds is None else now + envelope.delay_seconds,
        )

    def _refused(self, envelope: Envelope, payload: Any, task_id: str | None, key: str | None) -> Refused | None:
        name = envelope.algorithm
        if envelope.unknown:
            return _unknown_fields(envelope, task_id)
        if key is not None and key != task_id:
            message = f"the message has the id {task_id!r}, but its Idempotency-Key is {key!r}; send one of them"
            return Refused(ProblemCode.INVALID_REQUEST, message, name, task_id)
        if len(envelope.payload) > self._max_bytes:
            return self._too_large(len(envelope.payload))
        catalogue = self._view.catalogue
        if catalogue is None:
            return None
        algorithm = catalogue.algorithms.get(name)
        if algorithm is None:
            return _unknown(name, catalogue, task_id) if self._view.is_sure else None
        errors = payload_errors(algorithm, payload, len(envelope.payload))
        if not errors:
            return None
        message = f"the payload does not fit {name}: {in_one_line(errors)}"
        return Refused(ProblemCode.INVALID_PAYLOAD, message, name, task_id, errors=tuple(errors))

    def _too_large(self, size: int) -> Refused:
        message = (
            f"the message has {size} bytes, the limit is {self._max_bytes}; "
            "store the data elsewhere and send a reference"
        )
        return Refused(ProblemCode.TOO_LARGE, message)


def _unknown_fields(envelope: Envelope, task_id: str | None) -> Refused:
    """A field without a meaning is likely a misspelt one."""
    first, *more = envelope.unknown
    message = first.sentence if not more else f"{first.sentence} (and {len(more)} more)"
    errors = tuple(FieldError(field.name, field.sentence) for field in envelope.unknown)
    return Refused(ProblemCode.INVALID_REQUEST, message, envelope.algorithm, task_id, errors=errors)


def _unknown(name: str, catalogue: Catalogue | None, task_id: str | None) -> Refused:
    near = near_names(name.lower(), catalogue.algorithms) if catalogue is not None else []
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /algorithms lists what there is"
    message = f"no runner ever offered {name!r}; {advice}"
    return Refused(ProblemCode.UNKNOWN_ALGORITHM, message, id=task_id, near=tuple(near))
