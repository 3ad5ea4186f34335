"""A feed on a real broker, beyond what every feed does."""

import asyncio
import dataclasses
import random
import time

import pika
import pytest

from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection


def test_prefetch_may_change_at_any_time_under_load(run, broker, open_rabbit, make_task):
    """Nothing is lost, nothing comes twice, and nothing stays behind."""
    count = 2000

    async def scenario():
        dice = random.Random(7)
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task(f"t{n}") for n in range(count)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(10)
            seen: list[str] = []
            while len(seen) < count:
                taken = await asyncio.wait_for(feed.take(dice.randint(1, 20)), 15)
                seen += [each.id for each in taken]
                await queue.ack(taken)
                if dice.random() < 0.1:
                    await feed.set_prefetch(dice.choice([0, 1, 3, 50]))
                    await feed.set_prefetch(dice.choice([2, 7, 30, 80]))
            assert sorted(seen) == sorted(f"t{n}" for n in range(count))

    run(scenario())


def test_shrinking_gives_back_the_newest_to_others(run, broker, open_rabbit, make_task, take_all, eventually):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task(f"t{n}") for n in range(8)])
            feed, other = await queue.feed("upper"), await queue.feed("upper")
            await feed.set_prefetch(8)
            await eventually(lambda: feed.waiting() == 8)
            await feed.set_prefetch(3)
            await other.set_prefetch(8)
            assert [each.id for each in await take_all(other, 5)] == ["t3", "t4", "t5", "t6", "t7"]
            assert [each.id for each in await feed.take(8)] == ["t0", "t1", "t2"]

    run(scenario())


def test_a_paused_feed_goes_on(run, broker, open_rabbit, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            for round_ in range(3):
                await feed.set_prefetch(0)
                await queue.publish([make_task(f"t{round_}")])
                assert await comes_nothing(feed)
                await feed.set_prefetch(2)
                taken = await take_all(feed, 1)
                assert [each.id for each in taken] == [f"t{round_}"]
                await queue.ack(taken)

    run(scenario())


def test_what_was_taken_can_be_settled_after_the_feed_closed(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2)
            await feed.close()
            await queue.ack(taken)
            await asyncio.wait_for(asyncio.wait({feed._task}), 5)
            channel = await probe.channel()
            assert (await channel.declare_queue("tasks.upper", passive=True)).messages == 0

    run(scenario())


def test_a_message_that_is_no_task_neither_blocks_its_neighbours_nor_is_lost(
    run, broker, open_rabbit, make_task, take_all
):
    def stranger() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().basic_publish("tasks", "upper", b"nonsense")

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await asyncio.to_thread(stranger)
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            assert [each.id for each in await take_all(feed, 1)] == ["a"]
            door = await queue.front_door()
            (arrival,) = await asyncio.wait_for(door.take(5), 5)
            assert arrival.body == b"nonsense"

    run(scenario())


def test_a_feed_that_cannot_consume_is_reported_with_its_reason(
    run, broker, open_rabbit, make_task, take_all, eventually
):
    """Somebody declared its queue in another way."""

    def in_the_way() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().queue_declare("tasks.taken", durable=True)

    async def scenario():
        state: dict[str, str] = {}

        def report(part: str, ready: bool, reason: str) -> None:
            state.pop(part, None)
            if not ready:
                state[part] = reason

        await asyncio.to_thread(in_the_way)
        async with open_rabbit(broker.url, report=report) as queue:
            feed, fine = await queue.feed("taken"), await queue.feed("upper")
            await feed.set_prefetch(1)
            await fine.set_prefetch(1)
            await queue.publish([make_task("a")])
            assert [each.id for each in await take_all(fine, 1)] == ["a"]
            await eventually(lambda: list(state) == ["queue tasks.taken"], 10)
            assert "tasks.taken" in state["queue tasks.taken"]
            await asyncio.to_thread(broker.delete_queue, "tasks.taken")
            await eventually(lambda: not state, 10)

    run(scenario())


def test_closing_is_prompt_while_the_broker_is_frozen_or_gone(run, own_broker, open_rabbit, make_task, eventually):
    server = own_broker()

    async def scenario():
        for away in (server.pause, server.kill):
            async with open_rabbit(server.url) as queue:
                await queue.publish([make_task(f"t{n}") for n in range(4)])
                feed = await queue.feed("upper")
                await feed.set_prefetch(4)
                await eventually(lambda feed=feed: feed.waiting() == 4)
                await asyncio.to_thread(away)
                began = time.monotonic()
                await feed.close()
                assert time.monotonic() - began < 6
            assert time.monotonic() - began < 15
            await asyncio.to_thread(server.resume)

    run(scenario())


@pytest.mark.parametrize("receipt", [None, object(), ("a", 1), 7])
def test_a_receipt_that_is_not_ours_is_ignored(run, broker, open_rabbit, make_delivery, receipt):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            delivery = dataclasses.replace(make_delivery("a"), receipt=receipt)
            await queue.ack([delivery])
            await queue.release([delivery])

    run(scenario())
