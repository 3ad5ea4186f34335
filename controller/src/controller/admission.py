"""What to do with a message at the front door. Pure: what is known, the time and new ids are given."""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from controller.outcomes import Conflict, Fail, Ignore
from controller.triage import EXPIRED, POISON_AFTER_DELIVERIES, conflict, poison
from runnerlib.contract import (
    Envelope,
    EnvelopeError,
    FailureCode,
    StrictJsonError,
    TaskState,
    UnknownField,
    is_algorithm,
    is_task_id,
    near_names,
    new_task_id,
    parse_envelope,
    strict_json,
)
from taskqueue.messages import MOST_PROPERTY_BYTES, fits_property
from taskqueue.tasks import Arrival, Delivery, NewTask, TaskRow

#: Queues that begin so are the environment's own: an answer sent there would come back as a task.
OUR_QUEUES = "tasks"
#: What a dead letter keeps of a message that is too large. The whole is told by its size and digest, in the headers.
KEPT_BYTES = 4096
BODY_BYTES = "body_bytes"
BODY_SHA256 = "body_sha256"


@dataclass(frozen=True, slots=True)
class Rules:
    """What messages are judged by, as of `now` (seconds since the epoch)."""

    #: algorithms that were registered once, with or without a runner
    known: Collection[str]
    #: whether a name that is not among them is really unknown
    is_sure: bool
    unknown_grace_seconds: float
    max_message_bytes: int
    now: float


@dataclass(frozen=True, slots=True)
class Forward:
    """Into its algorithm's queue."""

    arrival: Arrival
    task: NewTask
    unknown_fields: tuple[UnknownField, ...] = ()


@dataclass(frozen=True, slots=True)
class Park:
    """Aside for some seconds: its algorithm may be registered by then."""

    arrival: Arrival
    task: NewTask
    unknown_fields: tuple[UnknownField, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """It never becomes a task, or never runs. `delivery` settles it like a run that failed."""

    arrival: Arrival
    delivery: Delivery
    code: FailureCode
    message: str

    @property
    def task(self) -> NewTask:
        each = self.delivery
        return NewTask(
            each.id, each.algorithm, each.payload, each.digest, each.expires_at, each.reply_to, each.correlation_id
        )


Verdict = Forward | Park | Refuse


def judge(arrival: Arrival, rules: Rules, new_id: Callable[[], str] = new_task_id) -> Verdict:
    """The same message gets the same verdict from every controller that knows the same algorithms."""
    try:
        task, unknown = _read(arrival, rules, new_id)
    except EnvelopeError as error:
        return refuse_unread(arrival, error.code, str(error), new_id)
    refusal = _refusal(arrival, task, rules)
    if refusal is not None:
        return Refuse(arrival, _delivery(arrival, task), refusal.code, refusal.message)
    kind = Forward if task.algorithm in rules.known else Park
    return kind(arrival, task, unknown)


def refuse_unread(arrival: Arrival, code: FailureCode, message: str, new_id: Callable[[], str] = new_task_id) -> Refuse:
    """For a message that is no task. Its id and algorithm are those it claims, where they can be read."""
    task_id, algorithm = _claims(arrival.body) if code is not FailureCode.TOO_LARGE else (None, "")
    if task_id is None:
        task_id = arrival.message_id if is_task_id(arrival.message_id) else new_id()
    assert task_id is not None
    digest = hashlib.sha256(arrival.body).hexdigest()
    task = NewTask(task_id, algorithm, b"null", digest, None, _reply_to(arrival), arrival.correlation_id)
    delivery = _delivery(arrival, task)
    if code is FailureCode.TOO_LARGE:
        headers = {**delivery.headers, BODY_BYTES: len(arrival.body), BODY_SHA256: digest}
        delivery = replace(delivery, body=arrival.body[:KEPT_BYTES], headers=headers)
    return Refuse(arrival, delivery, code, message)


def verdict_on(refused: Refuse, row: TaskRow | None) -> Fail | Ignore | Conflict | Forward:
    """What a refusal becomes, now that the store was asked: it changes no other task, and none that has ended."""
    if row is not None:
        if row.digest and row.digest != refused.delivery.digest:
            other = conflict(refused.delivery).message
            return Conflict(other if refused.code is FailureCode.EXPIRED else f"{refused.message}; also, {other}")
        if row.state.is_terminal:
            return Ignore(f"it is {row.state.value} already")
        if row.state is TaskState.RUNNING and refused.code is FailureCode.EXPIRED:
            # this one came too late, but another message with the same task was in time
            return Forward(refused.arrival, refused.task)
    return Fail(refused.code, refused.message)


def unknown_algorithm(algorithm: str, known: Iterable[str]) -> Fail:
    """For a task whose algorithm nobody has registered in time."""
    near = near_names(algorithm, known)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return Fail(FailureCode.UNKNOWN_ALGORITHM, f"no runner has registered {algorithm!r}{hint}")


def _read(arrival: Arrival, rules: Rules, new_id: Callable[[], str]) -> tuple[NewTask, tuple[UnknownField, ...]]:
    envelope = parse_envelope(arrival.body, max_bytes=rules.max_message_bytes)
    if arrival.reply_to and _reply_to(arrival) is None:
        raise EnvelopeError(
            FailureCode.MALFORMED,
            f"'reply_to' must be text of at most {MOST_PROPERTY_BYTES} bytes (UTF-8) and not begin with "
            f"{OUR_QUEUES!r}, as the queues of this environment do; name a queue of your own",
        )
    if not fits_property(arrival.correlation_id):
        raise EnvelopeError(
            FailureCode.MALFORMED, f"'correlation_id' must be text of at most {MOST_PROPERTY_BYTES} bytes (UTF-8)"
        )
    task = NewTask(
        id=_task_id(envelope, arrival, new_id),
        algorithm=envelope.algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        expires_at=_expires_at(envelope, arrival, rules.now),
        reply_to=arrival.reply_to,
        correlation_id=arrival.correlation_id,
    )
    return task, envelope.unknown


def _task_id(envelope: Envelope, arrival: Arrival, new_id: Callable[[], str]) -> str:
    if envelope.id is not None:
        return envelope.id
    if not arrival.message_id:
        return new_id()
    if not is_task_id(arrival.message_id):
        raise EnvelopeError(
            FailureCode.MALFORMED,
            "the property 'message_id' is the task's id and must be 1 to 128 of A-Z a-z 0-9 . _ : -; "
            "leave it out, or give the message an 'id'",
        )
    return arrival.message_id


def _expires_at(envelope: Envelope, arrival: Arrival, now: float) -> float | None:
    """Counted from the first sight, which is carried on."""
    if arrival.expires_at is not None or envelope.expires_seconds is None:
        return arrival.expires_at
    return now + envelope.expires_seconds


def _refusal(arrival: Arrival, task: NewTask, rules: Rules) -> Fail | None:
    if arrival.dead_reason is not None:
        return Fail(FailureCode.CONTROLLER_LOST, f"the broker gave it up: {arrival.dead_reason}")
    if task.expires_at is not None and task.expires_at <= rules.now:
        return EXPIRED
    if arrival.delivery_count >= POISON_AFTER_DELIVERIES:
        return poison(arrival.delivery_count)
    if task.algorithm in rules.known or not rules.is_sure:
        return None
    seen_at = rules.now if arrival.first_seen_at is None else arrival.first_seen_at
    if rules.now - seen_at < rules.unknown_grace_seconds:
        return None
    return unknown_algorithm(task.algorithm, rules.known)


def _delivery(arrival: Arrival, task: NewTask) -> Delivery:
    return Delivery(
        id=task.id,
        algorithm=task.algorithm,
        payload=task.payload,
        digest=task.digest,
        attempt=arrival.attempt,
        receipt=arrival.receipt,
        delivery_count=arrival.delivery_count,
        expires_at=task.expires_at,
        reply_to=task.reply_to,
        correlation_id=task.correlation_id,
        headers=arrival.headers,
        body=arrival.body,
    )


def _reply_to(arrival: Arrival) -> str | None:
    reply_to = arrival.reply_to
    if not reply_to or reply_to.startswith(OUR_QUEUES) or not fits_property(reply_to):
        return None
    return reply_to


def _claims(body: bytes) -> tuple[str | None, str]:
    """(id, algorithm) of a message that is no task, as far as they are what they should be."""
    try:
        value = strict_json.loads(body)
    except StrictJsonError:
        return None, ""
    if not isinstance(value, dict):
        return None, ""
    task_id, algorithm = value.get("id"), value.get("algorithm")
    return str(task_id) if is_task_id(task_id) else None, str(algorithm) if is_algorithm(algorithm) else ""
