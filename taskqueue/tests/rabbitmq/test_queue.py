"""The queue on RabbitMQ as a whole."""

import asyncio
import os
from contextlib import AsyncExitStack

import pika
import pytest

from taskqueue.errors import QueueClosed, QueueUnavailable, UnsuitableAddress
from taskqueue.rabbitmq import connection as connection_module
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RESERVED_CHANNELS, ConnectionPool, RobustConnection
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.tasks import Reply


def test_answers_reach_a_queue_and_a_waiting_caller_and_one_that_is_gone_is_lost(run, broker, open_rabbit):
    ready, asked = asyncio.Event(), {}

    def caller(loop: asyncio.AbstractEventLoop) -> list[tuple[str, str, bytes]]:
        """A queue of its own, and direct reply-to."""
        got = []
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("answers", exclusive=True)
            seen = channel.queue_declare("asked", exclusive=True).method.queue

            def on_answer(_, __, properties, body) -> None:
                got.append((properties.correlation_id, properties.content_type, body))

            channel.basic_consume("amq.rabbitmq.reply-to", on_answer, auto_ack=True)
            channel.basic_consume("answers", on_answer, auto_ack=True)
            # only the broker knows how a direct reply-to is called in the end: ask by sending
            channel.basic_publish("", seen, b"?", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
            asked["direct"] = channel.basic_get(seen, auto_ack=True)[1].reply_to
            loop.call_soon_threadsafe(ready.set)
            for _ in range(100):
                if len(got) == 2:
                    break
                connection.process_data_events(0.1)
        return got

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            waiting = asyncio.create_task(asyncio.to_thread(caller, asyncio.get_running_loop()))
            await asyncio.wait_for(ready.wait(), 10)
            await queue.reply(
                [Reply("nobody-here", "x", b"{}"), Reply("answers", "a", b"1"), Reply(asked["direct"], "b", b"2")]
            )
            got = await waiting
            assert sorted(got) == [("a", "application/json", b"1"), ("b", "application/json", b"2")]
            await queue.reply([])

    run(scenario())


def test_a_retry_takes_the_shortest_step_that_is_long_enough(run, broker, open_rabbit, make_task, make_delivery, count):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            deliveries = [make_delivery(f"t{n}") for n in range(3)]
            await queue.retry(deliveries, [0.41, 30, 9999])
            assert await count("tasks-retry.30s") == 3

    run(scenario())


def test_a_user_who_may_only_send_uses_what_others_have_declared(run, broker, make_task, count, refused):
    def allow(configure: str, write: str, read: str) -> None:
        rights = {"configure": configure, "write": write, "read": read}
        broker.management("PUT", f"permissions/{broker.vhost}/{broker.server.user}", rights)

    async def scenario():
        allow("^$", "^tasks$", "^$")
        async with open_rabbitmq(broker.url, retry_steps_seconds=()) as sender:
            error = await refused(sender.publish([make_task("early")]), QueueUnavailable)
            assert "no exchange 'tasks'" in str(error)
            allow(".*", ".*", ".*")
            async with open_rabbitmq(broker.url, retry_steps_seconds=()) as other:
                await other.publish([make_task("t1")])
            allow("^$", "^tasks$", "^$")
            await sender.publish([make_task("t2")])
        assert await count("tasks") == 2

    run(scenario())


@pytest.fixture
def count(broker):
    async def messages(queue: str) -> int:
        def ask() -> int:
            with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
                return connection.channel().queue_declare(queue, passive=True).method.message_count

        return await asyncio.to_thread(ask)

    return messages


def test_a_process_that_only_publishes_has_one_connection(run, broker, open_rabbit, make_task):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task("a")])
            assert not queue._consuming.connected.is_set()
            assert queue._consuming._task is None
            await queue.feed("upper")
            assert queue._consuming._task is not None

    run(scenario())


def test_after_close_everything_says_so(run, broker, open_rabbit, make_task):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            await queue.close()
            await queue.close()
            for call in (queue.feed("upper"), queue.ingress_feed(), queue.publish([make_task("a")]), feed.take(1)):
                with pytest.raises(QueueClosed):
                    await call

    run(scenario())


def test_closing_leaves_no_task_behind(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        before = asyncio.all_tasks()
        async with open_rabbit(broker.url) as queue:
            await queue.ingress_feed()
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await queue.publish([make_task("a")])
            await take_all(feed, 1)
        assert asyncio.all_tasks() == before

    run(scenario())


def test_opening_does_not_wait_for_a_broker_that_is_away(run, make_task):
    async def scenario():
        state: dict[str, bool] = {}
        url = "amqp://user:secret@127.0.0.1:1/"
        async with open_rabbitmq(
            url, retry_steps_seconds=(1,), report=lambda part, ready, reason: state.update({part: ready})
        ) as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            ingress = await queue.ingress_feed()
            with pytest.raises(QueueUnavailable) as refused:
                async with asyncio.timeout(20):
                    await queue.publish([make_task("a")])
            assert "secret" not in str(refused.value)
            assert state["queue"] is False
            await feed.close()
            await ingress.close()

    run(scenario())


def test_a_wrong_url_is_a_sentence(run):
    async def scenario():
        with pytest.raises(UnsuitableAddress, match="amqp://"):
            async with open_rabbitmq("http://nowhere", retry_steps_seconds=(1,)):
                pass

    run(scenario())


@pytest.fixture
def few_channels(monkeypatch):
    """A connection has 30 channels."""
    parameters = connection_module._parameters

    def found_parameters(*given):
        found = parameters(*given)
        found.channel_max = 30
        return found

    monkeypatch.setattr(connection_module, "_parameters", found_parameters)


def test_more_algorithms_than_a_connection_has_channels_are_all_consumed(
    run, broker, open_rabbit, make_task, take_all, few_channels
):
    names = [f"name_{number}" for number in range(int(os.environ.get("ALGORITHM_NAMES", "60")))]

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feeds = {name: await queue.feed(name) for name in names}
            for feed in feeds.values():
                await feed.set_prefetch(1)
            honest = feeds[names[-1]] = await queue.feed("honest")
            await honest.set_prefetch(1)
            taking = asyncio.create_task(take_all(honest, 1, seconds=25))
            while not taking.done():
                # what is sent before the queue is there goes to the ingress queue
                await queue.publish([make_task("a", "honest")])
                await asyncio.wait([taking], timeout=0.5)
            assert [each.id for each in taking.result()] == ["a"]
            for feed in feeds.values():
                await feed.close()
            assert honest.trouble == ""

    run(scenario())


def test_channels_that_come_back_after_a_reconnect_leave_the_reserved_ones_free(
    run, broker, few_channels, open_proxy, eventually
):
    """More are asked for than the first connection has, all before any connection is back."""

    async def scenario():
        async with AsyncExitStack() as stack:
            proxy, url = await stack.enter_async_context(open_proxy(broker.url))
            address = parse_queue_url(url)
            first = await stack.enter_async_context(RobustConnection(address, "first"))
            pool = ConnectionPool(first, lambda number: RobustConnection(address, f"further {number}"))
            stack.push_async_callback(pool.close)
            before = await asyncio.gather(*(pool.channel(30) for _ in range(40)))
            assert len(pool._connections) == 2
            proxy.reset()
            await eventually(lambda: not any(channel.is_open for channel in before))

            channels = await asyncio.gather(*(pool.channel(30) for _ in range(40)))
            assert all(channel.is_open for channel in channels)
            assert all(each.free_channels >= RESERVED_CHANNELS for each in pool._connections)
            assert len(pool._connections) == 2

    run(scenario())


def test_who_waits_for_any_connection_learns_of_the_end(run):
    async def scenario():
        async with RobustConnection(parse_queue_url("amqp://127.0.0.1:1"), "test") as first:
            pool = ConnectionPool(first, lambda _: first)
            with pytest.raises(QueueUnavailable, match=r"127\.0\.0\.1"):
                await pool.channel(timeout_seconds=0.2)
            waiting = asyncio.create_task(pool.channel(timeout_seconds=30))
            await asyncio.sleep(0)
            await first.close()
            with pytest.raises(QueueClosed):
                await waiting

    run(scenario())
