"""What only a store does that other processes share: two stores on one database stand for two processes."""

import asyncio
import random
import time
from dataclasses import replace

import psycopg
import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.clock import Clock
from taskqueue.postgres import open_postgres
from taskqueue.postgres.writer import PostgresHooks
from taskqueue.sql.errors import sqlstate
from taskqueue.tasks import CancelAnswer, Cancelled, Failed, Placement, Published, Retrying, Succeeded


def retrying(delivery, seconds=60.0, **more):
    return Retrying(delivery, FailureCode.HANDLER_ERROR, "no luck", time.time() + seconds, **more)


def test_admitted_task_is_queued_and_known(run, database_url, make_task):
    async def scenario():
        async with open_postgres(database_url) as store:
            task = make_task("a", expires_at=99.5, reply_to="answers", correlation_id="c")
            assert await store.admit([task, make_task("b")]) == [Published.ACCEPTED] * 2
            row = await store.get("a")
            assert (row.state, row.attempt, row.payload, row.digest) == (TaskState.QUEUED, 1, task.payload, task.digest)
            assert (row.expires_at, row.reply_to, row.correlation_id) == (99.5, "answers", "c")
            (counts,) = await store.counts()
            assert counts.by_state == {TaskState.QUEUED: 2}
            assert counts.oldest_waiting_at == row.created_at

    run(scenario())


def test_admitting_known_ids_tells_the_same_from_another(run, database_url, make_task):
    async def scenario():
        async with open_postgres(database_url) as store:
            first, other = make_task("a"), make_task("a", payload={"text": "other"})
            assert await store.admit([]) == []
            verdicts = await store.admit([first, first, other, make_task("b")])
            assert verdicts == [Published.ACCEPTED, Published.DUPLICATE, Published.CONFLICT, Published.ACCEPTED]
            verdicts = await store.admit([other, first, make_task("c")])
            assert verdicts == [Published.CONFLICT, Published.DUPLICATE, Published.ACCEPTED]
            assert (await store.get("a")).payload == first.payload

    run(scenario())


def test_outcome_of_another_task_under_the_same_id_changes_nothing(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            await store.admit([make_task("a")])
            task = make_task("a", payload={"text": "other"})
            other = replace(make_delivery("a"), payload=task.payload, digest=task.digest)
            failed = Failed(other, FailureCode.HANDLER_ERROR, "broken")
            others = [Succeeded(other, b"1"), failed, retrying(other), Cancelled(other)]
            assert await store.record(others) == [False] * 4
            await store.place([(other, Placement("a", 1, "r", "boot"))])
            row = await store.get("a")
            assert (row.state, row.attempt, row.placement) == (TaskState.QUEUED, 1, None)
            assert not await store.dead_letters()
            assert await store.record([Succeeded(make_delivery("a"), b"2")]) == [True]

    run(scenario())


def test_task_of_a_tombstone_stays_cancelled_and_gets_its_content(run, database_url, make_task):
    async def scenario():
        async with open_postgres(database_url) as store:
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            assert await store.admit([make_task("a")]) == [Published.DUPLICATE]
            row = await store.get("a")
            assert (row.state, row.algorithm, row.digest) == (TaskState.CANCELLED, "upper", make_task("a").digest)
            assert await store.admit([make_task("a", payload=1)]) == [Published.CONFLICT]

    run(scenario())


def test_outcome_is_never_lost_to_an_admission_that_comes_at_the_same_time(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            for first in range(0, 600, 20):
                ids = [f"t{n}" for n in range(first, first + 20)]
                admissions = asyncio.gather(*(gateway.admit([make_task(task_id)]) for task_id in ids))
                records = [
                    Succeeded(make_delivery(task_id), b"1")
                    if n % 3
                    else Failed(make_delivery(task_id), FailureCode.HANDLER_ERROR, "broken")
                    for n, task_id in enumerate(ids)
                ]
                written = await asyncio.gather(*(controller.record([record]) for record in records))
                await admissions
                assert written == [[True]] * 20
            rows = await gateway.lookup([f"t{n}" for n in range(600)])
            assert {row.state for row in rows.values()} == {TaskState.SUCCEEDED, TaskState.FAILED}
            assert len(rows) == 600

    run(scenario())


def test_same_outcome_recorded_by_two_processes_is_written_once(run, database_url, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as first, open_postgres(database_url) as second:
            ids = [f"t{n}" for n in range(1000)]

            async def record_all(store, seed):
                order = random.Random(seed).sample(ids, len(ids))
                parts = [order[start : start + 100] for start in range(0, len(order), 100)]
                answers = await asyncio.gather(
                    *(store.record([outcome(make_delivery(task_id)) for task_id in part]) for part in parts)
                )
                done = [ok for answer in answers for ok in answer]
                return {task_id for task_id, ok in zip(order, done, strict=True) if ok}

            def outcome(delivery):
                if int(delivery.id[1:]) % 2:
                    return Failed(delivery, FailureCode.HANDLER_ERROR, "broken")
                return Succeeded(delivery, b"1")

            ours, theirs = await asyncio.gather(record_all(first, 1), record_all(second, 2))
            assert ours | theirs == set(ids)
            assert ours & theirs == set()
            assert len(await first.dead_letters(limit=2000)) == 500

    run(scenario())


def test_transaction_that_loses_a_deadlock_is_repeated(
    run, database_url, ask, eventually, make_delivery, make_task, monkeypatch
):
    seen = []
    usual = PostgresHooks.repeat_after

    def repeat_after(hooks, error, stage, times):
        seen.append(sqlstate(error.orig))
        return usual(hooks, error, stage, times)

    monkeypatch.setattr(PostgresHooks, "repeat_after", repeat_after)

    async def scenario():
        async with open_postgres(database_url) as store:
            await store.admit([make_task("a"), make_task("b")])
            with psycopg.connect(database_url) as other:
                other.execute("SET deadlock_timeout = '60s'")
                other.execute("UPDATE tasks SET runner = 'other' WHERE id = 'b'")
                both = [Succeeded(make_delivery("a"), b"1"), Succeeded(make_delivery("b"), b"1")]
                recording = asyncio.create_task(store.record(both))
                await eventually(lambda: ask("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
                await asyncio.to_thread(other.execute, "UPDATE tasks SET runner = 'other' WHERE id = 'a'")
                other.commit()
            assert await recording == [True, True]
            assert seen == ["40P01"]

    run(scenario())


def test_fence_holds_between_processes(run, database_url, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as first, open_postgres(database_url) as second:
            assert await first.record([retrying(make_delivery("a"))]) == [True]
            await second.place([(make_delivery("a", attempt=2), Placement("a", 2, "text-1", "b0"))])
            await first.place([(make_delivery("a", attempt=1), Placement("a", 1, "text-0", "b9"))])
            assert (await first.get("a")).placement == Placement("a", 2, "text-1", "b0")
            late = [Succeeded(make_delivery("a"), b"0"), Cancelled(make_delivery("a"))]
            assert await first.record(late) == [False, False]
            assert await second.record([Succeeded(make_delivery("a", attempt=2), b"1")]) == [True]
            assert (await first.get("a")).result == b"1"

    run(scenario())


def test_reason_of_a_retry_is_written_once_though_the_next_attempt_runs_already(run, database_url, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            await store.place([(make_delivery("a", attempt=2), Placement("a", 2, "text-1", "b0"))])
            late = retrying(make_delivery("a"))
            assert await store.record([late]) == [True]
            assert await store.record([late]) == [False]
            row = await store.get("a")
            assert (row.state, row.attempt, row.error_code) == (TaskState.RUNNING, 2, FailureCode.HANDLER_ERROR)
            assert [entry.attempt for entry in row.history] == [1]
            assert row.placement is not None

    run(scenario())


def test_running_task_that_a_gateway_admitted_is_only_marked_by_cancel(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            await gateway.admit([make_task("a"), make_task("b")])
            await controller.place([(make_delivery("a"), Placement("a", 1, "text-1", "b0"))])
            assert await gateway.cancel("a") is CancelAnswer.REQUESTED
            assert await gateway.cancel("b") is CancelAnswer.CANCELLED
            assert await controller.cancel_requested(["a", "b", "c"]) == {"a", "b"}
            (counts,) = await gateway.counts()
            assert counts.by_state == {TaskState.RUNNING: 1, TaskState.CANCELLED: 1}
            assert counts.oldest_waiting_at is None

    run(scenario())


def test_cancel_says_finished_only_of_what_has_ended(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:

            async def live(task_id):
                if task_id.endswith("0"):
                    await gateway.admit([make_task(task_id)])
                await controller.place([(make_delivery(task_id), Placement(task_id, 1, "text-1", "b0"))])
                await controller.record([retrying(make_delivery(task_id))])
                await controller.place([(make_delivery(task_id, attempt=2), Placement(task_id, 2, "text-1", "b0"))])
                if task_id.endswith(("1", "2")):
                    await controller.record([Succeeded(make_delivery(task_id, attempt=2), b"1")])

            async def cancel(task_id, tries):
                for _ in range(tries):
                    answer = await gateway.cancel(task_id)
                    if answer is CancelAnswer.FINISHED:
                        assert (await gateway.get(task_id)).state.is_terminal
                    if answer is CancelAnswer.CANCELLED:
                        assert (await gateway.get(task_id)).state is TaskState.CANCELLED

            ids = [f"t{n}" for n in range(100)]
            await asyncio.gather(*(live(task_id) for task_id in ids), *(cancel(task_id, 4) for task_id in ids))
            rows = await gateway.lookup(ids)
            assert all(row.state.is_terminal or row.cancel_requested for row in rows.values())
            assert len(rows) == 100

    run(scenario())


def test_task_that_expired_in_the_broker_is_swept_after_a_while(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            now = time.time()
            times = {"now": now - 1, "long-ago": now - 60, "later": now + 60, "runs": now - 60, "again": now - 50}
            await store.admit([make_task(task_id, expires_at=at) for task_id, at in times.items()])
            await store.admit([make_task("never")])
            await store.place([(make_delivery("runs"), Placement("runs", 1, "text-1", "b0"))])
            await store.record([retrying(make_delivery("again"), 500.0)])
            swept = await store.sweep({"upper"}, now + 1000, 10)
            assert [(each.id, each.attempt, each.receipt) for each in swept] == [
                ("long-ago", 1, None),
                ("again", 2, None),
            ]
            assert swept[0].expires_at == times["long-ago"]
            assert swept[0].payload == make_task("long-ago").payload
            assert len(await store.sweep((), now + 1000, 1)) == 1
            assert await store.record([Failed(each, FailureCode.EXPIRED, "too late") for each in swept]) == [True] * 2
            assert await store.sweep((), now + 1000, 10) == []

    run(scenario())


def test_task_that_began_just_in_time_does_not_expire_before_its_run_is_placed(
    run, database_url, make_task, make_delivery
):
    """For its first second a run has a row that says it waits."""

    async def scenario():
        async with open_postgres(database_url) as store:
            begun_at = time.time()
            # 2 s: the second after which runs are placed, and one more for whoever places them
            await store.admit([make_task(task_id, expires_at=begun_at - 2) for task_id in ("placed", "handed-back")])
            assert await store.sweep({"upper"}, begun_at, 10) == []
            runs = [(make_delivery(i), Placement(i, 1, "text-1", "b0")) for i in ("placed", "handed-back")]
            await store.place(runs)
            await store.place([(make_delivery("handed-back"), Placement("handed-back", 1, "", ""))])
            later = Clock(wall=lambda: begun_at + 3600)
        async with open_postgres(database_url, clock=later) as store:
            assert [each.id for each in await store.sweep({"upper"}, begun_at, 10)] == ["handed-back"]

    run(scenario())


def test_text_that_a_stranger_sends_cannot_stop_a_record(run, database_url, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            delivery = make_delivery("a", reply_to="nul\x00", correlation_id="\ud800", headers={"x": "\x00"})
            strange = [
                Failed(delivery, FailureCode.MALFORMED, "nul \x00"),
                Failed(make_delivery("b", body=b"\x00\xff"), FailureCode.UNKNOWN_ALGORITHM, "?"),
            ]
            object.__setattr__(strange[1].delivery, "algorithm", "x" * 500 + "\x00")
            assert await store.record(strange) == [True, True]
            assert (await store.get("b")).algorithm == "x" * 63
            assert {(await store.dead_letter(line.dead_id)).body for line in await store.dead_letters()} >= {
                b"\x00\xff"
            }

    run(scenario())


@pytest.mark.parametrize("count", [1, 2, 127, 128, 5000])
def test_any_number_of_records_is_one_call(run, database_url, make_delivery, count):
    async def scenario():
        async with open_postgres(database_url) as store:
            records = [Succeeded(make_delivery(f"t{n}"), b"1") for n in range(count)]
            assert await store.record(records) == [True] * count
            assert len(await store.lookup([f"t{n}" for n in range(count)])) == count

    run(scenario())


def test_large_tasks_are_written_in_portions_of_one_transaction(run, database_url, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            payload, result = "x" * 1_500_000, b'"' + b"y" * 1_500_000 + b'"'
            tasks = [make_task(f"t{n}", payload={"text": payload}) for n in range(8)]
            assert await store.admit(tasks) == [Published.ACCEPTED] * 8
            deliveries = [replace(make_delivery(each.id), payload=each.payload, digest=each.digest) for each in tasks]
            assert await store.record([Succeeded(each, result) for each in deliveries]) == [True] * 8
            rows = await store.lookup([task.id for task in tasks])
            assert {(row.payload, row.result) for row in rows.values()} == {(tasks[0].payload, result)}
            assert len({row.finished_at for row in rows.values()}) == 1

    run(scenario())
