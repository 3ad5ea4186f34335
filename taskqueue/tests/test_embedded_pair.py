"""Queue and store of one kind together: the row is the queue entry."""

import time

from runnerlib.contract import FailureCode, TaskState
from taskqueue.tasks import CancelAnswer, Failed, Placement, Published, Retrying, Succeeded


def test_same_id_and_content_is_one_task(run, open_pair, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_pair() as (queue, store):
            task = make_task("a")
            assert await queue.publish([task, task]) == [Published.ACCEPTED, Published.DUPLICATE]
            assert await queue.publish([task, make_task("b")]) == [Published.DUPLICATE, Published.ACCEPTED]
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            taken = await take_all(feed, 2)
            await store.record([Succeeded(delivery, b"1") for delivery in taken])
            await queue.ack(taken)
            assert await queue.publish([task]) == [Published.DUPLICATE]
            assert await comes_nothing(feed)

    run(scenario())


def test_same_id_with_other_content_is_a_conflict(run, open_pair, make_task):
    async def scenario():
        async with open_pair() as (queue, store):
            first, other = make_task("a"), make_task("a", payload={"text": "other"})
            assert await queue.publish([first, other]) == [Published.ACCEPTED, Published.CONFLICT]
            assert await queue.publish([other]) == [Published.CONFLICT]
            assert (await store.get("a")).payload == first.payload

    run(scenario())


def test_task_cancelled_before_it_arrived_never_runs(run, open_pair, make_task, comes_nothing):
    async def scenario():
        async with open_pair() as (queue, store):
            await store.cancel("a")
            task = make_task("a")
            assert await queue.publish([task]) == [Published.DUPLICATE]
            row = await store.get("a")
            assert (row.state, row.algorithm, row.payload) == (TaskState.CANCELLED, "upper", task.payload)
            assert await queue.publish([task]) == [Published.DUPLICATE]
            assert await queue.publish([make_task("a", payload=1)]) == [Published.CONFLICT]
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            assert await comes_nothing(feed)

    run(scenario())


def test_queued_task_is_cancelled_at_once_and_a_running_one_marked(run, open_pair, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            await store.place([(taken[0], Placement("a", 1, "text-1", "b0"))])
            assert await store.cancel("b") is CancelAnswer.CANCELLED
            assert await store.cancel("a") is CancelAnswer.REQUESTED
            await queue.release(taken)
            again = await take_all(feed, 1)
            assert await store.cancel_requested([delivery.id for delivery in again]) == {"a"}
            await queue.ack(again)
            assert await comes_nothing(feed)

    run(scenario())


def test_states_follow_the_task(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            assert (await store.get("a")).state is TaskState.QUEUED
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            assert (await store.get("a")).state is TaskState.QUEUED
            await store.place([(taken[0], Placement("a", 1, "plain-1", ""))])
            assert (await store.get("a")).state is TaskState.RUNNING
            await feed.set_prefetch(0)
            await queue.release(taken)
            assert (await store.get("a")).state is TaskState.QUEUED

    run(scenario())


def test_task_that_is_handed_out_and_not_sent_anywhere_is_cancelled_at_once(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            assert await store.cancel_requested(["a"]) == {"a"}
            assert await store.record([Succeeded(taken[0], b"1")]) == [False]
            await queue.ack(taken)
            assert (await store.get("a")).state is TaskState.CANCELLED

    run(scenario())


def test_task_that_is_handed_out_is_not_swept_and_one_that_is_given_back_is(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, _):
            await queue.publish([make_task("a", expires_at=1.0)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            assert await queue.sweep(["upper"], 0.0, 10) == []
            await feed.set_prefetch(0)
            await queue.release(taken)
            assert [each.id for each in await queue.sweep(["upper"], 0.0, 10)] == ["a"]

    run(scenario())


def test_run_that_was_handed_back_waits_again_and_nobody_is_said_to_have_it(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            await store.place([(taken[0], Placement("a", 1, "text-1", "b0"))])
            await store.place([(taken[0], Placement("a", 1, "", ""))])
            row = await store.get("a")
            assert (row.state, row.runner, row.placement) == (TaskState.QUEUED, None, None)

    run(scenario())


def test_released_task_with_a_placement_stays_running(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            placement = Placement("a", 1, "text-1", "b0")
            await store.place([(taken[0], placement)])
            await feed.set_prefetch(0)
            await queue.release(taken)
            row = await store.get("a")
            assert (row.state, row.placement) == (TaskState.RUNNING, placement)
            await feed.set_prefetch(1)
            assert (await take_all(feed, 1))[0].attempt == 1

    run(scenario())


def test_released_task_whose_placement_was_taken_back_waits_again(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            await store.place([(taken[0], Placement("a", 1, "text-1", "b0"))])
            await store.place([(taken[0], Placement("a", 1, "text-1", ""))])
            await feed.set_prefetch(0)
            await queue.release(taken)
            row = await store.get("a")
            assert (row.state, row.placement) == (TaskState.QUEUED, None)

    run(scenario())


def test_retry_and_its_record_work_in_either_order(run, open_pair, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a"), make_task("b"), make_task("c"), make_task("d")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(8)
            taken = {delivery.id: delivery for delivery in await take_all(feed, 4)}

            def record(task_id: str) -> Retrying:
                return Retrying(taken[task_id], FailureCode.TIMEOUT, "slow", time.time() + 0.2, runner="text-1")

            await queue.retry([taken["a"]], [0.2])
            assert await store.record([record("a")]) == [True]
            assert await store.record([record("a")]) == [False], "the second time it is known"
            assert await store.record([record("b")]) == [True]
            await queue.retry([taken["b"]], [0.2])
            await queue.retry([taken["c"]], [0.2])
            await queue.retry([taken["c"]], [30.0])
            assert await store.record([record("d")]) == [True]
            await queue.ack(list(taken.values()))
            again = await take_all(feed, 4)
            assert sorted((d.id, d.attempt) for d in again) == [("a", 2), ("b", 2), ("c", 2), ("d", 2)]
            assert await comes_nothing(feed)
            rows = await store.lookup(["a", "b", "c"])
            assert [len(rows[task_id].history) for task_id in "abc"] == [1, 1, 0]
            assert rows["a"].error_code is FailureCode.TIMEOUT

    run(scenario())


def test_retry_of_long_ago_comes_back_at_once(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(8)
            first = await take_all(feed, 2)
            assert await store.record([Retrying(first[0], FailureCode.TIMEOUT, "slow", -5.0)]) == [True]
            await queue.retry(first[1:], [-5.0])
            assert len(await take_all(feed, 2, seconds=5)) == 2

    run(scenario())


def test_late_reason_of_a_retry_that_already_runs_again_is_kept(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(8)
            first = await take_all(feed, 1)
            await queue.retry(first, [0.0])
            second = await take_all(feed, 1)
            assert await store.record([Retrying(first[0], FailureCode.TIMEOUT, "slow", time.time())]) == [True]
            await queue.ack(first)
            row = await store.get("a")
            assert (row.state, row.attempt, len(row.history)) == (TaskState.RETRYING, 2, 1)
            assert await store.record([Succeeded(second[0], b"1")]) == [True]
            await queue.ack(second)

    run(scenario())


def test_recorded_task_is_out_of_the_queue_before_it_is_acknowledged(
    run, open_pair, make_task, take_all, comes_nothing
):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2)
            failed = Failed(taken[1], FailureCode.HANDLER_ERROR, "broken")
            assert await store.record([Succeeded(taken[0], b"1"), failed]) == [True, True]
            await queue.release(taken)
            await queue.retry(taken, [0.0, 0.0])
            assert await comes_nothing(feed)
            assert {row.state for row in (await store.lookup(["a", "b"])).values()} == {
                TaskState.SUCCEEDED,
                TaskState.FAILED,
            }

    run(scenario())


def test_task_acknowledged_without_an_outcome_is_cancelled(run, open_pair, make_task, take_all):
    async def scenario():
        async with open_pair() as (queue, store):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            await queue.ack(await take_all(feed, 1))
            row = await store.wait_finished("a", 1.0)
            assert row.state is TaskState.CANCELLED

    run(scenario())


def test_counts_tell_since_when_the_oldest_waits(run, open_pair, make_task):
    async def scenario():
        async with open_pair() as (queue, store):
            before = time.time()
            await queue.publish([make_task("a"), make_task("b"), make_task("c", "lower")])
            counts = {count.algorithm: count for count in await store.counts()}
            assert counts["upper"].by_state == {TaskState.QUEUED: 2}
            assert before - 1 <= counts["upper"].oldest_waiting_at <= time.time()

    run(scenario())
