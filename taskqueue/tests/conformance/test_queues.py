"""What every queue does."""

import asyncio
import time

import pytest

from taskqueue.errors import QueueClosed
from taskqueue.tasks import Published


def test_tasks_arrive_oldest_first_with_all_they_carry(run, open_queue, make_task, take_all):
    async def scenario():
        async with open_queue() as queue:
            expires_at = time.time() + 3600
            first = make_task("a", expires_at=expires_at, reply_to="answers", correlation_id="c-1")
            assert await queue.publish([first, make_task("b")]) == [Published.ACCEPTED] * 2
            assert await queue.publish([make_task("c")]) == [Published.ACCEPTED]
            feed = await queue.feed("upper")
            await feed.set_prefetch(10)
            taken = await take_all(feed, 3)
            assert [delivery.id for delivery in taken] == ["a", "b", "c"]
            one = taken[0]
            assert (one.algorithm, one.payload, one.digest) == (first.algorithm, first.payload, first.digest)
            assert (one.attempt, one.delivery_count) == (1, 0)
            assert (one.reply_to, one.correlation_id) == ("answers", "c-1")
            assert one.expires_at == pytest.approx(expires_at, abs=1)

    run(scenario())


def test_publishing_nothing_is_allowed(run, open_queue):
    async def scenario():
        async with open_queue() as queue:
            assert await queue.publish([]) == []
            await queue.ack([])
            await queue.release([])
            await queue.retry([], [])

    run(scenario())


@pytest.mark.parametrize("size", [0, 1024 * 1024])
def test_payload_comes_back_byte_for_byte(run, open_queue, make_task, take_all, size):
    async def scenario():
        async with open_queue() as queue:
            task = make_task("a", payload={"text": "ä\u0000\U0001f600" + "x" * size, "big": 2**63})
            await queue.publish([task])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            assert (await take_all(feed, 1))[0].payload == task.payload

    run(scenario())


def test_nothing_flows_before_a_prefetch_is_set(run, open_queue, make_task, comes_nothing, take_all):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            assert await comes_nothing(feed)
            assert feed.waiting() == 0
            await feed.set_prefetch(1)
            assert len(await take_all(feed, 1)) == 1

    run(scenario())


@pytest.mark.serial
def test_task_published_while_a_taker_waits_arrives_at_once(run, open_queue, make_task):
    async def scenario():
        async with open_queue() as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(4)
            taker = asyncio.create_task(feed.take(4))
            await asyncio.wait([taker], timeout=0.1)
            began = time.monotonic()
            await queue.publish([make_task("a")])
            assert [delivery.id for delivery in await taker] == ["a"]
            assert time.monotonic() - began < 1.0

    run(scenario())


def test_no_more_than_the_prefetch_is_out(run, open_queue, make_task, take_all, comes_nothing, eventually):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task(f"t{n:02}") for n in range(12)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(3)
            taken = await take_all(feed, 3)
            assert await comes_nothing(feed)
            await queue.ack(taken[:1])
            more = await take_all(feed, 1)
            assert await comes_nothing(feed)
            await feed.set_prefetch(5)
            more += await take_all(feed, 2)
            assert await comes_nothing(feed)
            await queue.ack(taken[1:] + more)
            await eventually(lambda: feed.waiting() == 5)
            assert [delivery.id for delivery in await feed.take(2)] == ["t06", "t07"]
            assert feed.waiting() == 3

    run(scenario())


def test_prefetch_of_zero_pauses_and_gives_back(run, open_queue, make_task, comes_nothing, eventually, take_all):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task(f"t{n}") for n in range(4)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(4)
            await eventually(lambda: feed.waiting() == 4)
            await feed.set_prefetch(0)
            assert await comes_nothing(feed)
            other = await queue.feed("upper")
            await other.set_prefetch(4)
            taken = await take_all(other, 4)
            assert sorted(delivery.id for delivery in taken) == ["t0", "t1", "t2", "t3"]
            assert {delivery.delivery_count for delivery in taken} == {0}

    run(scenario())


def test_acknowledged_task_never_comes_again(run, open_queue, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 1)
            await queue.ack(taken)
            await queue.ack(taken)
            await feed.close()
            other = await queue.feed("upper")
            await other.set_prefetch(2)
            assert await comes_nothing(other)

    run(scenario())


def test_released_task_comes_again_uncounted(run, open_queue, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            for _ in range(3):
                taken = await take_all(feed, 1)
                assert (taken[0].id, taken[0].attempt, taken[0].delivery_count) == ("a", 1, 0)
                await queue.release(taken)
            old = taken
            taken = await take_all(feed, 1)
            await queue.release(old)
            assert await comes_nothing(feed), "an old receipt must not free the task that is out again"

    run(scenario())


def test_retried_task_comes_back_as_the_next_attempt_after_its_delay(run, open_queue, make_task, take_all):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(4)
            taken = await take_all(feed, 1)
            began = time.monotonic()
            await queue.retry(taken, [0.4])
            await queue.ack(taken)
            again = await take_all(feed, 1)
            assert time.monotonic() - began >= 0.35
            assert (again[0].id, again[0].attempt, again[0].delivery_count) == ("a", 2, 0)
            assert again[0].payload == taken[0].payload

    run(scenario())


def test_short_delay_behind_a_long_one_is_not_late(run, open_queue, make_task, take_all):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("long"), make_task("short")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(4)
            taken = await take_all(feed, 2)
            began = time.monotonic()
            await queue.retry(taken[:1], [30.0])
            await queue.retry(taken[1:], [0.2])
            await queue.ack(taken)
            again = await take_all(feed, 1)
            assert again[0].id == "short"
            assert time.monotonic() - began < 5.0

    run(scenario())


def test_closing_a_feed_gives_back_what_was_not_taken(run, open_queue, make_task, take_all, eventually, comes_nothing):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task(f"t{n}") for n in range(5)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            await eventually(lambda: feed.waiting() == 5)
            kept = await feed.take(2)
            await feed.close()
            await feed.close()
            other = await queue.feed("upper")
            await other.set_prefetch(5)
            taken = await take_all(other, 3)
            assert [delivery.id for delivery in taken] == ["t2", "t3", "t4"]
            assert {delivery.delivery_count for delivery in taken} == {0}
            await queue.ack(kept + taken)
            assert await comes_nothing(other)

    run(scenario())


def test_waiting_taker_is_told_when_the_feed_closes(run, open_queue):
    async def scenario():
        async with open_queue() as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taker = asyncio.create_task(feed.take(1))
            await asyncio.wait([taker], timeout=0.05)
            await feed.close()
            with pytest.raises(QueueClosed):
                await taker
            with pytest.raises(QueueClosed):
                await feed.take(1)

    run(scenario())


def test_closing_the_queue_ends_every_wait(run, open_queue):
    async def scenario():
        async with open_queue() as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taker = asyncio.create_task(feed.take(1))
            await asyncio.wait([taker], timeout=0.05)
        with pytest.raises(QueueClosed):
            await taker

    run(scenario())


def test_cancelled_take_loses_nothing(run, open_queue, make_task, take_all):
    async def scenario():
        async with open_queue() as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(50)
            takers = [asyncio.create_task(feed.take(1)) for _ in range(20)]
            publisher = asyncio.create_task(queue.publish([make_task(f"t{n}") for n in range(20)]))
            await asyncio.wait(takers, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            for taker in takers:
                taker.cancel()
            await publisher
            answers = await asyncio.gather(*takers, return_exceptions=True)
            got = [delivery.id for answer in answers if isinstance(answer, list) for delivery in answer]
            rest = await take_all(feed, 20 - len(got))
            assert sorted(got + [delivery.id for delivery in rest]) == sorted(f"t{n}" for n in range(20))

    run(scenario())


def test_feeds_of_one_algorithm_share_its_tasks(run, open_queue, make_task):
    async def scenario():
        async with open_queue() as queue:
            ids = [f"t{n:03}" for n in range(300)]
            seen: list[str] = []
            all_seen = asyncio.Event()

            async def consume() -> None:
                feed = await queue.feed("upper")
                await feed.set_prefetch(16)
                while True:
                    taken = await feed.take(8)
                    seen.extend(delivery.id for delivery in taken)
                    await queue.ack(taken)
                    if len(seen) >= len(ids):
                        all_seen.set()

            consumers = [asyncio.create_task(consume()) for _ in range(3)]
            for start in range(0, 300, 50):
                await queue.publish([make_task(task_id) for task_id in ids[start : start + 50]])
            await asyncio.wait_for(all_seen.wait(), 20)
            for consumer in consumers:
                consumer.cancel()
            await asyncio.gather(*consumers, return_exceptions=True)
            assert sorted(seen) == ids

    run(scenario())


def test_algorithms_do_not_see_each_others_tasks(run, open_queue, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_queue() as queue:
            await queue.publish([make_task("a", "upper"), make_task("b", "lower")])
            upper, lower = await queue.feed("upper"), await queue.feed("lower")
            await upper.set_prefetch(5)
            await lower.set_prefetch(5)
            assert [delivery.id for delivery in await take_all(lower, 1)] == ["b"]
            assert [delivery.id for delivery in await take_all(upper, 1)] == ["a"]
            assert await comes_nothing(upper)

    run(scenario())
