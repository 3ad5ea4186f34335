"""Tasks as AMQP messages, both ways. Pure.

The sender's message is the body. Our own words travel in headers: `attempt` (absent: the first), `expires_at` and
`parked_since` (seconds since the epoch; we write them as text, for not every client can write floats), `deliveries`
(how often it was handed out unsettled before it was published anew). Headers that we received are never sent on: a
broker drops messages whose `x-death` says they went in a circle.
"""

from typing import Any

from pika import BasicProperties

from runnerlib.contract import EnvelopeError, FailureCode, is_task_id, parse_envelope
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.messages import fits_property, original
from taskqueue.rabbitmq import names
from taskqueue.rabbitmq.channel import IncomingMessage
from taskqueue.rabbitmq.publisher import Outgoing
from taskqueue.rabbitmq.receipts import Hold, Receipt
from taskqueue.rabbitmq.releases import Releases
from taskqueue.tasks import Arrival, Delivery, NewTask, Reply

ATTEMPT = "attempt"
EXPIRES_AT = "expires_at"
PARKED_SINCE = "parked_since"
DELIVERIES = "deliveries"

#: How much of a message's headers a dead letter keeps.
_MOST_HEADERS = 32
_MOST_HEADER_CHARACTERS = 500

_JSON = "application/json"
_OURS = frozenset((ATTEMPT, EXPIRES_AT, PARKED_SINCE, DELIVERIES))
#: Our clocks are not older than this, and nobody's counter is higher.
_MOST_COUNT = 1_000_000_000
_LATEST_TIME = 1e11


def new_message(task: NewTask) -> Outgoing:
    """A task on its way to its algorithm's queue. Raises EnvelopeError when it is larger than brokers take."""
    body = b'{"algorithm":"%b","payload":%b}' % (task.algorithm.encode(), task.payload)
    if len(body) > MAX_MESSAGE_BYTES:
        raise EnvelopeError(
            FailureCode.TOO_LARGE,
            f"the message has {len(body)} bytes, a broker takes {MAX_MESSAGE_BYTES}; "
            "store the data elsewhere and send a reference",
        )
    return _outgoing(names.TASKS_EXCHANGE, task, body, _headers(task.attempt, task.expires_at, 0))


def retry_message(delivery: Delivery, step_seconds: float) -> Outgoing:
    """The next attempt, by way of the queue that delays it."""
    headers = _headers(delivery.attempt + 1, delivery.expires_at, 0)
    return _outgoing(names.delay_queue(step_seconds), delivery, original(delivery), headers)


def renewed_message(delivery: Delivery) -> Outgoing:
    """The same attempt as a new message, whose count by the broker starts again; ours is carried on."""
    headers = _headers(delivery.attempt, delivery.expires_at, delivery.delivery_count)
    return _outgoing(names.TASKS_EXCHANGE, delivery, original(delivery), headers)


def forwarded_message(arrival: Arrival, task: NewTask) -> Outgoing:
    """An arrival on its way to its algorithm's queue, as its sender wrote it."""
    return _outgoing(names.TASKS_EXCHANGE, task, arrival.body, _door_headers(arrival, task))


def parked_message(arrival: Arrival, task: NewTask, now: float) -> Outgoing:
    """An arrival on its way round through the queue that delays it."""
    headers = _door_headers(arrival, task)
    headers[PARKED_SINCE] = _written(now if arrival.first_seen_at is None else arrival.first_seen_at)
    return _outgoing(names.delay_queue(names.PARK_SECONDS), task, arrival.body, headers)


def reply_message(reply: Reply) -> Outgoing:
    """An answer, straight to its queue. Not mandatory: with that, direct reply-to both delivers and returns it."""
    properties = BasicProperties(content_type=_JSON, correlation_id=reply.correlation_id)
    return Outgoing("", reply.reply_to, reply.body, properties, mandatory=False)


def read_delivery(
    message: IncomingMessage, algorithm: str, hold: Hold, releases: Releases, now: float
) -> Delivery | None:
    """A message of an algorithm's queue as a task; None when it is none, and the front door has to judge it."""
    properties = message.properties
    reply_to = _text(properties.reply_to)
    correlation_id = _text(properties.correlation_id)
    if reply_to is not None and (reply_to.startswith(names.FRONT_DOOR) or not fits_property(reply_to)):
        return None
    if not fits_property(correlation_id):
        return None
    try:
        envelope = parse_envelope(message.body, max_bytes=MAX_MESSAGE_BYTES)
    except EnvelopeError:
        return None
    task_id = envelope.id or properties.message_id
    if envelope.algorithm != algorithm or not is_task_id(task_id):
        return None
    headers = properties.headers or {}
    attempt = _count(headers.get(ATTEMPT), 1) or 1
    expires_at = _time(headers.get(EXPIRES_AT))
    if expires_at is None and envelope.expires_seconds is not None:
        expires_at = now + envelope.expires_seconds
    broker_count = _broker_count(message)
    uncounted = releases.uncounted(task_id, attempt, broker_count)
    return Delivery(
        id=task_id,
        algorithm=algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        attempt=attempt,
        receipt=Receipt(hold, message.tag, broker_count, True),
        delivery_count=max(0, _count(headers.get(DELIVERIES), 0) + broker_count - uncounted),
        expires_at=expires_at,
        reply_to=reply_to,
        correlation_id=correlation_id,
        headers=_shown_headers(message),
        body=message.body,
        unknown_fields=envelope.unknown,
    )


def read_arrival(message: IncomingMessage, hold: Hold, *, dead: bool = False) -> Arrival:
    """Any message, as it came. `dead`: it comes from the broker's own dead letters."""
    properties = message.properties
    headers = properties.headers or {}
    broker_count = _broker_count(message)
    return Arrival(
        body=message.body,
        receipt=Receipt(hold, message.tag, broker_count),
        message_id=_text(properties.message_id),
        reply_to=_text(properties.reply_to),
        correlation_id=_text(properties.correlation_id),
        headers=_shown_headers(message),
        attempt=_count(headers.get(ATTEMPT), 1) or 1,
        delivery_count=_count(headers.get(DELIVERIES), 0) + broker_count,
        expires_at=_time(headers.get(EXPIRES_AT)),
        first_seen_at=_time(headers.get(PARKED_SINCE)),
        dead_reason=_dead_reason(headers) if dead else None,
    )


def _outgoing(exchange: str, task: NewTask | Delivery, body: bytes, headers: dict[str, Any]) -> Outgoing:
    properties = BasicProperties(
        content_type=_JSON,
        message_id=task.id,
        reply_to=task.reply_to,
        correlation_id=task.correlation_id,
        headers=headers or None,
    )
    return Outgoing(exchange, task.algorithm, body, properties)


def _headers(attempt: int, expires_at: float | None, deliveries: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if attempt > 1:
        headers[ATTEMPT] = attempt
    if expires_at is not None:
        headers[EXPIRES_AT] = _written(expires_at)
    if deliveries > 0:
        headers[DELIVERIES] = deliveries
    return headers


def _door_headers(arrival: Arrival, task: NewTask) -> dict[str, Any]:
    """What the broker counted at the door says nothing about the task."""
    at_the_door = arrival.receipt.broker_count if isinstance(arrival.receipt, Receipt) else 0
    expires_at = arrival.expires_at if task.expires_at is None else task.expires_at
    return _headers(arrival.attempt, expires_at, arrival.delivery_count - at_the_door)


def _broker_count(message: IncomingMessage) -> int:
    headers = message.properties.headers
    count = _count(headers.get("x-delivery-count"), 0) if headers else 0
    return count or int(message.redelivered)


def _count(value: Any, absent: int) -> int:
    """A header's value as a count; what is none (it may be anybody's) counts as absent."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT:
        return int(value)
    return absent


def _time(value: Any) -> float | None:
    """Seconds since the epoch, from a header's number or text; None for what is neither."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_TIME:
        return float(value)
    return None


def _written(seconds: float) -> str:
    return f"{seconds:.6f}"


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _dead_reason(headers: dict[str, Any]) -> str:
    """Why, and in which queue, as far as the broker says."""
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    reason = headers.get("x-first-death-reason") or death.get("reason") or "unknown"
    queue = headers.get("x-first-death-queue") or death.get("queue")
    return _shown(reason) + (f" in queue {_shown(queue)}" if queue else "")


def _shown_headers(message: IncomingMessage) -> dict[str, Any]:
    """What a dead letter keeps of a message's properties: few, short, and plain text."""
    properties = message.properties
    shown: dict[str, Any] = {}
    for name in ("message_id", "app_id", "timestamp", "type", "user_id"):
        value = getattr(properties, name)
        if value is not None:
            shown[name] = int(value) if isinstance(value, int) else _shown(value)
    headers = properties.headers
    if headers:
        for name in list(headers)[:_MOST_HEADERS]:
            if name not in _OURS:
                shown[_shown(name)] = _shown(headers[name])
    return shown


def _shown(value: Any) -> str:
    text = _text(value) or ""
    text = text[:_MOST_HEADER_CHARACTERS].replace("\x00", "\ufffd")
    return text.encode("utf-8", "replace").decode()
