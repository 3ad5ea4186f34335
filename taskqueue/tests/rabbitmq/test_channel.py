"""Channels on real brokers."""

import asyncio
import struct
from typing import Any

import pytest
from pika import BasicProperties

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq import channel as channel_module
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.frames import UNREADABLE

QUEUE = "numbers"
QUORUM = {"x-queue-type": "quorum"}


async def _filled(channel: Channel, count: int) -> None:
    """A quorum queue with so many messages in it."""
    await channel.declare_queue(QUEUE, arguments=QUORUM)
    confirmed = asyncio.Event()

    def on_confirm(number: int, multiple: bool, is_ack: bool) -> None:
        if number == count:
            confirmed.set()

    await channel.confirm_mode(on_confirm, lambda _: None)
    for number in range(count):
        channel.publish("", QUEUE, str(number).encode(), BasicProperties(delivery_mode=2), mandatory=True)
    await asyncio.wait_for(confirmed.wait(), 20)


async def _holds(channel: Channel, messages: int, consumers: int | None = None) -> None:
    """Waits until the queue tells these counts: a quorum queue does so a moment after it answered."""
    async with asyncio.timeout(10):
        while True:
            state = await channel.declare_queue(QUEUE, passive=True)
            if state.messages == messages and consumers in (None, state.consumers):
                return


def _never() -> None:
    raise AssertionError("the broker cancelled the consumer")


def test_a_queue_is_declared_twice_and_tells_its_messages_and_consumers(
    run: Any, broker: Any, open_connection: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await _filled(channel, 3)
            again = await channel.declare_queue(QUEUE, arguments=QUORUM)
            await channel.qos(1)
            await channel.consume(QUEUE, lambda _: None, _never)
            await _holds(await connection.channel(), messages=2, consumers=1)

        assert (again.name, again.messages, again.consumers) == (QUEUE, 3, 0)

    run(scenario())


def test_a_missing_queue_closes_only_the_channel(run: Any, broker: Any, open_connection: Any, refused: Any) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            reasons: list[str] = []
            channel.when_closed(reasons.append)
            error = await refused(channel.declare_queue("nowhere", passive=True), QueueUnavailable)
            await refused(channel.qos(1), QueueUnavailable)
            channel.when_closed(reasons.append)

            assert "no queue 'nowhere'" in str(error)
            assert channel.close_code == 404
            assert channel.closed.is_set()
            assert reasons == [channel.close_reason] * 2
            assert await (await connection.channel()).declare_queue(QUEUE, arguments=QUORUM)
            assert connection.epoch == 1

    run(scenario())


def test_an_unknown_tag_closes_only_the_channel_and_everybody_learns_of_it(
    run: Any, broker: Any, open_connection: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            channel.ack(4711)
            await asyncio.wait_for(channel.closed.wait(), 10)

            assert channel.close_code == 406
            assert not channel.is_open
            assert (await connection.channel()).is_open
            assert connection.epoch == 1

    run(scenario())


def test_calls_that_wait_fail_as_soon_as_the_connection_is_cut(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            channel = await connection.channel()
            proxy.freeze()
            calls = [channel.declare_queue(QUEUE, arguments=QUORUM), channel.bind(QUEUE, "amq.fanout"), channel.qos(3)]
            waiting = [asyncio.ensure_future(refused(call, QueueUnavailable, 5)) for call in calls]
            await asyncio.sleep(0)
            proxy.reset()
            await asyncio.gather(*waiting)

            assert channel.closed.is_set()
            proxy.thaw()
            assert await (await connection.channel()).declare_queue(QUEUE, arguments=QUORUM)

    run(scenario())


def test_a_channel_that_gives_no_answer_is_given_up(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "ANSWER_SECONDS", 0.3)

    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            channel = await connection.channel()
            proxy.freeze()
            error = await refused(channel.declare_queue(QUEUE), QueueUnavailable, 3)
            proxy.thaw()

            assert "declaring queue 'numbers'" in str(error)
            assert channel.closed.is_set()
            assert (await connection.channel()).is_open

    run(scenario())


def test_messages_on_their_way_when_a_consumer_ends_are_handed_over(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    """Given back instead, the broker would count each as a failed delivery."""

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await _filled(channel, 200)
            came: list[IncomingMessage] = []
            await channel.qos(100)
            for _ in range(5):
                tag = await channel.consume(QUEUE, came.append, _never)
                await channel.cancel(tag)
                for message in came:
                    channel.nack(message.tag)
                here = len(came)
                came.clear()
                if here:
                    break
            assert here, "no message was on its way in five tries"
            await _holds(channel, messages=200, consumers=0)
            await channel.cancel(tag)

            again = await take_messages(channel, QUEUE, 200)
            returned = [each for each in again if (each.properties.headers or {}).get("x-delivery-count")]
            assert len(returned) == here

    run(scenario())


def test_a_consumer_that_the_broker_cancels_is_told_once(
    run: Any, broker: Any, open_connection: Any, within: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(QUEUE, arguments=QUORUM)
            await channel.declare_queue("other", arguments=QUORUM)
            cancels: list[str] = []
            await channel.consume(QUEUE, lambda _: None, lambda: cancels.append(QUEUE))
            await channel.consume("other", lambda _: None, lambda: cancels.append("other"))
            await asyncio.to_thread(broker.delete_queue, QUEUE)
            await within(lambda: bool(cancels))

            assert channel.is_open
            await channel.close()
            assert cancels == [QUEUE]

    run(scenario())


def test_messages_tell_where_they_come_from_and_are_settled_by_tag(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await _filled(channel, 4)
            came = await take_messages(channel, QUEUE, 4)
            channel.ack(came[1].tag, multiple=True)
            channel.nack(came[2].tag)
            await channel.close()
            channel.ack(came[3].tag)
            other = await connection.channel()
            again = await take_messages(other, QUEUE, 2)
            await _holds(other, messages=0)

            assert [message.body for message in came] == [b"0", b"1", b"2", b"3"]
            assert {(message.routing_key, message.exchange, message.redelivered) for message in came} == {
                (QUEUE, "", False)
            }
            assert {message.body for message in again} == {b"2", b"3"}
            assert all(message.redelivered for message in again)

    run(scenario())


def test_what_amqp_cannot_carry_is_refused_and_the_channel_lives(run: Any, broker: Any, open_connection: Any) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(QUEUE, arguments=QUORUM)
            for properties in (
                BasicProperties(message_id="x" * 256),
                BasicProperties(headers={"at": 1.5}),
                BasicProperties(priority=1000),
                BasicProperties(headers={"big": 2**70}),
            ):
                with pytest.raises(ValueError, match="AMQP cannot carry"):
                    channel.publish("", QUEUE, b"x", properties, mandatory=True)
            with pytest.raises(ValueError, match="AMQP cannot carry"):
                await channel.declare_queue("x" * 256)
            channel.publish("", QUEUE, b"fine", BasicProperties(), mandatory=True)
            await _holds(channel, messages=1, consumers=0)

    run(scenario())


class _Hostile(BasicProperties):
    """Has a header that pika cannot read: a time beyond the year 9999, as sent by clients that count milliseconds."""

    def encode(self) -> list[bytes]:
        flags = self.FLAG_CONTENT_TYPE | self.FLAG_HEADERS | self.FLAG_DELIVERY_MODE | self.FLAG_MESSAGE_ID
        table = b"\x04when" + b"T" + struct.pack(">Q", 1_700_000_000_000_000)
        return [
            struct.pack(">H", flags),
            b"\x0atext/plain",
            struct.pack(">I", len(table)) + table,
            b"\x02",
            b"\x02m1",
        ]


def test_headers_that_cannot_be_read_cost_no_connection(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(QUEUE, arguments=QUORUM)
            channel.publish("", QUEUE, b"body", _Hostile(), mandatory=True)
            channel.publish("", QUEUE, b"next", BasicProperties(), mandatory=True)
            came = await take_messages(channel, QUEUE, 2)

            assert [message.body for message in came] == [b"body", b"next"]
            properties = came[0].properties
            assert properties.headers == {UNREADABLE: True}
            assert (properties.content_type, properties.delivery_mode, properties.message_id) == ("text/plain", 2, "m1")
            assert connection.epoch == 1

    run(scenario())
