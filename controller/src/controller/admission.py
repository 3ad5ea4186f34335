"""What to do with a message that arrived at the ingress. Pure: what is known, the time and new ids are given."""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from controller.outcomes import AwaitDuplicate, Conflict, Fail, Ignore, id_conflict
from controller.triage import EXPIRED, POISON_AFTER_DELIVERIES, already_waits, poison, settled_by
from runnerlib.contract import (
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

#: Queues that begin so are the environment's own: a reply sent there would come back as a task.
OUR_QUEUES = "tasks"
#: What a dead letter keeps of a message that is too large. Headers tell the size and digest of the whole.
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


@dataclass(frozen=True)
class _Admitted:
    arrival: Arrival
    task: NewTask
    unknown_fields: tuple[UnknownField, ...] = ()

    @property
    def delivery(self) -> Delivery:
        return _delivery(self.arrival, self.task)


class Forward(_Admitted):
    """Into its algorithm's queue."""


class Park(_Admitted):
    """Aside for some seconds: its algorithm may be registered by then."""


@dataclass(frozen=True, slots=True)
class Reject:
    """It never becomes a task, or never runs. `delivery` is completed like that of a run that failed."""

    arrival: Arrival
    task: NewTask
    delivery: Delivery
    code: FailureCode
    message: str


Verdict = Forward | Park | Reject


def judge(arrival: Arrival, rules: Rules, new_id: Callable[[], str] = new_task_id) -> Verdict:
    """The same message gets the same verdict from every controller that knows the same algorithms."""
    try:
        task, unknown = _read(arrival, rules, new_id)
    except EnvelopeError as error:
        return reject_unread(arrival, error.code, str(error), new_id)
    failure = _failure(arrival, task, rules)
    if failure is not None:
        return Reject(arrival, task, _delivery(arrival, task), failure.code, failure.message)
    kind = Forward if task.algorithm in rules.known else Park
    return kind(arrival, task, unknown)


def reject_unread(arrival: Arrival, code: FailureCode, message: str, new_id: Callable[[], str] = new_task_id) -> Reject:
    """For a message that is no valid task. It keeps the id and the algorithm that it names, if they can be read."""
    task_id, algorithm = _claims(arrival.body) if code is not FailureCode.TOO_LARGE else (None, "")
    if task_id is None:
        task_id = arrival.message_id if arrival.message_id and is_task_id(arrival.message_id) else new_id()
    digest = hashlib.sha256(arrival.body).hexdigest()
    reply_to = arrival.reply_to if _can_reply_to(arrival.reply_to) else None
    task = NewTask(task_id, algorithm, b"null", digest, None, reply_to, arrival.correlation_id)
    delivery = _delivery(arrival, task)
    if code is FailureCode.TOO_LARGE:
        headers = {**delivery.headers, BODY_BYTES: len(arrival.body), BODY_SHA256: digest}
        delivery = replace(delivery, body=arrival.body[:KEPT_BYTES], headers=headers)
    return Reject(arrival, task, delivery, code, message)


def check_rejection(rejected: Reject, row: TaskRow | None) -> Fail | Ignore | Conflict | Forward | AwaitDuplicate:
    """What a rejection becomes, given the store's row: it changes no other task, and none that has ended."""
    if row is not None:
        if row.digest and row.digest != rejected.delivery.digest:
            other = id_conflict(rejected.delivery).message
            expired = rejected.code is FailureCode.EXPIRED
            return Conflict(other if expired else f"{rejected.message}; also, {other}")
        if row.state.is_terminal:
            return Ignore(f"it is {row.state.value} already")
        if row.state is TaskState.RUNNING and rejected.code is FailureCode.EXPIRED:
            # this one came too late, but another message with the same task was in time
            if row.in_turn:
                return already_waits(rejected.delivery, row) or Ignore("it runs already")
            return Forward(rejected.arrival, rejected.task)
    return Fail(rejected.code, rejected.message)


def already_kept(delivery: Delivery, row: TaskRow) -> Conflict | Ignore | AwaitDuplicate | None:
    """What becomes of a message whose task the store had before; None: nothing is left to do for it."""
    return settled_by(delivery, row) or already_waits(delivery, row)


def unknown_algorithm(algorithm: str, known: Iterable[str]) -> Fail:
    """For a task whose algorithm was not registered in time."""
    near = near_names(algorithm, known)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return Fail(FailureCode.UNKNOWN_ALGORITHM, f"no runner has registered {algorithm!r}{hint}")


def _read(arrival: Arrival, rules: Rules, new_id: Callable[[], str]) -> tuple[NewTask, tuple[UnknownField, ...]]:
    envelope = parse_envelope(arrival.body, max_bytes=rules.max_message_bytes)
    if arrival.reply_to and not _can_reply_to(arrival.reply_to):
        raise EnvelopeError(
            FailureCode.MALFORMED,
            f"'reply_to' must be text of at most {MOST_PROPERTY_BYTES} bytes (UTF-8) and not begin with "
            f"{OUR_QUEUES!r}, as the queues of this environment do; name a queue of your own",
        )
    if not fits_property(arrival.correlation_id):
        raise EnvelopeError(
            FailureCode.MALFORMED, f"'correlation_id' must be text of at most {MOST_PROPERTY_BYTES} bytes (UTF-8)"
        )
    if envelope.id is None and arrival.message_id and not is_task_id(arrival.message_id):
        raise EnvelopeError(
            FailureCode.MALFORMED,
            "the property 'message_id' is the task's id and must be 1 to 128 of A-Z a-z 0-9 . _ : -; "
            "leave it out, or give the message an 'id'",
        )
    expires_at = arrival.expires_at
    if expires_at is None and envelope.expires_seconds is not None:
        # Counted from the first sight, which is carried on.
        expires_at = rules.now + envelope.expires_seconds
    seen_at = rules.now if arrival.first_seen_at is None else arrival.first_seen_at
    task = NewTask(
        id=envelope.id if envelope.id is not None else arrival.message_id or new_id(),
        algorithm=envelope.algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        expires_at=expires_at,
        reply_to=arrival.reply_to,
        correlation_id=arrival.correlation_id,
        group=envelope.group,
        not_before=None if envelope.delay_seconds is None else seen_at + envelope.delay_seconds,
    )
    return task, envelope.unknown


def _failure(arrival: Arrival, task: NewTask, rules: Rules) -> Fail | None:
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
        seal=arrival.seal,
    )


def _can_reply_to(reply_to: str | None) -> bool:
    return bool(reply_to) and not str(reply_to).startswith(OUR_QUEUES) and fits_property(reply_to)


def _claims(body: bytes) -> tuple[str | None, str]:
    """(id, algorithm) of a message that is no valid task, as far as they are valid."""
    try:
        value = strict_json.loads(body)
    except StrictJsonError:
        return None, ""
    if not isinstance(value, dict):
        return None, ""
    task_id, algorithm = value.get("id"), value.get("algorithm")
    return str(task_id) if is_task_id(task_id) else None, str(algorithm) if is_algorithm(algorithm) else ""
