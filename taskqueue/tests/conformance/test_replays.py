"""What becomes of dead letters, where queue and store know each other: tables, and a broker with a store beside it."""

import asyncio
import time
from dataclasses import replace

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.tasks import (
    CancelAnswer,
    Conflicting,
    DeadAnswer,
    DeadFilter,
    Failed,
    Placement,
    Published,
    Retrying,
    Succeeded,
)

REPLAYED, UNKNOWN = DeadAnswer.REPLAYED, DeadAnswer.UNKNOWN
ALL = DeadFilter(waiting_only=False)


async def failing(queue, store, delivery, code=FailureCode.HANDLER_ERROR):
    """As a controller does it; the dead id."""
    assert await store.record([Failed(delivery, code, "broken", "Traceback …", runner="text-1")]) == [True]
    await queue.ack([delivery])
    page = await store.dead_letters()
    return page.items[0].dead_id


@pytest.fixture
def begin(take_all):
    """Publishes tasks and takes them, oldest first; the feed goes on."""

    async def publish(queue, *tasks):
        await queue.publish(tasks)
        feed = await queue.feed("upper")
        await feed.set_prefetch(20)
        return feed, await take_all(feed, len(tasks))

    return publish


def test_replayed_task_starts_afresh_under_its_id(run, open_replaying, make_task, begin, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            task = make_task("a", expires_at=time.time() + 60, reply_to="answers", correlation_id="c-1")
            feed, (first,) = await begin(queue, task)
            await store.place([(first, Placement("a", 1, "text-1", "b0"))])
            await store.report_progress([("a", 1, 0.5, "half")])
            assert await store.cancel("a") is CancelAnswer.REQUESTED
            dead_id = await failing(queue, store, first)
            failed = await store.get("a")
            await feed.set_prefetch(0)
            assert await queue.replay([dead_id]) == [REPLAYED]
            row = await store.get("a")
            assert (row.state, row.attempt, row.replays) == (TaskState.QUEUED, 2, 1)
            assert (row.created_at, row.digest, row.payload) == (failed.created_at, task.digest, task.payload)
            assert (row.history, row.error_code, row.error_message, row.result) == ((), None, None, None)
            assert (row.placement, row.runner, row.progress, row.cancel_requested) == (None, None, None, False)
            assert (row.expires_at, row.finished_at) == (None, None)
            assert await store.cancel_requested(["a"]) == set()
            await feed.set_prefetch(1)
            (again,) = await take_all(feed, 1)
            assert (again.id, again.attempt, again.expires_at) == ("a", 2, None)
            # a broker may have sent it to the feed that was just pausing, and got it back
            assert again.delivery_count <= 1
            assert (again.payload, again.digest) == (task.payload, task.digest)
            assert (again.reply_to, again.correlation_id) == ("answers", "c-1")
            assert await store.record([Succeeded(again, b'"A"')]) == [True]
            await queue.ack([again])
            row = await store.get("a")
            assert (row.state, row.result, row.attempt, row.replays) == (TaskState.SUCCEEDED, b'"A"', 2, 1)

    run(scenario())


def test_replayed_dead_letter_keeps_what_it_tells(run, open_replaying, make_task, begin):
    async def scenario():
        async with open_replaying() as (queue, store):
            _, (first,) = await begin(queue, make_task("a"))
            dead_id = await failing(queue, store, first)
            before = await store.dead_letter(dead_id)
            await queue.replay([dead_id])
            assert not await store.dead_letters()
            (line,) = await store.dead_letters(ALL)
            assert (line.dead_id, line.attempts, line.discarded_at) == (dead_id, 1, None)
            assert before.created_at <= line.replayed_at <= time.time() + 1
            after = await store.dead_letter(dead_id)
            assert replace(after, replayed_at=None) == before
            assert [entry.attempt for entry in after.history] == [1]

    run(scenario())


def test_each_dead_letter_is_replayed_once(run, open_replaying, make_task, begin, take_all, comes_nothing):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, deliveries = await begin(queue, *(make_task(f"t{n}") for n in range(3)))
            ids = [await failing(queue, store, each) for each in deliveries]
            answers = await queue.replay([ids[0], ids[0], ids[1]])
            assert answers == [REPLAYED, DeadAnswer.ALREADY_REPLAYED, REPLAYED]
            assert await queue.replay(ids) == [DeadAnswer.ALREADY_REPLAYED] * 2 + [REPLAYED]
            assert await store.discard(ids[:1]) == [DeadAnswer.ALREADY_REPLAYED]
            taken = await take_all(feed, 3)
            assert sorted((each.id, each.attempt) for each in taken) == [("t0", 2), ("t1", 2), ("t2", 2)]
            assert await comes_nothing(feed)

    run(scenario())


def test_replay_of_what_cannot_run_again_says_why(run, open_replaying, make_task, make_delivery, begin):
    async def scenario():
        async with open_replaying() as (queue, store):
            assert await queue.replay([]) == []
            assert await queue.replay([1, -5, 0, 2**70, 1]) == [UNKNOWN] * 5
            bad = [
                Failed(make_delivery("m", body=b"not JSON"), FailureCode.MALFORMED, "not JSON"),
                Failed(make_delivery("l", body=b'{"algorithm": "upper", "pay'), FailureCode.TOO_LARGE, "too large"),
                Conflicting(make_delivery("c"), "the id of another task"),
                Failed(make_delivery("d"), FailureCode.TIMEOUT, "slow"),
            ]
            assert await store.record(bad) == [True] * 4
            by_task = {line.task_id: line.dead_id for line in await store.dead_letters()}
            never = [by_task[task_id] for task_id in "mlc"]
            assert await queue.replay(never) == [DeadAnswer.NOT_REPLAYABLE] * 3
            assert await store.discard([by_task["d"]]) == [DeadAnswer.DISCARDED]
            assert await queue.replay([by_task["d"]]) == [DeadAnswer.ALREADY_DISCARDED]
            assert (await store.get("d")).state is TaskState.FAILED
            assert len(await store.dead_letters()) == 3

    run(scenario())


def test_task_that_fails_again_leaves_another_dead_letter(run, open_replaying, make_task, begin, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a"))
            one = await failing(queue, store, first)
            await queue.replay([one])
            (second,) = await take_all(feed, 1)
            two = await failing(queue, store, second)
            assert two > one
            assert [entry.attempt for entry in (await store.dead_letter(two)).history] == [2]
            assert await queue.replay([one, two]) == [DeadAnswer.ALREADY_REPLAYED, REPLAYED]
            (third,) = await take_all(feed, 1)
            assert third.attempt == 3
            assert (await store.get("a")).replays == 2

    run(scenario())


def test_task_that_retention_dropped_is_made_anew(run, open_replaying, make_task, begin, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            task = make_task("a", payload={"text": "ä", "n": 2**63}, expires_at=time.time() + 60)
            feed, (first,) = await begin(queue, task)
            await queue.retry([first], [0.0])
            await store.record([Retrying(first, FailureCode.TIMEOUT, "slow", time.time())])
            await queue.ack([first])
            (second,) = await take_all(feed, 1)
            dead_id = await failing(queue, store, second)
            assert await store.purge(time.time() + 60, 10) == 1
            assert await store.get("a") is None
            await feed.set_prefetch(0)
            assert await queue.replay([dead_id]) == [REPLAYED]
            row = await store.get("a")
            assert (row.state, row.attempt, row.replays, row.expires_at) == (TaskState.QUEUED, 3, 1, None)
            await feed.set_prefetch(1)
            (third,) = await take_all(feed, 1)
            assert (third.attempt, third.payload, third.digest, third.expires_at) == (
                3,
                task.payload,
                task.digest,
                None,
            )
            assert await queue.publish([task]) == [Published.DUPLICATE]

    run(scenario())


def test_dead_letter_whose_task_runs_again_already_replays_nothing(
    run, open_replaying, make_task, make_delivery, begin, take_all, comes_nothing
):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, deliveries = await begin(queue, make_task("a"), make_task("b"))
            first, second = [await failing(queue, store, each) for each in deliveries]
            assert await store.purge(time.time() + 60, 10) == 2
            other = make_task("b", payload={"text": "other"})
            await queue.publish([make_task("a"), other])
            taken = await take_all(feed, 2)
            answers = [DeadAnswer.NOT_FAILED, DeadAnswer.NOT_REPLAYABLE]
            assert await queue.replay([first, second]) == answers
            for each in taken:
                assert await store.record([Succeeded(each, b"1")]) == [True]
                await queue.ack([each])
            assert await queue.replay([first, second]) == answers
            assert await comes_nothing(feed)
            assert len(await store.dead_letters()) == 2, "they stay open: somebody may want to discard them"

    run(scenario())


def test_two_dead_letters_of_one_task_make_it_run_once(run, open_replaying, make_task, begin, take_all, comes_nothing):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a"))
            one = await failing(queue, store, first)
            await store.purge(time.time() + 60, 10)
            await queue.publish([make_task("a")])
            (again,) = await take_all(feed, 1)
            two = await failing(queue, store, again)
            assert await queue.replay([two, one]) == [REPLAYED, DeadAnswer.NOT_FAILED]
            assert len(await take_all(feed, 1)) == 1
            assert await comes_nothing(feed)

    run(scenario())


def test_outcome_of_an_attempt_before_the_replay_changes_nothing(run, open_replaying, make_task, begin, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a"))
            dead_id = await failing(queue, store, first)
            await queue.replay([dead_id])
            late = [Succeeded(first, b"1"), Failed(first, FailureCode.TIMEOUT, "slow")]
            assert await store.record(late) == [False, False]
            await queue.ack([first])
            await queue.release([first])
            assert not (await store.get("a")).state.is_terminal
            (second,) = await take_all(feed, 1)
            assert await store.record([Succeeded(second, b"2")]) == [True]
            assert len(await store.dead_letters(ALL)) == 1

    run(scenario())


@pytest.mark.serial
def test_waiting_taker_gets_a_replayed_task_at_once_and_its_waiter_the_new_end(run, open_replaying, make_task, begin):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a"))
            dead_id = await failing(queue, store, first)
            taker = asyncio.create_task(feed.take(1))
            await asyncio.wait([taker], timeout=0.1)
            began = time.monotonic()
            await queue.replay([dead_id])
            (second,) = await taker
            assert time.monotonic() - began < 2.0
            waiter = asyncio.create_task(store.wait_finished("a", 20.0))
            await asyncio.wait([waiter], timeout=0.1)
            assert not waiter.done()
            await store.record([Succeeded(second, b"1")])
            assert (await waiter).result == b"1"

    run(scenario())


def test_replayed_task_can_be_cancelled_before_it_runs(run, open_replaying, make_task, begin):
    async def scenario():
        async with open_replaying() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a"))
            dead_id = await failing(queue, store, first)
            await feed.set_prefetch(0)
            await queue.replay([dead_id])
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            assert await queue.replay([dead_id]) == [DeadAnswer.ALREADY_REPLAYED]
            assert await store.cancel("a") is CancelAnswer.FINISHED

    run(scenario())


def test_any_number_of_dead_letters_is_one_call(run, open_replaying, make_delivery):
    async def scenario():
        async with open_replaying() as (queue, store):
            await store.record([Failed(make_delivery(f"t{n}"), FailureCode.TIMEOUT, "slow") for n in range(150)])
            ids = [line.dead_id for line in await store.dead_letters(limit=150)]
            assert await queue.replay(ids[:100]) == [REPLAYED] * 100
            assert await store.discard(ids[50:]) == [DeadAnswer.ALREADY_REPLAYED] * 50 + [DeadAnswer.DISCARDED] * 50
            (counts,) = await store.counts()
            assert counts.by_state == {TaskState.QUEUED: 100, TaskState.FAILED: 50}
            assert not await store.dead_letters()

    run(scenario())


@pytest.mark.parametrize("is_dropped", [False, True], ids=["row", "no row"])
def test_replayed_task_of_a_group_is_claimed_in_its_group_s_turn(
    run, open_replaying_in_turn, make_task, begin, take_all, is_dropped
):
    async def scenario():
        async with open_replaying_in_turn() as (queue, store):
            feed, (first,) = await begin(queue, make_task("b0", group="b", expires_at=time.time() + 60))
            dead_id = await failing(queue, store, first)
            await feed.set_prefetch(0)
            if is_dropped:
                assert await store.purge(time.time() + 60, 10) == 1
            await queue.publish([make_task(f"a{n}", group="a") for n in range(3)])
            assert await queue.replay([dead_id]) == [REPLAYED]
            row = await store.get("b0")
            assert (row.state, row.group, row.attempt, row.replays) == (TaskState.QUEUED, "b", 2, 1)
            await feed.set_prefetch(1)
            order = []
            for _ in range(4):
                (taken,) = await take_all(feed, 1)
                order.append((taken.id, taken.group, taken.attempt))
                assert await store.record([Succeeded(taken, b"1")]) == [True]
                await queue.ack([taken])
            assert order == [("a0", "a", 1), ("b0", "b", 2), ("a1", "a", 1), ("a2", "a", 1)]

    run(scenario())


@pytest.mark.parametrize("is_dropped", [False, True], ids=["row", "no row"])
def test_replayed_task_that_was_late_once_starts_at_once(
    run, open_replaying_in_turn, make_task, begin, take_all, is_dropped
):
    async def scenario():
        async with open_replaying_in_turn() as (queue, store):
            feed, (first,) = await begin(queue, make_task("a", not_before=time.time() + 1))
            dead_id = await failing(queue, store, first)
            if is_dropped:
                assert await store.purge(time.time() + 60, 10) == 1
            assert await queue.replay([dead_id]) == [REPLAYED]
            (again,) = await take_all(feed, 1, 8)
            assert (again.id, again.group, again.attempt) == ("a", None, 2)

    run(scenario())
