"""Tasks as AMQP messages, both ways. Pure.

The body is the message as its sender wrote it. What we add travels in headers: `attempt` (absent: the first),
`expires_at` and `parked_since` (seconds since the epoch; written as text, because not every client can write floats),
`deliveries` (how often it was delivered and not settled before it was published anew), `submitted_by` (an
`OwnerSeal`; only the store can tell whether it is true). Headers that we received are never sent on: a broker drops
messages whose `x-death` says they went in a circle.
"""

import re
import time
from typing import Any

from pika import BasicProperties

from runnerlib.contract import EnvelopeError, FailureCode, is_task_id, parse_envelope, strict_json
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.messages import fits_property, original
from taskqueue.rabbitmq.channel import IncomingMessage, OutgoingMessage
from taskqueue.rabbitmq.topology import INGRESS_QUEUE, PARK_SECONDS, TASKS_EXCHANGE, UNROUTED_EXCHANGE, delay_queue
from taskqueue.rabbitmq.unacked import Receipt, ReturnCounter, UnackedDeliveries
from taskqueue.tasks import Arrival, Delivery, NewTask, Reply

_ATTEMPT = "attempt"
_EXPIRES_AT = "expires_at"
_PARKED_SINCE = "parked_since"
_DELIVERIES = "deliveries"
_SEAL = "submitted_by"
_OURS = frozenset((_ATTEMPT, _EXPIRES_AT, _PARKED_SINCE, _DELIVERIES, _SEAL))
_SEAL_PATTERN = re.compile(r"[0-9a-z]{1,32}\.[0-9a-f]{32}")

#: How much of a message's headers a dead letter keeps.
_MOST_HEADERS = 32
_MOST_HEADER_CHARACTERS = 500
#: Headers with a higher counter or a later time are not ours.
_MOST_COUNT = 1_000_000_000
_LATEST_TIME = 1e11

_JSON = "application/json"


def new_message(task: NewTask) -> OutgoingMessage:
    """A task on its way to its algorithm's queue. Raises EnvelopeError if it is larger than brokers accept.

    One that waits for its turn or its time goes to the ingress, and from there into the store.
    """
    more = b"" if not task.waits_in_store else _turn_and_time(task, time.time())
    body = b'{"algorithm":"%b","payload":%b%b}' % (task.algorithm.encode(), task.payload, more)
    if len(body) > MAX_MESSAGE_BYTES:
        raise EnvelopeError(
            FailureCode.TOO_LARGE,
            f"the message has {len(body)} bytes, a broker takes {MAX_MESSAGE_BYTES}; "
            "store the data elsewhere and send a reference",
        )
    exchange = UNROUTED_EXCHANGE if task.waits_in_store else TASKS_EXCHANGE
    return _outgoing(exchange, task, body, _headers(task.attempt, task.expires_at, 0, task.seal))


def retry_message(delivery: Delivery, step_seconds: float) -> OutgoingMessage:
    """The next attempt, through the queue that delays it."""
    headers = _headers(delivery.attempt + 1, delivery.expires_at, 0, delivery.seal)
    return _outgoing(delay_queue(step_seconds), delivery, original(delivery), headers)


def renewed_message(delivery: Delivery) -> OutgoingMessage:
    """The same attempt as a new message. The broker's count starts again, ours is carried on."""
    headers = _headers(delivery.attempt, delivery.expires_at, delivery.delivery_count, delivery.seal)
    return _outgoing(TASKS_EXCHANGE, delivery, original(delivery), headers)


def forwarded_message(arrival: Arrival, task: NewTask) -> OutgoingMessage:
    """A message of the ingress queue on its way to its algorithm's queue, as its sender wrote it."""
    return _outgoing(TASKS_EXCHANGE, task, arrival.body, _ingress_headers(arrival, task))


def parked_message(arrival: Arrival, task: NewTask, now: float) -> OutgoingMessage:
    """A message of the ingress queue on its way through the queue that delays it."""
    headers = _ingress_headers(arrival, task)
    headers[_PARKED_SINCE] = _time_text(now if arrival.first_seen_at is None else arrival.first_seen_at)
    return _outgoing(delay_queue(PARK_SECONDS), task, arrival.body, headers)


def reply_message(reply: Reply) -> OutgoingMessage:
    """An answer, straight to its queue. Not mandatory: direct reply-to both delivers and returns mandatory messages."""
    properties = BasicProperties(content_type=_JSON, correlation_id=reply.correlation_id)
    return OutgoingMessage("", reply.reply_to, reply.body, properties, mandatory=False)


def read_delivery(
    message: IncomingMessage, algorithm: str, unacked: UnackedDeliveries, returns: ReturnCounter, now: float
) -> Delivery | None:
    """Reads a task. Returns None if it is no valid task of `algorithm`; the ingress consumer handles it then."""
    properties = message.properties
    reply_to = _text(properties.reply_to)
    correlation_id = _text(properties.correlation_id)
    if not (_can_reply_to(reply_to) and fits_property(correlation_id)):
        return None
    try:
        envelope = parse_envelope(message.body, max_bytes=MAX_MESSAGE_BYTES)
    except EnvelopeError:
        return None
    task_id = envelope.id or properties.message_id
    if envelope.algorithm != algorithm or not is_task_id(task_id) or envelope.waits_in_store:
        return None
    headers = properties.headers or {}
    attempt = _count(headers.get(_ATTEMPT), 1) or 1
    expires_at = _time(headers.get(_EXPIRES_AT))
    if expires_at is None and envelope.expires_seconds is not None:
        expires_at = now + envelope.expires_seconds
    broker_count = _broker_count(message)
    deliveries = _count(headers.get(_DELIVERIES), 0) + broker_count - returns.uncounted(task_id, attempt, broker_count)
    return Delivery(
        id=task_id,
        algorithm=algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        attempt=attempt,
        receipt=Receipt(unacked, message.tag, broker_count, True),
        delivery_count=max(0, deliveries),
        expires_at=expires_at,
        reply_to=reply_to,
        correlation_id=correlation_id,
        headers=_kept_headers(properties),
        body=message.body,
        unknown_fields=envelope.unknown,
        seal=_seal(headers),
    )


def read_arrival(message: IncomingMessage, unacked: UnackedDeliveries, *, dead: bool = False) -> Arrival:
    """Reads any message, unchecked. `dead`: it comes from the broker's own dead letters."""
    properties = message.properties
    headers = properties.headers or {}
    broker_count = _broker_count(message)
    return Arrival(
        body=message.body,
        receipt=Receipt(unacked, message.tag, broker_count),
        message_id=_text(properties.message_id),
        reply_to=_text(properties.reply_to),
        correlation_id=_text(properties.correlation_id),
        headers=_kept_headers(properties),
        attempt=_count(headers.get(_ATTEMPT), 1) or 1,
        delivery_count=_count(headers.get(_DELIVERIES), 0) + broker_count,
        expires_at=_time(headers.get(_EXPIRES_AT)),
        first_seen_at=_time(headers.get(_PARKED_SINCE)),
        dead_reason=_dead_reason(headers) if dead else None,
        seal=_seal(headers),
    )


def _turn_and_time(task: NewTask, now: float) -> bytes:
    """The rest of a message's object."""
    delay = None if task.not_before is None else round(max(0.0, task.not_before - now), 6)
    fields = (("group", task.group), ("delay_seconds", delay))
    return b"".join(b',"%b":%b' % (name.encode(), strict_json.dumps(value)) for name, value in fields if value)


def _can_reply_to(reply_to: str | None) -> bool:
    return reply_to is None or (not reply_to.startswith(INGRESS_QUEUE) and fits_property(reply_to))


def _outgoing(exchange: str, task: NewTask | Delivery, body: bytes, headers: dict[str, Any]) -> OutgoingMessage:
    properties = BasicProperties(
        content_type=_JSON,
        message_id=task.id,
        reply_to=task.reply_to,
        correlation_id=task.correlation_id,
        headers=headers or None,
    )
    return OutgoingMessage(exchange, task.algorithm, body, properties)


def _headers(attempt: int, expires_at: float | None, deliveries: int, seal: str | None) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if attempt > 1:
        headers[_ATTEMPT] = attempt
    if expires_at is not None:
        headers[_EXPIRES_AT] = _time_text(expires_at)
    if deliveries > 0:
        headers[_DELIVERIES] = deliveries
    if seal is not None:
        headers[_SEAL] = seal
    return headers


def _ingress_headers(arrival: Arrival, task: NewTask) -> dict[str, Any]:
    """Leaves out what the broker counted in the ingress queue: it says nothing about the task."""
    counted_there = arrival.receipt.broker_count if isinstance(arrival.receipt, Receipt) else 0
    expires_at = arrival.expires_at if task.expires_at is None else task.expires_at
    return _headers(arrival.attempt, expires_at, arrival.delivery_count - counted_there, arrival.seal)


def _broker_count(message: IncomingMessage) -> int:
    headers = message.properties.headers
    count = _count(headers.get("x-delivery-count"), 0) if headers else 0
    return count or int(message.redelivered)


def _count(value: Any, default: int) -> int:
    """A header as a count. Headers may come from anybody: other values count as absent."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT:
        return int(value)
    return default


def _time(value: Any) -> float | None:
    """A header, a number or text, as seconds since the epoch; None for other values."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_TIME:
        return float(value)
    return None


def _time_text(seconds: float) -> str:
    return f"{seconds:.6f}"


def _seal(headers: dict[str, Any]) -> str | None:
    seal = headers.get(_SEAL)
    return seal if isinstance(seal, str) and _SEAL_PATTERN.fullmatch(seal) else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _dead_reason(headers: dict[str, Any]) -> str:
    """Why the broker gave a message up, and in which queue, as far as it says."""
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    reason = headers.get("x-first-death-reason") or death.get("reason") or "unknown"
    queue = headers.get("x-first-death-queue") or death.get("queue")
    return _short_text(reason) + (f" in queue {_short_text(queue)}" if queue else "")


def _kept_headers(properties: BasicProperties) -> dict[str, Any]:
    """What a dead letter keeps of a message's properties: few, short, plain text."""
    kept: dict[str, Any] = {}
    for name in ("message_id", "app_id", "timestamp", "type", "user_id"):
        value = getattr(properties, name)
        if value is not None:
            kept[name] = int(value) if isinstance(value, int) else _short_text(value)
    headers = properties.headers or {}
    for name in list(headers)[:_MOST_HEADERS]:
        if name not in _OURS:
            kept[_short_text(name)] = _short_text(headers[name])
    return kept


def _short_text(value: Any) -> str:
    text = (_text(value) or "")[:_MOST_HEADER_CHARACTERS].replace("\x00", "\ufffd")
    return text.encode("utf-8", "replace").decode()
