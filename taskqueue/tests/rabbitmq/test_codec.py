"""Tasks as AMQP messages, both ways."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pika import BasicProperties
from pika.frame import Header, decode_frame

from runnerlib.contract import EnvelopeError, task_digest
from taskqueue.rabbitmq.channel import IncomingMessage
from taskqueue.rabbitmq.codec import (
    forwarded_message,
    new_message,
    parked_message,
    read_arrival,
    read_delivery,
    renewed_message,
    reply_message,
    retry_message,
)
from taskqueue.rabbitmq.unacked import ReturnCounter, UnackedDeliveries
from taskqueue.tasks import NewTask, Reply

NOW = 1_000_000.0
BODY = b'{"algorithm":"upper","payload":{"text":"a"}}'


class OpenChannel:
    """As much of a channel as unsettled deliveries need."""

    is_open = True
    ack = nack = None


def incoming(body: bytes = BODY, *, redelivered: bool = False, **properties) -> IncomingMessage:
    return IncomingMessage(7, body, BasicProperties(**properties), redelivered, "upper", "tasks")


def received(outgoing, **more) -> IncomingMessage:
    """As it comes out at the other end of a wire."""
    frame = Header(1, len(outgoing.body), outgoing.properties).marshal()
    _, decoded = decode_frame(frame)
    return IncomingMessage(7, outgoing.body, decoded.properties, False, outgoing.routing_key, outgoing.exchange)


@pytest.fixture
def unacked() -> UnackedDeliveries:
    return UnackedDeliveries(OpenChannel(), lambda tags: None)


@pytest.fixture
def read(unacked):
    def call(message, algorithm="upper", returns=None, now=NOW):
        return read_delivery(message, algorithm, unacked, returns or ReturnCounter(), now)

    return call


def test_a_task_comes_out_as_it_went_in(read):
    task = NewTask("t-1", "upper", b'{"text":"a"}', task_digest("upper", {"text": "a"}), 1234.5, "answers", "c-1")
    outgoing = new_message(task)
    assert (outgoing.exchange, outgoing.routing_key, outgoing.mandatory) == ("tasks", "upper", True)
    assert json.loads(outgoing.body) == {"algorithm": "upper", "payload": {"text": "a"}}
    delivery = read(received(outgoing))
    assert (delivery.id, delivery.algorithm, delivery.payload, delivery.digest) == (
        "t-1",
        "upper",
        task.payload,
        task.digest,
    )
    assert (delivery.attempt, delivery.delivery_count, delivery.expires_at) == (1, 0, 1234.5)
    assert (delivery.reply_to, delivery.correlation_id, delivery.body) == ("answers", "c-1", outgoing.body)
    assert delivery.headers == {"message_id": "t-1"}


def test_only_a_replayed_task_says_which_attempt_it_is(read):
    task = NewTask("t-1", "upper", b"1", task_digest("upper", 1))
    assert not new_message(task).properties.headers
    replayed = new_message(replace(task, attempt=4))
    assert replayed.properties.headers == {"attempt": 4}
    assert read(received(replayed)).attempt == 4


def test_a_message_above_the_brokers_limit_is_refused_before_it_is_sent():
    with pytest.raises(EnvelopeError, match="send a reference"):
        new_message(NewTask("t", "upper", b'"' + b"x" * (16 * 1024 * 1024) + b'"', "d"))


def test_a_retry_carries_the_next_attempt_and_nothing_foreign(read):
    headers = {"x-death": [{"count": 3}], "x-delivery-count": 4, "deliveries": 2, "mine": "too", "expires_at": 5000.25}
    delivery = read(incoming(message_id="a", headers=headers, reply_to="r", correlation_id="c"))
    outgoing = retry_message(delivery, 0.2)
    assert (outgoing.exchange, outgoing.routing_key, outgoing.body) == ("tasks-retry.0.2s", "upper", BODY)
    assert set(outgoing.properties.headers) == {"attempt", "expires_at"}
    again = read(received(outgoing))
    assert (again.id, again.attempt, again.delivery_count, again.expires_at) == ("a", 2, 0, 5000.25)
    assert (again.reply_to, again.correlation_id) == ("r", "c")


def test_a_renewed_message_carries_what_was_counted(read):
    delivery = read(incoming(message_id="a", headers={"x-delivery-count": 3, "attempt": 2, "deliveries": 4}))
    assert (delivery.attempt, delivery.delivery_count) == (2, 7)
    outgoing = renewed_message(delivery)
    assert (outgoing.exchange, outgoing.routing_key) == ("tasks", "upper")
    again = read(received(outgoing))
    assert (again.attempt, again.delivery_count) == (2, 7)
    assert again.receipt.broker_count == 0


def test_redelivery_counts_once_where_the_broker_does_not_count(read):
    assert read(incoming(message_id="a", redelivered=True)).delivery_count == 1
    assert read(incoming(message_id="a", redelivered=True, headers={"x-delivery-count": 3})).delivery_count == 3


def test_returns_in_good_order_are_not_counted(read):
    returns = ReturnCounter()
    returns.returned("a", 1, 0)
    message = incoming(message_id="a", redelivered=True, headers={"x-delivery-count": 1})
    assert read(message, returns=returns).delivery_count == 0


def test_the_bodys_id_is_stronger_than_the_propertys(read):
    body = b'{"id":"mine","algorithm":"upper","payload":1}'
    assert read(incoming(body, message_id="other")).id == "mine"
    assert read(incoming(body, message_id="not an id")).id == "mine"


def test_expires_seconds_count_from_now_unless_the_time_was_fixed_before(read):
    body = b'{"algorithm":"upper","payload":1,"expires_seconds":60}'
    assert read(incoming(body, message_id="a")).expires_at == NOW + 60
    assert read(incoming(body, message_id="a", headers={"expires_at": "77.5"})).expires_at == 77.5


@pytest.mark.parametrize(
    "message",
    [
        incoming(b"not json", message_id="a"),
        incoming(b"\xff", message_id="a"),
        incoming(BODY),
        incoming(BODY, message_id="no id!"),
        incoming(b'{"algorithm":"lower","payload":1}', message_id="a"),
        incoming(BODY, message_id="a", reply_to="tasks"),
        incoming(BODY, message_id="a", reply_to="tasks.upper"),
        incoming(BODY, message_id="a", reply_to=b"\xff" * 100),
        incoming(BODY, message_id="a", correlation_id=b"\xff" * 100),
        incoming(b'{"algorithm":"upper","payload":1,"priority":1}', message_id="a"),
    ],
)
def test_what_is_no_task_of_the_queue_is_left_to_the_ingress(read, message):
    assert read(message) is None


def test_an_arrival_says_all_that_its_message_says(unacked):
    headers = {
        "attempt": 2,
        "deliveries": 1,
        "x-delivery-count": 2,
        "expires_at": 5.5,
        "parked_since": "4.25",
        "mine": "x",
    }
    arrival = read_arrival(
        incoming(b"anything", message_id="m", reply_to="r", correlation_id="c", headers=headers), unacked
    )
    assert (arrival.body, arrival.message_id, arrival.reply_to, arrival.correlation_id) == (b"anything", "m", "r", "c")
    assert (arrival.attempt, arrival.delivery_count, arrival.expires_at, arrival.first_seen_at) == (2, 3, 5.5, 4.25)
    assert arrival.headers == {"message_id": "m", "x-delivery-count": "2", "mine": "x"}
    assert arrival.dead_reason is None


def test_forwarded_and_parked_arrivals_keep_what_was_counted_before_the_ingress(unacked):
    task = NewTask("given", "upper", b"1", "d", reply_to="r", correlation_id="c")
    headers = {"attempt": 2, "deliveries": 5, "x-delivery-count": 9, "expires_at": "6.5"}
    arrival = read_arrival(incoming(reply_to="r", correlation_id="c", headers=headers), unacked)
    forwarded = read_arrival(received(forwarded_message(arrival, task)), unacked)
    assert (forwarded.message_id, forwarded.body, forwarded.attempt) == ("given", BODY, 2)
    assert (forwarded.delivery_count, forwarded.expires_at, forwarded.first_seen_at) == (5, 6.5, None)
    outgoing = parked_message(arrival, task, NOW)
    assert (outgoing.exchange, outgoing.routing_key) == ("tasks-retry.5s", "upper")
    parked = read_arrival(received(outgoing), unacked)
    assert (parked.message_id, parked.first_seen_at, parked.reply_to, parked.correlation_id) == ("given", NOW, "r", "c")
    again = read_arrival(received(parked_message(parked, task, NOW + 50)), unacked)
    assert again.first_seen_at == NOW, "it is set once and kept"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "unknown"),
        (
            {"x-first-death-reason": "delivery_limit", "x-first-death-queue": "tasks.upper"},
            "delivery_limit in queue tasks.upper",
        ),
        ({"x-death": [{"reason": "expired", "queue": "tasks"}]}, "expired in queue tasks"),
        ({"x-death": "nonsense"}, "unknown"),
    ],
)
def test_a_dead_letter_of_the_broker_says_why(unacked, headers, reason):
    assert read_arrival(incoming(headers=headers), unacked, dead=True).dead_reason == reason


def test_a_reply_is_not_mandatory():
    outgoing = reply_message(Reply("answers", "c", b"{}"))
    assert (outgoing.exchange, outgoing.routing_key, outgoing.mandatory) == ("", "answers", False)
    assert (outgoing.properties.correlation_id, outgoing.properties.message_id) == ("c", None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["attempt", "expires_at", "parked_since", "deliveries", "x-delivery-count", "x-death", "mine"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(headers=st.dictionaries(NAMES, VALUES), redelivered=st.booleans())
def test_no_header_breaks_the_reading(headers, redelivered):
    unacked = UnackedDeliveries(OpenChannel(), lambda tags: None)
    message = incoming(headers=headers, redelivered=redelivered, message_id="a")
    arrival = read_arrival(message, unacked, dead=True)
    delivery = read_delivery(message, "upper", unacked, ReturnCounter(), NOW)
    for each in (arrival, delivery):
        assert each.attempt >= 1
        assert each.delivery_count >= 0
        assert each.expires_at is None or each.expires_at >= 0
        json.dumps(each.headers, allow_nan=False).encode()
        assert "\x00" not in str(each.headers)
