"""What every queue does that is a table: waiting tasks can be seen before they are handed out."""

import time

import pytest

from runnerlib.contract import FailureCode
from taskqueue.tasks import DeadAnswer, Failed


def test_sweep_takes_expired_tasks_and_leaves_the_others(run, open_table_queue, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_table_queue() as queue:
            past = time.time() - 1
            await queue.publish([make_task("old", expires_at=past), make_task("new", expires_at=past + 3600)])
            swept = await queue.sweep({"upper"}, 0.0, 10)
            assert [(delivery.id, delivery.expires_at) for delivery in swept] == [("old", pytest.approx(past))]
            assert await queue.sweep({"upper"}, 0.0, 10) == []
            await queue.ack(swept)
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            assert [delivery.id for delivery in await take_all(feed, 1)] == ["new"]
            assert await comes_nothing(feed)

    run(scenario())


def test_sweep_takes_old_tasks_of_unknown_algorithms(run, open_table_queue, make_task, take_all):
    async def scenario():
        async with open_table_queue() as queue:
            await queue.publish([make_task("a", "upper"), make_task("b", "nobody"), make_task("c", "nowhere")])
            assert await queue.sweep({"upper"}, time.time() - 600, 10) == [], "none has waited for so long"
            later = time.time() + 1
            first = await queue.sweep({"upper"}, later, 1)
            rest = await queue.sweep({"upper"}, later, 10)
            assert sorted(delivery.id for delivery in first + rest) == ["b", "c"]
            await queue.release(rest)
            assert len(await queue.sweep({"upper"}, later, 10)) == 1

    run(scenario())


def test_sweep_leaves_what_somebody_has(run, open_table_queue, make_task, take_all):
    async def scenario():
        async with open_table_queue() as queue:
            await queue.publish([make_task("a", expires_at=time.time() + 0.05)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            assert await queue.sweep(set(), time.time() + 60, 10) == []
            await queue.ack(taken)

    run(scenario())


def test_replayed_task_of_an_unknown_algorithm_gets_its_time_anew(run, open_pair, make_task):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a", "nobody")])
            swept = await queue.sweep(set(), time.time() + 1, 10)
            await store.record([Failed(each, FailureCode.UNKNOWN_ALGORITHM, "nobody knows it") for each in swept])
            await queue.ack(swept)
            (letter,) = await store.dead_letters()
            before_the_replay = time.time()
            assert await queue.replay([letter.dead_id]) == [DeadAnswer.REPLAYED]
            assert await queue.sweep(set(), before_the_replay, 10) == []
            (counts,) = await store.counts()
            assert counts.oldest_waiting_at >= before_the_replay
            (again,) = await queue.sweep(set(), time.time() + 1, 10)
            assert (again.id, again.attempt) == ("a", 2)

    run(scenario())
