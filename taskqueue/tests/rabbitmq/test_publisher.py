"""Confirmed publishing, on real brokers that refuse, block and vanish."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from pika import BasicProperties

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq import publisher as publisher_module
from taskqueue.rabbitmq.channel import Channel, OutgoingMessage
from taskqueue.rabbitmq.publisher import WINDOW_MESSAGES, ConfirmChannel, PublishCall, Publisher
from taskqueue.rabbitmq.topology import declare_topology

QUEUE = "numbers"


class Prepared:
    """Declares the queue; knows how often and on which channels."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []

    async def __call__(self, channel: Channel) -> None:
        self.channels.append(channel)
        await channel.declare_queue(QUEUE, arguments={"x-queue-type": "quorum"})


@pytest.fixture
def prepared() -> Prepared:
    return Prepared()


@pytest.fixture
def number() -> Callable[..., OutgoingMessage]:
    """A message for the queue, or for elsewhere."""

    def make(
        value: int, *, exchange: str = "", key: str = QUEUE, body: bytes = b"", mandatory: bool = True
    ) -> OutgoingMessage:
        properties = BasicProperties(message_id=f"n{value}")
        return OutgoingMessage(exchange, key, body or str(value).encode(), properties, mandatory)

    return make


async def _messages(channel: Channel, at_least: int) -> int:
    """How many are in the queue, once so many are."""
    async with asyncio.timeout(20):
        while True:
            state = await channel.declare_queue(QUEUE, passive=True)
            if state.messages >= at_least:
                return state.messages
            await asyncio.sleep(0.05)


def test_thousands_are_confirmed_in_windows_while_others_get_their_turn(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    widest = 0
    write = ConfirmChannel.write

    def counted(confirms: ConfirmChannel, *arguments: Any) -> None:
        nonlocal widest
        write(confirms, *arguments)
        widest = max(widest, len(confirms))

    monkeypatch.setattr(ConfirmChannel, "write", counted)

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            big = asyncio.create_task(publisher.publish([number(n) for n in range(5000)], timeout_seconds=40))
            small = 0
            longest = 0.0
            while not big.done():
                begin = time.monotonic()
                await publisher.publish([number(5000 + small)])
                small += 1
                begin = time.monotonic()
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - begin)
            await big

            assert small > 3, "one call must not wait for the end of another"
            assert longest < 0.3, "the loop must stay free for others"
            assert await _messages(await connection.channel(), 5000 + small) == 5000 + small
            assert len(prepared.channels) == 1
            await publisher.close()

    run(scenario())
    assert 100 < widest <= WINDOW_MESSAGES


def test_messages_are_persistent_and_arrive_as_they_were(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            large = b"x" * 3_000_000
            await publisher.publish([])
            await publisher.publish([number(1), number(2, body=large)])
            channel = await connection.channel()
            got = await take_messages(channel, QUEUE, 2)

            assert [each.body for each in got] == [b"1", large]
            assert [each.properties.message_id for each in got] == ["n1", "n2"]
            assert all(each.properties.delivery_mode == 2 for each in got)

    run(scenario())


def test_large_messages_wait_for_room(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "WINDOW_BYTES", 1_000_000)
    most = 0
    write = ConfirmChannel.write

    def counted(confirms: ConfirmChannel, *arguments: Any) -> None:
        nonlocal most
        write(confirms, *arguments)
        most = max(most, confirms.size)

    monkeypatch.setattr(ConfirmChannel, "write", counted)

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(n, body=b"x" * 300_000) for n in range(12)])
            await publisher.publish([number(99, body=b"x" * 2_000_000)])
            assert await _messages(await connection.channel(), 13) == 13

    run(scenario())
    assert most == 2_000_000


def test_an_unroutable_message_is_an_error_and_the_next_attempt_finds_the_queue(
    run: Any, broker: Any, open_connection: Any, number: Any, refused: Any
) -> None:
    async def prepare(channel: Channel) -> None:
        await declare_topology(channel, steps_seconds=(30,), algorithms=["upper"])

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepare)
            await publisher.publish([number(0, exchange="tasks-retry.30s", key="upper")])
            await asyncio.to_thread(broker.delete_queue, "tasks-retry.30s")
            error = await refused(
                publisher.publish([number(1, exchange="tasks-retry.30s", key="upper")]), QueueUnavailable, 5
            )
            assert "no queue for exchange 'tasks-retry.30s'" in str(error)
            await publisher.publish([number(1, exchange="tasks-retry.30s", key="upper")])
            assert connection.epoch == 1

    run(scenario())


def test_a_reply_to_nobody_is_no_error(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(1, key="gone", mandatory=False), number(2)], timeout_seconds=5)
            assert await _messages(await connection.channel(), 1) == 1

    run(scenario())


@pytest.mark.serial
def test_an_unknown_exchange_fails_what_is_under_way_at_once_and_the_next_publish_works(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(0)])
            begin = time.monotonic()
            error = await refused(publisher.publish([number(1, exchange="nowhere")]), QueueUnavailable, 5)
            assert time.monotonic() - begin < 2.0
            assert "no exchange 'nowhere'" in str(error)
            await publisher.publish([number(2)])

            assert len(prepared.channels) == 2
            assert connection.epoch == 1

    run(scenario())


def test_a_full_queue_is_an_error(
    run: Any, broker: Any, open_connection: Any, number: Any, refused: Any, prepared: Prepared
) -> None:
    async def prepare(channel: Channel) -> None:
        arguments = {"x-queue-type": "quorum", "x-max-length": 3, "x-overflow": "reject-publish"}
        await channel.declare_queue("small", arguments=arguments)

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepare)
            error: BaseException | None = None
            # The limit of a quorum queue is soft: some more than it says may get in.
            for value in range(50):
                try:
                    await publisher.publish([number(value, key="small")])
                except QueueUnavailable as refusal:
                    error = refusal
                    break
            assert "refuses" in str(error)
            await Publisher(connection, prepared).publish([number(1)])

    run(scenario())


def test_an_alarm_fails_publishers_at_once_and_when_it_is_over_they_go_on(
    run: Any,
    broker: Any,
    in_alarm: Any,
    open_connection: Any,
    prepared: Prepared,
    number: Any,
    refused: Any,
    reports: Any,
    take_messages: Any,
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(0)])
            async with in_alarm():
                # The broker tells a connection only once it publishes, and the alarm may take a moment.
                async with asyncio.timeout(20):
                    while not connection.blocked:
                        try:
                            await publisher.publish([number(1)], timeout_seconds=9)
                        except QueueUnavailable as error:
                            assert "accepts no messages now" in str(error)
                begin = time.monotonic()
                error = await refused(publisher.publish([number(2)]), QueueUnavailable)
                assert time.monotonic() - begin < 3.0, "it waited for its time limit"
                assert str(error) == connection.blocked
                assert not reports.ready
                assert reports.reason == connection.blocked
                # Consumers, and other calls on another connection, go on.
                async with open_connection(broker.url, report=lambda *_: None) as other:
                    assert await take_messages(await other.channel(), QUEUE)
            async with asyncio.timeout(20):
                while connection.blocked:
                    await asyncio.sleep(0.02)
            await publisher.publish([number(3)])
            assert reports.ready
            assert connection.epoch == 1

    run(scenario())


@pytest.mark.serial
def test_a_cut_connection_fails_what_is_under_way_and_the_next_publish_works(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any, prepared: Prepared, number: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(0)])
            proxy.freeze()
            calls = [asyncio.create_task(refused(publisher.publish([number(n)]), QueueUnavailable)) for n in range(3)]
            calls.append(
                asyncio.create_task(refused(publisher.publish([number(n) for n in range(2000)]), QueueUnavailable))
            )
            async with asyncio.timeout(5):
                while not publisher.unconfirmed:
                    await asyncio.sleep(0.01)
            begin = time.monotonic()
            proxy.reset()
            proxy.thaw()
            await asyncio.gather(*calls)
            assert time.monotonic() - begin < 2.0
            await publisher.publish([number(4)])
            assert connection.epoch == 2

    run(scenario())


@pytest.mark.serial
def test_a_silent_broker_costs_no_more_than_the_time_limit_and_jams_nothing(
    run: Any,
    broker: Any,
    open_connection: Any,
    open_proxy: Any,
    prepared: Prepared,
    number: Any,
    refused: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher_module, "_STUCK_SECONDS", 0.5)

    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(0)])
            proxy.freeze()
            begin = time.monotonic()
            error = await refused(
                publisher.publish([number(n) for n in range(2000)], timeout_seconds=1.0), QueueUnavailable
            )
            assert 0.9 < time.monotonic() - begin < 1.5
            assert "within 1 s" in str(error)
            assert "may have arrived" in str(error)
            proxy.thaw()
            await publisher.publish([number(1)])
            assert len(prepared.channels) == 2

    run(scenario())


def test_a_caller_that_goes_away_takes_nothing_from_the_others(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            cancelled = 0
            for turns in range(20):
                call = asyncio.create_task(publisher.publish([number(n) for n in range(700)]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                cancelled += call.cancelled()
                await publisher.publish([number(1)])
            async with asyncio.timeout(20):
                while publisher.unconfirmed:
                    await asyncio.sleep(0.01)
            assert cancelled >= 10, "most calls were meant to be on their way still"

    run(scenario())


def test_without_a_broker_the_reason_is_told(
    run: Any,
    broker: Any,
    open_connection: Any,
    open_proxy: Any,
    prepared: Prepared,
    number: Any,
    refused: Any,
    within: Any,
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url, start=False) as (_, url), open_connection(url, wait=False) as connection:
            await within(lambda: "refused" in connection.trouble)
            publisher = Publisher(connection, prepared)
            error = await refused(publisher.publish([number(1)], timeout_seconds=0.3), QueueUnavailable)
            assert str(error).startswith("No connection to the broker at amqp://")

    run(scenario())


def test_a_queue_that_is_in_the_way_is_told_to_who_publishes(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any, refused: Any
) -> None:
    async def prepare(channel: Channel) -> None:
        await declare_topology(channel, steps_seconds=())

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            await (await connection.channel()).declare_queue("tasks", arguments={"x-queue-type": "classic"})
            publisher = Publisher(connection, prepare)
            for _ in range(2):
                error = await refused(publisher.publish([number(1, exchange="tasks")]), QueueUnavailable)
                assert "queue 'tasks' with other arguments" in str(error)

    run(scenario())


def test_what_amqp_cannot_carry_is_the_caller_s_error_alone(
    run: Any, broker: Any, open_connection: Any, prepared: Prepared, number: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            publisher = Publisher(connection, prepared)
            with pytest.raises(ValueError, match="AMQP cannot carry"):
                await publisher.publish([number(1), number(2, key="x" * 300), number(3)])
            await publisher.publish([number(4)])
            assert len(prepared.channels) == 1

    run(scenario())


def test_once_closed_it_says_so(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any, prepared: Prepared, number: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            publisher = Publisher(connection, prepared)
            await publisher.publish([number(1)])
            proxy.freeze()
            waiting = asyncio.create_task(refused(publisher.publish([number(2)]), QueueUnavailable))
            await asyncio.sleep(0)
            await publisher.close()
            await waiting
            await publisher.close()
            await refused(publisher.publish([number(3)]), QueueClosed)

    run(scenario())


class NoChannel:
    """Sends nothing."""

    def publish(self, *_: Any, **__: Any) -> None:
        pass


def _message(routing_key: str = "upper") -> OutgoingMessage:
    return OutgoingMessage("tasks", routing_key, b"x" * 10, BasicProperties())


def _written(confirms: ConfirmChannel, count: int, routing_key: str = "upper") -> PublishCall:
    call = PublishCall()
    for _ in range(count):
        confirms.write(_message(routing_key), call)
    call.all_written()
    return call


def test_a_call_is_done_when_all_its_messages_are_confirmed_in_any_order(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        first, second = _written(confirms, 3), _written(confirms, 2)
        for number in (5, 2, 3):
            confirms.confirmed(number, False, True)
        assert not first.done.done()
        assert (len(confirms), confirms.size) == (2, 20)
        confirms.confirmed(1, False, True)
        assert first.done.done()
        assert not second.done.done()
        confirms.confirmed(4, False, True)
        assert second.done.done()
        assert (first.failure, second.failure) == ("", "")
        assert (len(confirms), confirms.size) == (0, 0)

    run(scenario())


def test_a_multiple_confirm_covers_all_before_it(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        first, second = _written(confirms, 3), _written(confirms, 3)
        confirms.confirmed(2, False, True)
        confirms.confirmed(4, True, True)
        assert first.done.done()
        assert not second.done.done()
        confirms.confirmed(0, True, True)
        assert second.done.done()
        assert len(confirms) == 0

    run(scenario())


def test_a_refusal_fails_only_the_call_it_belongs_to(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        first, second = _written(confirms, 2), _written(confirms, 1)
        confirms.confirmed(1, False, False)
        assert first.done.done()
        assert "refuses" in first.failure
        confirms.confirmed(3, True, True)
        assert second.done.done()
        assert second.failure == ""

    run(scenario())


def test_a_returned_message_fails_those_of_its_kind(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        upper, lower = _written(confirms, 1, "upper"), _written(confirms, 1, "lower")
        confirms.returned("tasks", "lower")
        confirms.confirmed(2, True, True)
        assert upper.failure == ""
        assert "'lower'" in lower.failure
        assert upper.done.done()

    run(scenario())


def test_a_call_is_not_done_before_its_last_message_was_written(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        call = PublishCall()
        confirms.write(_message(), call)
        confirms.confirmed(1, False, True)
        assert not call.done.done()
        confirms.write(_message(), call)
        call.all_written()
        confirms.confirmed(2, False, True)
        assert call.done.done()

    run(scenario())


def test_late_confirms_of_a_failed_call_make_room_and_nothing_else(run: Any) -> None:
    async def scenario() -> None:
        confirms = ConfirmChannel(NoChannel())
        call = _written(confirms, 2)
        confirms.fail_all("no time left")
        confirms.fail_all("something else")
        assert call.done.done()
        assert len(confirms) == 2
        confirms.confirmed(2, True, True)
        confirms.confirmed(2, False, True)
        assert len(confirms) == 0
        assert call.failure == "no time left"

    run(scenario())
