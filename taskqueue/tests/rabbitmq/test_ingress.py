"""The ingress queue on a real broker."""

import asyncio
import json

import pika
import pytest

from taskqueue.errors import QueueClosed
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.tasks import Delivery


@pytest.fixture
def send():
    """What strangers do: a message to a queue, with plain pika."""

    def publish(url: str, *bodies: bytes, **properties) -> None:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            for body in bodies:
                channel.basic_publish("", "tasks", body, pika.BasicProperties(**properties))

    return publish


def body_of(algorithm: str, text: str = "a") -> bytes:
    return json.dumps({"algorithm": algorithm, "payload": {"text": text}}).encode()


async def take_many(ingress, count: int):
    taken = []
    async with asyncio.timeout(15):
        while len(taken) < count:
            taken += await ingress.take(count - len(taken))
    return taken


def as_delivery(arrival) -> Delivery:
    return Delivery("a", "", b"null", "", attempt=1, receipt=arrival.receipt, body=arrival.body)


def test_arrivals_are_settled_by_ack_and_release_too(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(send, broker.url, b"one", b"two")
            first, second = await take_many(ingress, 2)
            await queue.ack([as_delivery(first)])
            await queue.release([as_delivery(second)])
            (again,) = await take_many(ingress, 1)
            assert again.body == b"two"
            await queue.ack([as_delivery(again), as_delivery(again), as_delivery(second)])
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            channel = await probe.channel()
            assert (await channel.declare_queue("tasks", passive=True)).messages == 0

    run(scenario())


def test_an_arrival_released_again_and_again_stays_as_it_is(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(send, broker.url, b"garbage", app_id="them")
            for _ in range(6):
                (arrival,) = await take_many(ingress, 1)
                assert (arrival.body, arrival.headers["app_id"]) == (b"garbage", "them")
                await queue.release([as_delivery(arrival)])

    run(scenario())


def test_forwarding_makes_the_queue_that_is_missing_also_when_it_was_there_before(
    run, broker, open_rabbit, send, make_task, take_all
):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            for round_ in range(2):
                await asyncio.to_thread(send, broker.url, body_of("fresh"))
                task = make_task(f"t{round_}", "fresh", {"text": "a"})
                await ingress.forward(await take_many(ingress, 1), [task])
                if round_ == 0:
                    await asyncio.to_thread(broker.delete_queue, "tasks.fresh")
            # The second went to nobody's queue and came back to the ingress, which now makes the queue.
            (back,) = await take_many(ingress, 1)
            assert back.message_id == "t1"
            await ingress.forward([back], [task])
            feed = await queue.feed("fresh")
            await feed.set_prefetch(1)
            assert [each.id for each in await take_all(feed, 1)] == ["t1"]

    run(scenario())


def test_a_queue_that_cannot_be_made_holds_up_no_other(run, broker, open_rabbit, send, make_task, take_all):
    def in_the_way() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().queue_declare("tasks.taken", durable=True)

    async def scenario():
        await asyncio.to_thread(in_the_way)
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(send, broker.url, body_of("taken"), body_of("upper"))
            arrivals = await take_many(ingress, 2)
            tasks = [make_task("bad", "taken", {"text": "a"}), make_task("good", "upper", {"text": "a"})]
            await ingress.forward(arrivals, tasks)
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            assert [each.id for each in await take_all(feed, 1)] == ["good"]
            (back,) = await take_many(ingress, 1)
            assert (back.message_id, back.first_seen_at is None) == ("bad", False)

    run(scenario())


def test_closing_gives_back_what_was_not_taken(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(send, broker.url, *(b"%d" % number for number in range(5)))
            (taken,) = await take_many(ingress, 1)
            await ingress.close()
            await ingress.close()
            with pytest.raises(QueueClosed):
                await ingress.take(1)
            other = await queue.ingress_feed()
            rest = await take_many(other, 4)
            assert sorted(each.body for each in rest) == [b"1", b"2", b"3", b"4"]
            await queue.ack([as_delivery(each) for each in [taken, *rest]])

    run(scenario())


def test_a_waiting_taker_is_told_when_the_ingress_closes(run, broker, open_rabbit):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            taker = asyncio.create_task(ingress.take(1))
            await asyncio.wait([taker], timeout=0.1)
        with pytest.raises(QueueClosed):
            await taker

    run(scenario())


def test_it_consumes_again_after_its_channel_and_its_queue_were_lost(run, broker, open_rabbit, send, eventually):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(send, broker.url, b"one")
            (old,) = await take_many(ingress, 1)
            old.receipt.unacked._channel.ack(4711)
            (again,) = await take_many(ingress, 1)
            assert (again.body, again.delivery_count) == (b"one", 1)
            await queue.ack([as_delivery(old)])
            await queue.ack([as_delivery(again)])
            lost = ingress._unacked
            await asyncio.to_thread(broker.delete_queue, "tasks")
            await eventually(
                lambda: ingress._unacked is not None and ingress._unacked is not lost and len(ingress._consumers) == 2,
                5,
            )
            await asyncio.to_thread(send, broker.url, b"two")
            assert [each.body for each in await take_many(ingress, 1)] == [b"two"]

    run(scenario())


def test_misfits_of_a_lost_channel_are_not_passed_on_twice(run, broker, open_rabbit, eventually):
    def misfit() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().basic_publish("tasks", "upper", body_of("upper"))

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            ingress = await queue.ingress_feed()
            await asyncio.to_thread(misfit)
            await eventually(lambda: len(ingress._buffer) == 1)
            ingress._buffer[0].receipt.unacked._channel.ack(4711)
            await eventually(lambda: len(ingress._buffer) == 2)
            (fresh,) = await take_many(ingress, 2 - 1)
            assert fresh.receipt.unacked.alive
            assert not ingress._buffer

    run(scenario())
