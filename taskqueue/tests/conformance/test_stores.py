"""What every task store does. Rows come from records alone; no queue is looked at."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runnerlib.contract import FailureCode, HistoryEntry, TaskState, strict_json
from taskqueue import tasks
from taskqueue.tasks import CancelAnswer, Cancelled, Failed, Placement, Retrying, Succeeded, TaskFilter


def retrying(delivery, seconds=60.0, **more):
    return Retrying(delivery, FailureCode.HANDLER_ERROR, "no luck", time.time() + seconds, **more)


def test_unknown_task_is_nothing(run, open_store):
    async def scenario():
        async with open_store() as store:
            assert await store.get("a") is None
            assert await store.lookup([]) == {}
            assert await store.lookup(["a", "b"]) == {}
            assert await store.wait_finished("a", 0.05) is None
            assert await store.record([]) == []
            assert await store.cancel_requested([]) == set()
            await store.place([])
            await store.report_progress([])

    run(scenario())


def test_success_is_kept_with_its_result(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            before = time.time()
            delivery = make_delivery("a", reply_to="answers", correlation_id="c-1")
            assert await store.record([Succeeded(delivery, b'{"n":"\xc3\xa4"}', runner="text-1")]) == [True]
            row = await store.get("a")
            assert (row.state, row.result, row.runner, row.attempt) == (
                TaskState.SUCCEEDED,
                b'{"n":"\xc3\xa4"}',
                "text-1",
                1,
            )
            assert (row.payload, row.digest, row.algorithm) == (delivery.payload, delivery.digest, "upper")
            assert (row.reply_to, row.correlation_id) == ("answers", "c-1")
            assert before - 1 <= row.finished_at <= time.time() + 1
            assert row.error_code is None
            assert row.history == ()

    run(scenario())


def test_rows_that_forbid_a_start_are_found(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            ended, cancelled, placed, failed, running, other = map(make_delivery, ("e", "c", "p", "f", "r", "o"))
            place = [(each, Placement(each.id, 1, "text-1", "boot-1")) for each in (placed, running)]
            await store.place(place)
            await store.record([Succeeded(ended, b"1"), retrying(failed), retrying(other)])
            await store.cancel("c")
            await store.cancel("r")
            again = replace(failed, attempt=2)
            conflicting = replace(other, digest="another")
            found = await store.rows_that_forbid_start(
                [ended, cancelled, placed, again, running, conflicting, make_delivery("n")]
            )
            assert found.keys() == {"e", "c", "p", "f", "r", "o"}
            assert {row.id: row for row in found.values()} == await store.lookup(["e", "c", "p", "f", "r", "o"])
            assert await store.rows_that_forbid_start([]) == {}

    run(scenario())


def test_first_terminal_state_wins(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            delivery = make_delivery("a")
            assert await store.record([Succeeded(delivery, b"1"), Succeeded(delivery, b"2")]) == [True, False]
            late = [
                Failed(delivery, FailureCode.TIMEOUT, "late"),
                Cancelled(delivery),
                retrying(delivery),
                Succeeded(make_delivery("a", attempt=9), b"3"),
            ]
            assert await store.record(late) == [False] * 4
            assert (await store.get("a")).result == b"1"
            assert not await store.dead_letters()

    run(scenario())


def test_lower_attempt_is_fenced_off(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            assert await store.record([retrying(make_delivery("a"))]) == [True]
            assert await store.record([Succeeded(make_delivery("a"), b"1")]) == [False]
            assert await store.record([retrying(make_delivery("a"))]) == [False], "the same retry twice"
            row = await store.get("a")
            assert (row.state, row.attempt, len(row.history)) == (TaskState.RETRYING, 2, 1)
            assert await store.record([Succeeded(make_delivery("a", attempt=2), b"1")]) == [True]
            row = await store.get("a")
            assert (row.state, row.attempt, row.error_code) == (TaskState.SUCCEEDED, 2, None)
            assert len(row.history) == 1

    run(scenario())


def test_many_records_are_one_commit_and_each_gets_its_verdict(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Succeeded(make_delivery("t3"), b"1")])
            records = [
                Succeeded(make_delivery("t0"), b"0"),
                Failed(make_delivery("t1"), FailureCode.HANDLER_ERROR, "broken"),
                Cancelled(make_delivery("t2")),
                Succeeded(make_delivery("t3"), b"3"),
                retrying(make_delivery("t4")),
                Succeeded(make_delivery("t4", attempt=2), b"4"),
            ]
            assert await store.record(records) == [True, True, True, False, True, True]
            rows = await store.lookup([f"t{n}" for n in range(6)])
            assert {task_id: row.state.value for task_id, row in rows.items()} == {
                "t0": "succeeded",
                "t1": "failed",
                "t2": "cancelled",
                "t3": "succeeded",
                "t4": "succeeded",
            }

    run(scenario())


def test_failure_writes_a_dead_letter_with_everything(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            past = HistoryEntry(
                attempt=1,
                code=FailureCode.TIMEOUT,
                message="took 2 s",
                runner="text-1",
                at=datetime(2026, 1, 2, tzinfo=UTC),
            )
            last = past.model_copy(update={"attempt": 2, "code": FailureCode.RUNNER_LOST})
            delivery = make_delivery("a", attempt=2, headers={"x-from": "a test"})
            failed = Failed(
                delivery,
                FailureCode.RUNNER_LOST,
                "gone",
                traceback="Traceback …",
                history=(past, last),
                runner="text-2",
            )
            assert await store.record([failed]) == [True]
            row = await store.get("a")
            assert (row.state, row.error_code, row.error_message) == (TaskState.FAILED, FailureCode.RUNNER_LOST, "gone")
            assert row.history == (past, last)
            (line,) = await store.dead_letters()
            letter = await store.dead_letter(line.dead_id)
            assert (letter.task_id, letter.algorithm, letter.code) == ("a", "upper", FailureCode.RUNNER_LOST)
            assert (letter.message, letter.traceback) == ("gone", "Traceback …")
            assert letter.history == (past, last)
            assert letter.headers == {"x-from": "a test"}
            body = strict_json.loads(letter.body)
            assert (body["algorithm"], body["payload"]) == ("upper", {"text": "a"})
            assert letter.replayed_at is None
            assert letter.discarded_at is None

    run(scenario())


def test_history_grows_by_itself_when_a_record_brings_none(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"), runner="text-1")])
            await store.record([Failed(make_delivery("a", attempt=2), FailureCode.TIMEOUT, "slow")])
            row = await store.get("a")
            assert [(entry.attempt, entry.code, entry.runner) for entry in row.history] == [
                (1, FailureCode.HANDLER_ERROR, "text-1"),
                (2, FailureCode.TIMEOUT, None),
            ]

    run(scenario())


def test_why_tasks_wait_is_shown_for_those_that_do(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a")), Succeeded(make_delivery("b"), b"1")])
            await store.note_waiting({"upper": "no runner can be reached", "other": "busy"}, [])
            rows = await store.lookup(["a", "b"])
            assert {name: row.pending_reason for name, row in rows.items()} == {
                "a": "no runner can be reached",
                "b": None,
            }
            assert (await store.get("a")).pending_reason == "no runner can be reached"
            page = await store.list_tasks(TaskFilter())
            assert {each.id: each.pending_reason for each in page} == {"a": "no runner can be reached", "b": None}
            await store.note_waiting({"upper": "none takes tasks"}, ["other"])
            assert (await store.get("a")).pending_reason == "none takes tasks"
            await store.note_waiting({}, ["upper"])
            assert (await store.get("a")).pending_reason is None

    run(scenario())


def test_notes_of_a_controller_that_is_gone_are_not_shown(run, open_store, make_delivery, monkeypatch):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            await store.note_waiting({"upper": "no runner can be reached"}, [])

            async def shown():
                (listed,) = await store.list_tasks(TaskFilter())
                return {
                    (await store.get("a")).pending_reason,
                    (await store.lookup(["a"]))["a"].pending_reason,
                    listed.pending_reason,
                }

            assert await shown() == {"no runner can be reached"}
            with monkeypatch.context() as patch:
                patch.setattr(tasks, "NOTE_SECONDS", -10.0)
                assert await shown() == {None}, "each read asks anew what is too old"
            assert await shown() == {"no runner can be reached"}

    run(scenario())


def test_dead_letters_are_listed_newest_first_in_pages(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            for n in range(5):
                await store.record([Failed(make_delivery(f"t{n}"), FailureCode.HANDLER_ERROR, "broken")])
            page = await store.dead_letters(limit=2)
            assert [letter.task_id for letter in page] == ["t4", "t3"]
            rest = await store.dead_letters(limit=3, before=page.next)
            assert [letter.task_id for letter in rest] == ["t2", "t1", "t0"]
            assert rest.next is None

    run(scenario())


@pytest.mark.parametrize("text", ["nul \x00 byte", "half \ud83d pair", "ä\U0001f600\n\r\x1b[31m", "x" * 100_000])
def test_any_text_can_be_recorded(run, open_store, make_delivery, text):
    async def scenario():
        async with open_store() as store:
            failed = Failed(make_delivery("a"), FailureCode.HANDLER_ERROR, text, traceback=text, runner=text)
            assert await store.record([failed, retrying(make_delivery("b"), runner=text)]) == [True, True]
            await store.place([(make_delivery("b", attempt=2), Placement("b", 2, text, text))])
            await store.report_progress([("b", 2, 0.5, text)])
            rows = await store.lookup(["a", "b"])
            assert len(rows["a"].error_message) == len(text)
            assert len(rows["b"].progress.message) == len(text)
            assert len(await store.dead_letters()) == 1

    run(scenario())


def test_placement_marks_the_task_running(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            placement = Placement(id="a", attempt=2, runner="text-1", boot="b0")
            await store.place([(make_delivery("a", attempt=2), placement)])
            row = await store.get("a")
            assert (row.state, row.placement, row.runner) == (TaskState.RUNNING, placement, "text-1")
            await store.place([(make_delivery("a", attempt=1), Placement("a", 1, "text-0", "b9"))])
            assert (await store.get("a")).placement == placement, "a lower attempt is fenced off"
            await store.place([(make_delivery("a", attempt=2), Placement("a", 2, "text-1", ""))])
            assert (await store.get("a")).placement is None, "an empty boot id takes it back"
            await store.place([(make_delivery("a", attempt=2), placement)])
            await store.record([retrying(make_delivery("a", attempt=2))])
            row = await store.get("a")
            assert (row.state, row.attempt, row.placement) == (TaskState.RETRYING, 3, None)
            await store.record([Succeeded(make_delivery("a", attempt=3), b"1")])
            await store.place([(make_delivery("a", attempt=3), Placement("a", 3, "text-1", "b0"))])
            assert (await store.get("a")).state is TaskState.SUCCEEDED

    run(scenario())


def test_progress_is_kept_for_the_current_attempt_only(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.report_progress([("nobody", 1, 0.5, "")])
            await store.record([retrying(make_delivery("a"))])
            await store.report_progress([("a", 2, 0.25, "a quarter"), ("a", 1, 0.9, "stale")])
            row = await store.get("a")
            assert (row.progress.fraction, row.progress.message) == (0.25, "a quarter")
            await store.record([retrying(make_delivery("a", attempt=2))])
            assert (await store.get("a")).progress is None

    run(scenario())


def test_cancel_of_an_unseen_task_leaves_a_tombstone(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            assert await store.cancel("a") is CancelAnswer.FINISHED
            assert (await store.get("a")).state is TaskState.CANCELLED
            assert await store.record([Succeeded(make_delivery("a"), b"1")]) == [False]

    run(scenario())


def test_cancel_between_attempts_ends_the_task(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            row = await store.get("a")
            assert row.state is TaskState.CANCELLED
            assert row.finished_at is not None

    run(scenario())


def test_cancel_of_a_running_task_is_a_mark(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a")), retrying(make_delivery("b"))])
            for task_id in "ab":
                await store.place([(make_delivery(task_id, attempt=2), Placement(task_id, 2, "text-1", "b0"))])
            assert await store.cancel("a") is CancelAnswer.REQUESTED
            assert await store.cancel("a") is CancelAnswer.REQUESTED
            assert await store.cancel_requested(["a", "b", "c"]) == {"a"}
            assert (await store.get("a")).cancel_requested
            assert await store.record([Succeeded(make_delivery("a", attempt=2), b"1")]) == [True]
            assert await store.cancel("a") is CancelAnswer.FINISHED

    run(scenario())


def test_waiters_get_the_row_as_soon_as_it_ends(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            waiters = [asyncio.create_task(store.wait_finished("a", 20.0)) for _ in range(5)]
            await asyncio.wait(waiters, timeout=0.1)
            began = time.monotonic()
            await store.record([Succeeded(make_delivery("a", attempt=2), b"1")])
            rows = await asyncio.gather(*waiters)
            assert time.monotonic() - began < 5.0
            assert [row.result for row in rows] == [b"1"] * 5
            assert (await store.wait_finished("a", 20.0)).result == b"1"

    run(scenario())


def test_waiter_gets_the_unfinished_row_when_its_time_is_over(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            row = await store.wait_finished("a", 0.05)
            assert row.state is TaskState.RETRYING
            assert (await store.wait_finished("a", 0.0)).state is TaskState.RETRYING

    run(scenario())


def test_waiter_for_an_id_that_nobody_knows_yet_gets_its_task(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            assert await store.wait_finished("a", 0.0) is None
            waiter = asyncio.create_task(store.wait_finished("a", 20.0))
            await asyncio.wait([waiter], timeout=0.1)
            assert not waiter.done()
            await store.record([Succeeded(make_delivery("a"), b"1")])
            assert (await waiter).result == b"1"

    run(scenario())


def test_store_that_can_write_says_so(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.check_writing()
            assert await store.counts() == []

    run(scenario())


def test_cancel_wakes_waiters(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([retrying(make_delivery("a"))])
            waiter = asyncio.create_task(store.wait_finished("a", 20.0))
            await asyncio.wait([waiter], timeout=0.05)
            await store.cancel("a")
            assert (await waiter).state is TaskState.CANCELLED

    run(scenario())


def test_counts_are_by_algorithm_and_state(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Succeeded(make_delivery(f"s{n}"), b"1") for n in range(3)])
            await store.record([Failed(make_delivery("f"), FailureCode.TIMEOUT, "slow"), retrying(make_delivery("r"))])
            (counts,) = await store.counts()
            assert counts.algorithm == "upper"
            assert counts.by_state == {TaskState.SUCCEEDED: 3, TaskState.FAILED: 1, TaskState.RETRYING: 1}

    run(scenario())


def test_purge_drops_old_finished_rows_in_batches(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Succeeded(make_delivery(f"s{n}"), b"1") for n in range(5)])
            await store.record([Failed(make_delivery("f"), FailureCode.TIMEOUT, "slow"), retrying(make_delivery("r"))])
            assert await store.purge(time.time() - 60, 100) == 0
            later = time.time() + 60
            assert await store.purge(later, 4) == 4
            assert await store.purge(later, 4) == 2
            assert await store.purge(later, 4) == 0
            assert (await store.get("r")).state is TaskState.RETRYING
            assert len(await store.dead_letters()) == 1, "dead letters stay until they are discarded"

    run(scenario())


def test_lookup_of_many_ids_finds_those_that_are_known(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Succeeded(make_delivery(f"s{n}"), b"1") for n in range(700)])
            rows = await store.lookup([f"s{n}" for n in range(0, 1400, 2)])
            assert sorted(rows) == sorted(f"s{n}" for n in range(0, 700, 2))

    run(scenario())
