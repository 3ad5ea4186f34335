"""What RabbitMQ does to its clients, each against a real broker of both major versions."""

import asyncio
import contextlib
import json
import time

import pika
import pytest

from runnerlib.contract import EnvelopeError, FailureCode
from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.tasks import Published

#: A consumer that was lost consumes again within this.
AGAIN_SECONDS = 5.0


@pytest.fixture
def count_ready():
    """How many messages are ready in a queue, asked on a channel of its own; None when there is no such queue."""

    async def count(connection: RobustConnection, queue: str) -> tuple[int, int] | None:
        channel = await connection.channel()
        try:
            state = await channel.declare_queue(queue, passive=True)
        except QueueUnavailable:
            return None
        finally:
            await channel.close()
        return state.messages, state.consumers

    return count


@pytest.fixture
def becomes_true():
    """Waits until an awaitable condition holds; how long it took."""

    async def wait(condition, seconds: float = 30.0) -> float:
        began, tick = time.monotonic(), asyncio.Event()
        while not await condition():
            assert time.monotonic() - began < seconds, "the condition did not come true in time"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tick.wait(), 0.02)
        return time.monotonic() - began

    return wait


@pytest.fixture
def blocking():
    """A stranger's connection: plain pika, nothing of ours."""
    with contextlib.ExitStack() as stack:

        def connect(url: str) -> pika.BlockingConnection:
            connection = pika.BlockingConnection(pika.URLParameters(url))
            stack.callback(lambda: connection.is_open and connection.close())
            return connection

        yield connect


def test_channel_closed_by_406_while_the_connection_lives_is_replaced(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            old = await take_all(feed, 2)
            # A tag that was never given out: the broker closes the channel, and only the channel.
            old[0].receipt.unacked._channel.ack(4711)
            again = await take_all(feed, 2, AGAIN_SECONDS)
            assert [(each.id, each.delivery_count) for each in again] == [("a", 1), ("b", 1)]
            await queue.ack(old)
            await queue.release(old)
            await queue.ack(again)
            await queue.publish([make_task("c")])
            assert [each.id for each in await take_all(feed, 1, AGAIN_SECONDS)] == ["c"]

    run(scenario())


def test_cancelled_consumer_declares_its_queue_and_consumes_again(
    run, broker, open_rabbit, make_task, take_all, count_ready, becomes_true
):
    async def scenario():
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            feed = await queue.feed("upper")
            await feed.set_prefetch(4)
            await queue.publish([make_task("a")])
            old = await take_all(feed, 1)
            await asyncio.to_thread(broker.delete_queue, "tasks.upper")

            async def consumes() -> bool:
                state = await count_ready(probe, "tasks.upper")
                return state is not None and state[1] > 0

            assert await becomes_true(consumes) < AGAIN_SECONDS
            await queue.ack(old)
            await queue.publish([make_task("b")])
            assert [each.id for each in await take_all(feed, 1, AGAIN_SECONDS)] == ["b"]

    run(scenario())


def test_consumer_timeout_closes_the_channel_and_the_task_comes_again(
    run, own_broker, open_rabbit, make_task, take_all
):
    server = own_broker()
    server.set_environment("rabbit", consumer_timeout="1000", channel_tick_interval="500")

    async def scenario():
        async with open_rabbit(server.url) as queue:
            await queue.publish([make_task("long")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            first = await take_all(feed, 1)
            second = await take_all(feed, 1, 10)
            assert (second[0].id, second[0].delivery_count) == ("long", 1)
            await queue.ack(first)
            await queue.ack(second)
            await queue.publish([make_task("next")])
            assert [each.id for each in await take_all(feed, 1)] == ["next"]

    run(scenario())


def test_five_retries_arrive_five_times_without_foreign_headers(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            expires_at = time.time() + 3600
            await queue.publish([make_task("a", expires_at=expires_at, reply_to="answers", correlation_id="c")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            for attempt in range(1, 7):
                (delivery,) = await take_all(feed, 1)
                assert (delivery.id, delivery.attempt, delivery.delivery_count) == ("a", attempt, 0)
                assert (delivery.reply_to, delivery.correlation_id) == ("answers", "c")
                assert delivery.expires_at == pytest.approx(expires_at, abs=0.01)
                # the broker says where it came from, and only of the last round
                assert str(delivery.headers).count("'queue':") == (0 if attempt == 1 else 1)
                await queue.retry([delivery], [0.2])
                await queue.ack([delivery])

    run(scenario())


def test_killed_consumers_dead_letter_no_neighbours_and_count(
    run, broker, open_rabbit, make_task, take_all, count_ready
):
    """Also beyond RabbitMQ 4's own limit of twenty."""
    kills = 22

    async def scenario():
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            ids = [f"t{n}" for n in range(10)]
            await queue.publish([make_task(task_id) for task_id in ids])
            for _ in range(kills):
                await take_ten_and_die()
            assert await count_ready(probe, "tasks-broker-dead") == (0, 0)
            feed = await queue.feed("upper")
            await feed.set_prefetch(10)
            taken = await take_all(feed, 10)
            assert sorted(each.id for each in taken) == ids
            assert {each.delivery_count for each in taken} == {kills}

    async def take_ten_and_die() -> None:
        async with RobustConnection(parse_queue_url(broker.url), "dies") as connection:
            channel = await connection.channel()
            await channel.qos(10)
            got, all_got = [], asyncio.Event()

            def on_message(message) -> None:
                got.append(message)
                if len(got) == 10:
                    all_got.set()

            await channel.consume("tasks.upper", on_message, all_got.set)
            await asyncio.wait_for(all_got.wait(), 10)
            await connection._pika.abort("killed")

    run(scenario())


def test_released_tasks_are_uncounted_and_what_was_counted_is_carried(
    run, broker, open_rabbit, make_task, take_all, eventually
):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task("a")])
            for lost in range(1, 4):
                async with open_rabbit(broker.url) as killed:
                    feed = await killed.feed("upper")
                    await feed.set_prefetch(1)
                    (delivery,) = await take_all(feed, 1)
                    assert delivery.delivery_count == lost - 1
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            for _ in range(6):
                (delivery,) = await take_all(feed, 1)
                assert (delivery.id, delivery.attempt, delivery.delivery_count) == ("a", 1, 3)
                await queue.release([delivery])
            await eventually(lambda: feed.waiting() == 1)
            await feed.close()
        async with open_rabbit(broker.url) as other:
            feed = await other.feed("upper")
            await feed.set_prefetch(1)
            (delivery,) = await take_all(feed, 1)
            assert delivery.delivery_count >= 3, "another process knows of the three too"
            assert delivery.receipt.broker_count <= 2, "the broker's own count stays low"

    run(scenario())


def test_five_lines_of_a_stranger_reach_the_ingress_and_run(run, broker, open_rabbit, make_task, take_all, blocking):
    def stranger() -> None:
        channel = blocking(broker.url).channel()
        body = json.dumps({"algorithm": "upper", "payload": {"text": "hello"}})
        properties = pika.BasicProperties(reply_to="answers", correlation_id="mine")
        channel.basic_publish(exchange="", routing_key="tasks", body=body, properties=properties)

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(stranger)
            (arrival,) = await ingress.take(10)
            assert (arrival.message_id, arrival.reply_to, arrival.correlation_id) == (None, "answers", "mine")
            assert (arrival.first_seen_at, arrival.dead_reason, arrival.attempt) == (None, None, 1)
            task = make_task("given", payload={"text": "hello"}, reply_to="answers", correlation_id="mine")
            await ingress.forward([arrival], [task])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            (delivery,) = await take_all(feed, 1)
            assert (delivery.id, delivery.body, delivery.digest) == ("given", arrival.body, task.digest)
            assert (delivery.reply_to, delivery.correlation_id) == ("answers", "mine")

    run(scenario())


def test_task_of_an_unknown_algorithm_is_parked_and_comes_back(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            task = make_task("a", "nobody_yet", expires_at=time.time() + 60)
            assert await queue.publish([task]) == [Published.ACCEPTED]
            (arrival,) = await ingress.take(10)
            assert (arrival.message_id, arrival.first_seen_at) == ("a", None)
            parked_at = time.time()
            await ingress.park([arrival], [task])
            (again,) = await asyncio.wait_for(ingress.take(10), 15)
            assert time.time() - parked_at >= 4.5
            assert again.first_seen_at == pytest.approx(parked_at, abs=1)
            assert (again.message_id, again.body) == ("a", arrival.body)
            assert again.expires_at == pytest.approx(task.expires_at, abs=0.01)
            await ingress.park([again], [task])
            # Somebody offers it now: the parked task goes straight to its queue.
            feed = await queue.feed("nobody_yet")
            await feed.set_prefetch(1)
            (delivery,) = await take_all(feed, 1, 15)
            assert (delivery.id, delivery.attempt) == ("a", 1)

    run(scenario())


def test_broker_killed_under_a_flowing_feed_loses_no_confirmed_task(run, own_broker, open_rabbit, make_task):
    server = own_broker()

    async def scenario():
        async with open_rabbit(server.url) as queue:
            confirmed, seen, stop = set(), set(), asyncio.Event()

            async def produce() -> None:
                number = 0
                while not stop.is_set():
                    ids = [f"t{number + n}" for n in range(20)]
                    with contextlib.suppress(QueueUnavailable):
                        await queue.publish([make_task(task_id) for task_id in ids])
                        confirmed.update(ids)
                        number += 20
                    await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=0.02)

            async def consume() -> None:
                feed = await queue.feed("upper")
                await feed.set_prefetch(50)
                while True:
                    taken = await feed.take(10)
                    seen.update(each.id for each in taken)
                    await queue.ack(taken)

            consumer, producer = asyncio.create_task(consume()), asyncio.create_task(produce())
            await until(lambda: len(seen) > 200)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            before = len(seen)
            await until(lambda: len(seen) > before + 200, 40)
            stop.set()
            await producer
            await until(lambda: confirmed <= seen)
            consumer.cancel()

    async def until(condition, seconds: float = 40.0) -> None:
        deadline, tick = time.monotonic() + seconds, asyncio.Event()
        while not condition():
            assert time.monotonic() < deadline, "it does not flow"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tick.wait(), 0.05)

    run(scenario())


def test_alarm_blocks_publishers_and_consumers_go_on(
    run, broker, in_alarm, open_rabbit, make_task, take_all, becomes_true
):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task(f"t{n}") for n in range(6)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await queue.ack(await take_all(feed, 2))

            async def refused() -> bool:
                try:
                    await queue.publish([make_task("refused")])
                except QueueUnavailable:
                    return True
                return False

            async with in_alarm():
                await becomes_true(refused)
                began = time.monotonic()
                assert await refused()
                assert time.monotonic() - began < 3, "the sender is told at once"
                # two are here already; the last two come from the broker, in spite of the alarm
                for _ in range(2):
                    taken = await take_all(feed, 2, 5)
                    await queue.ack(taken)

            async def taken_again() -> bool:
                return not await refused()

            await becomes_true(taken_again)

    run(scenario())


def test_consumer_that_gets_nothing_though_messages_are_ready_is_replaced(
    run, broker, open_rabbit, make_task, take_all
):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await queue.publish([make_task("a")])
            await queue.ack(await take_all(feed, 1))
            # As with a consumer that the client forgot and the broker did not: what is delivered to it is lost on it.
            feed._unacked._channel._raw._consumers.clear()
            ids = [f"t{n}" for n in range(5)]
            await queue.publish([make_task(task_id) for task_id in ids])
            taken = []
            for _ in range(3):
                more = await take_all(feed, 1, 15)
                await queue.ack(more)
                taken += more
            assert [each.id for each in taken] == ids[:3]

    run(scenario())


def test_message_larger_than_brokers_take_is_refused_here(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            with pytest.raises(EnvelopeError, match="store the data elsewhere") as refused:
                await queue.publish([make_task("big", payload={"text": "x" * (20 * 1024 * 1024)})])
            assert refused.value.code is FailureCode.TOO_LARGE
            await queue.publish([make_task("small")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            assert [each.id for each in await take_all(feed, 1)] == ["small"]

    run(scenario())


def test_the_brokers_own_dead_letters_come_to_the_ingress_with_their_reason(
    run, broker, open_rabbit, make_task, blocking
):
    def publish_what_expires() -> None:
        channel = blocking(broker.url).channel()
        properties = pika.BasicProperties(message_id="old", expiration="1")
        channel.basic_publish("tasks", "upper", b'{"algorithm":"upper","payload":{}}', properties)

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await asyncio.to_thread(publish_what_expires)
            ingress = await queue.ingress_feed()
            (arrival,) = await asyncio.wait_for(ingress.take(5), 15)
            assert (arrival.message_id, arrival.dead_reason) == ("old", "expired in queue tasks.upper")

    run(scenario())
