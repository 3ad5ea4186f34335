"""The front door on a real broker."""

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


async def take_many(door, count: int):
    taken = []
    async with asyncio.timeout(15):
        while len(taken) < count:
            taken += await door.take(count - len(taken))
    return taken


def as_delivery(arrival) -> Delivery:
    return Delivery("a", "", b"null", "", attempt=1, receipt=arrival.receipt, body=arrival.body)


def test_arrivals_are_settled_by_ack_and_release_too(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            await asyncio.to_thread(send, broker.url, b"one", b"two")
            first, second = await take_many(door, 2)
            await queue.ack([as_delivery(first)])
            await queue.release([as_delivery(second)])
            (again,) = await take_many(door, 1)
            assert again.body == b"two"
            await queue.ack([as_delivery(again), as_delivery(again), as_delivery(second)])
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            channel = await probe.channel()
            assert (await channel.declare_queue("tasks", passive=True)).messages == 0

    run(scenario())


def test_an_arrival_released_again_and_again_stays_as_it_is(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            await asyncio.to_thread(send, broker.url, b"garbage", app_id="them")
            for _ in range(6):
                (arrival,) = await take_many(door, 1)
                assert (arrival.body, arrival.headers["app_id"]) == (b"garbage", "them")
                await queue.release([as_delivery(arrival)])

    run(scenario())


def test_forwarding_makes_the_queue_that_is_missing_also_when_it_was_there_before(
    run, broker, open_rabbit, send, make_task, take_all
):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            for round_ in range(2):
                await asyncio.to_thread(send, broker.url, body_of("fresh"))
                task = make_task(f"t{round_}", "fresh", {"text": "a"})
                await door.forward(await take_many(door, 1), [task])
                if round_ == 0:
                    await asyncio.to_thread(broker.delete_queue, "tasks.fresh")
            # The second went to nobody's queue and came back to the door, which now makes the queue.
            (back,) = await take_many(door, 1)
            assert back.message_id == "t1"
            await door.forward([back], [task])
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
            door = await queue.front_door()
            await asyncio.to_thread(send, broker.url, body_of("taken"), body_of("upper"))
            arrivals = await take_many(door, 2)
            tasks = [make_task("bad", "taken", {"text": "a"}), make_task("good", "upper", {"text": "a"})]
            await door.forward(arrivals, tasks)
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            assert [each.id for each in await take_all(feed, 1)] == ["good"]
            (back,) = await take_many(door, 1)
            assert (back.message_id, back.first_seen_at is None) == ("bad", False)

    run(scenario())


def test_closing_gives_back_what_was_not_taken(run, broker, open_rabbit, send):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            await asyncio.to_thread(send, broker.url, *(b"%d" % number for number in range(5)))
            (taken,) = await take_many(door, 1)
            await door.close()
            await door.close()
            with pytest.raises(QueueClosed):
                await door.take(1)
            other = await queue.front_door()
            rest = await take_many(other, 4)
            assert sorted(each.body for each in rest) == [b"1", b"2", b"3", b"4"]
            await queue.ack([as_delivery(each) for each in [taken, *rest]])

    run(scenario())


def test_a_waiting_taker_is_told_when_the_door_closes(run, broker, open_rabbit):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            taker = asyncio.create_task(door.take(1))
            await asyncio.wait([taker], timeout=0.1)
        with pytest.raises(QueueClosed):
            await taker

    run(scenario())


def test_the_door_opens_again_after_its_channel_and_its_queue_were_lost(run, broker, open_rabbit, send, eventually):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            door = await queue.front_door()
            await asyncio.to_thread(send, broker.url, b"one")
            (old,) = await take_many(door, 1)
            old.receipt.hold._channel.ack(4711)
            (again,) = await take_many(door, 1)
            assert (again.body, again.delivery_count) == (b"one", 1)
            await queue.ack([as_delivery(old)])
            await queue.ack([as_delivery(again)])
            lost = door._hold
            await asyncio.to_thread(broker.delete_queue, "tasks")
            await eventually(lambda: door._hold is not None and door._hold is not lost and len(door._consumers) == 2, 5)
            await asyncio.to_thread(send, broker.url, b"two")
            assert [each.body for each in await take_many(door, 1)] == [b"two"]

    run(scenario())


def test_misfits_of_a_lost_channel_are_not_passed_on_twice(run, broker, open_rabbit, eventually):
    def misfit() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().basic_publish("tasks", "upper", body_of("upper"))

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            door = await queue.front_door()
            await asyncio.to_thread(misfit)
            await eventually(lambda: len(door._buffer) == 1)
            door._buffer[0].receipt.hold._channel.ack(4711)
            await eventually(lambda: len(door._buffer) == 2)
            (fresh,) = await take_many(door, 2 - 1)
            assert fresh.receipt.hold.alive
            assert not door._buffer

    run(scenario())
