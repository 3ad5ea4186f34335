"""Replays when the queue is a broker: the row is revived, the message goes out, the dead letter is marked. Any of the
three may be missing, and several gateways may do so at the same time."""

import asyncio
import time

import pytest

from runnerlib.contract import FailureCode, TaskState
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.errors import QueueUnavailable
from taskqueue.postgres import open_postgres
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import CancelAnswer, DeadAnswer, DeadFilter, Failed, Placement, Published, Revived, Succeeded

REPLAYED, ALREADY = DeadAnswer.REPLAYED, DeadAnswer.ALREADY_REPLAYED


class Wire:
    """Takes every task, like a broker; remembers what was sent."""

    def __init__(self):
        self.sent = []
        self.away = False

    async def publish(self, tasks):
        if self.away:
            raise QueueUnavailable("the broker does not answer")
        self.sent += [(task.id, task.attempt) for task in tasks]
        return [Published.ACCEPTED] * len(tasks)


@pytest.fixture
def fail(make_delivery):
    """Failed tasks; their dead ids, in the same order."""

    async def them(store, *task_ids, **more):
        records = [Failed(make_delivery(each, **more), FailureCode.TIMEOUT, "slow") for each in task_ids]
        assert await store.record(records) == [True] * len(task_ids)
        newest = {line.task_id: line.dead_id for line in list(await store.dead_letters(limit=1000))[::-1]}
        return [newest[task_id] for task_id in task_ids]

    return them


def test_revived_task_is_told_with_all_that_its_message_needs(run, database_url, fail):
    async def scenario():
        async with open_postgres(database_url) as store:
            (dead_id,) = await fail(store, "a", reply_to="answers", correlation_id="c", expires_at=time.time() + 60)
            assert await store.revive([]) == []
            (revived, unknown) = await store.revive([dead_id, dead_id + 1])
            row = await store.get("a")
            assert (revived.answer, unknown) == (REPLAYED, Revived(DeadAnswer.UNKNOWN))
            task = revived.task
            assert (task.id, task.algorithm, task.payload, task.digest) == ("a", "upper", row.payload, row.digest)
            assert (task.attempt, task.expires_at) == (2, None)
            assert (task.reply_to, task.correlation_id) == ("answers", "c")
            assert (row.state, row.attempt, row.replays) == (TaskState.QUEUED, 2, 1)
            assert (await store.dead_letter(dead_id)).replayed_at is None

    run(scenario())


def test_replay_whose_message_did_not_go_out_is_repeated_with_the_same_attempt(run, database_url, fail):
    async def scenario():
        async with open_postgres(database_url) as store:
            wire = Wire()
            queue = RecordedQueue(wire, store)
            ids = await fail(store, "a", "b")
            wire.away = True
            with pytest.raises(QueueUnavailable):
                await queue.replay(ids)
            assert len(await store.dead_letters()) == 2, "nobody has decided on them yet"
            wire.away = False
            assert await queue.replay(ids) == [REPLAYED] * 2
            assert wire.sent == [("a", 2), ("b", 2)]
            assert not await store.dead_letters()
            rows = await store.lookup(["a", "b"])
            assert {(row.attempt, row.replays) for row in rows.values()} == {(2, 1)}
            assert await queue.replay(ids) == [ALREADY] * 2
            assert len(wire.sent) == 2

    run(scenario())


def test_discard_ends_a_task_whose_replay_was_cut_short(run, database_url, fail, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            wire = Wire()
            wire.away = True
            ids = await fail(store, "a", "b")
            with pytest.raises(QueueUnavailable):
                await RecordedQueue(wire, store).replay(ids)
            await store.place([(make_delivery("b", attempt=2), Placement("b", 2, "text-1", "b0"))])
            assert await store.discard(ids) == [DeadAnswer.DISCARDED] * 2
            rows = await store.lookup(["a", "b"])
            assert rows["a"].state is TaskState.CANCELLED, "its message may never have gone out"
            assert rows["b"].state is TaskState.RUNNING, "its message did go out"
            assert await store.purge(time.time() + 60, 10) == 3

    run(scenario())


@pytest.mark.parametrize("meanwhile", ["runs", "succeeded", "failed", "cancelled"])
def test_replay_that_only_lacks_its_mark_is_not_sent_again(run, database_url, fail, make_delivery, meanwhile):
    async def scenario():
        async with open_postgres(database_url) as store:
            wire = Wire()
            (dead_id,) = await fail(store, "a")
            await store.revive([dead_id])
            second = make_delivery("a", attempt=2)
            if meanwhile == "cancelled":
                assert await store.cancel("a") is CancelAnswer.CANCELLED
            elif meanwhile == "runs":
                await store.place([(second, Placement("a", 2, "text-1", "b0"))])
            else:
                record = (
                    Failed(second, FailureCode.TIMEOUT, "slow") if meanwhile == "failed" else Succeeded(second, b"1")
                )
                assert await store.record([record]) == [True]
            before = await store.get("a")
            assert await RecordedQueue(wire, store).replay([dead_id]) == [ALREADY]
            assert wire.sent == []
            assert await store.get("a") == before
            assert (await store.dead_letter(dead_id)).replayed_at is not None
            assert len(await store.dead_letters()) == (meanwhile == "failed")

    run(scenario())


def test_begun_replay_whose_row_retention_dropped_goes_on_counting(run, database_url, fail):
    async def scenario():
        async with open_postgres(database_url) as store:
            wire = Wire()
            (dead_id,) = await fail(store, "a", attempt=4)
            await store.revive([dead_id])
            await store.cancel("a")
            assert await store.purge(time.time() + 60, 10) == 1
            assert await RecordedQueue(wire, store).replay([dead_id]) == [REPLAYED]
            assert wire.sent == [("a", 5)]

    run(scenario())


def test_gateways_that_replay_the_same_at_once_agree_on_one_attempt(run, database_url, fail):
    async def scenario():
        async with open_postgres(database_url) as first, open_postgres(database_url) as second:
            names = [f"t{n}" for n in range(60)]
            ids = await fail(first, *names)
            assert await first.purge(time.time() + 60, 20) == 20
            wire = Wire()
            orders = [ids, ids[::-1], ids[30:] + ids[:30]]
            answers = await asyncio.gather(
                *(RecordedQueue(wire, store).replay(order) for store in (first, second) for order in orders)
            )
            assert {answer for call in answers for answer in call} <= {REPLAYED, ALREADY}
            assert {attempt for _, attempt in wire.sent} == {2}
            assert {task_id for task_id, _ in wire.sent} == set(names)
            rows = await first.lookup(names)
            assert {(row.state, row.attempt, row.replays) for row in rows.values()} == {(TaskState.QUEUED, 2, 1)}
            assert not await first.dead_letters()

    run(scenario())


def test_two_dead_letters_of_a_dropped_task_are_told_apart_also_between_gateways(run, database_url, fail):
    async def scenario():
        async with open_postgres(database_url) as first, open_postgres(database_url) as second:
            for n in range(20):
                (old,) = await fail(first, f"t{n}")
                await first.purge(time.time() + 60, 10)
                (new,) = await fail(first, f"t{n}")
                await first.purge(time.time() + 60, 10)
                wires = [Wire(), Wire()]
                calls = zip(wires, (first, second), (old, new), strict=True)
                both = await asyncio.gather(*(RecordedQueue(w, store).replay([i]) for w, store, i in calls))
                assert sorted(answer.value for (answer,) in both) == ["not_failed", "replayed"]
                assert [sent for wire in wires for sent in wire.sent] == [(f"t{n}", 2)]

    run(scenario())


def test_outcome_discard_and_replay_at_the_same_time_leave_one_story(run, database_url, fail, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as first, open_postgres(database_url) as second:
            names = [f"t{n}" for n in range(100)]
            ids = await fail(first, *names)
            wire = Wire()
            late = [Succeeded(make_delivery(name), b"1") for name in names]
            replayed, discarded, written = await asyncio.gather(
                RecordedQueue(wire, first).replay(ids), second.discard(ids[::-1]), second.record(late)
            )
            assert written == [False] * 100, "the outcome of an attempt that had failed before"
            letters = {
                line.dead_id: line for line in await first.dead_letters(DeadFilter(waiting_only=False), limit=200)
            }
            for dead_id, answer in zip(ids, replayed, strict=True):
                assert (letters[dead_id].replayed_at is not None) == (answer is REPLAYED)
            for dead_id, answer in zip(ids[::-1], discarded, strict=True):
                assert (letters[dead_id].discarded_at is not None) == (answer is DeadAnswer.DISCARDED)
            assert not await first.dead_letters()

    run(scenario())


def test_task_that_no_broker_takes_is_not_revived(run, database_url, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            body = b'{"algorithm": "upper", "payload": "' + b"x" * (MAX_MESSAGE_BYTES + 10) + b'"}'
            await store.record([Failed(make_delivery("a", body=body), FailureCode.TIMEOUT, "slow")])
            (line,) = await store.dead_letters()
            assert await store.revive([line.dead_id]) == [Revived(DeadAnswer.NOT_REPLAYABLE)]
            assert (await store.get("a")).state is TaskState.FAILED

    run(scenario())
