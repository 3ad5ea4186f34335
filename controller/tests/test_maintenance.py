"""Placements, progress and cancels of runs in flight; tasks that nobody will take, and old ones."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from aiohttp import web

from controller.commit_gate import CommitGate
from controller.maintenance import Maintenance
from controller.settings import ControllerSettings
from runnerlib.contract import FailureCode, TaskState, task_digest
from runnerlib.service.health import Health
from taskqueue.clock import GuardedWall
from taskqueue.connect import open_embedded
from taskqueue.tasks import CancelAnswer, Delivery, NewTask, Succeeded
from taskqueue.tokens import AuditNote


def test_task_for_an_unknown_algorithm_waits_its_grace(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner())
            await world.send(("t1", {}), algorithm="ecko")
            await wait_until(lambda: world.health.is_ready)
            assert (await world.row("t1")).state is TaskState.QUEUED

    go(scenario())


def test_task_for_an_unknown_algorithm_fails_after_its_grace_and_names_near_ones(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner(), unknown_algorithm_grace_seconds=0)
            await world.send(("t1", {}), algorithm="ecko")
            row = await world.ended("t1")
            assert row.error_code is FailureCode.UNKNOWN_ALGORITHM
            assert "did you mean 'echo'" in row.error_message

    go(scenario())


def test_nothing_is_unknown_while_the_catalogue_is_not_sure(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.source.is_sure = False
            await world.start(make_runner(), unknown_algorithm_grace_seconds=0)
            await world.send(("t1", {}), algorithm="ecko")
            await world.send(("t2", {}), algorithm="ecko", expires_at=time.time() + 1.2)
            assert (await world.ended("t2")).error_code is FailureCode.EXPIRED
            assert (await world.row("t1")).state is TaskState.QUEUED

    go(scenario())


def test_known_algorithm_without_a_runner_waits(worlds, go):
    async def scenario():
        async with worlds() as world:
            world.tell_none(known=["asleep"])
            await world.start_controller(unknown_algorithm_grace_seconds=0)
            await world.send(("t1", {}), algorithm="asleep")
            await world.send(("t2", {}), algorithm="nobody")
            await world.ended("t2")
            assert (await world.row("t1")).state is TaskState.QUEUED

    go(scenario())


def test_task_that_expires_between_two_readings_of_the_clock_is_no_unknown_algorithm(go, tmp_path):
    """The store's clock, which is read later, finds it expired."""

    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (queue, store):
            await queue.publish(
                [NewTask("t1", "echo", b"1", task_digest("echo", 1), expires_at=time.time() - 0.5)],
            )
            ended = []

            async def complete(decided):
                ended.extend(decided)

            directory = SimpleNamespace(algorithms=lambda: {"echo": None}, is_sure=True)
            completer = SimpleNamespace(complete=complete)
            wall = GuardedWall(wall=lambda: time.time() - 1, steady=time.monotonic)
            settings = ControllerSettings()
            maintenance = Maintenance(queue, store, CommitGate(Health()), directory, completer, settings, dict, wall)
            assert await maintenance.sweep_some() == 1
            assert [decision.code for _, decision in ended] == [FailureCode.EXPIRED]

    go(scenario())


def test_finished_tasks_are_dropped_after_their_retention(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner())
            await world.send(("t1", {"value": 1}))
            await world.ended("t1")
            await world.stop_controller()
            await world.start_controller(retention_days=1e-9)

            async def gone():
                while await world.store.get("t1") is not None:
                    await asyncio.sleep(0.02)

            await asyncio.wait_for(gone(), 30)

    go(scenario())


def test_old_results_are_kept_for_a_day_when_the_clock_jumps(go, tmp_path):
    jump = [0.0]

    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (queue, store):
            digest = task_digest("echo", 1)
            await queue.publish([NewTask("t1", "echo", b"1", digest)])
            await store.record([Succeeded(Delivery("t1", "echo", b"1", digest, 1, None), b"1")])
            wall = GuardedWall(wall=lambda: time.time() + jump[0], steady=time.monotonic)
            settings = ControllerSettings(retention_days=7)
            maintenance = Maintenance(queue, store, CommitGate(Health()), None, None, settings, dict, wall)
            jump[0] = 8 * 86_400
            assert await maintenance.purge_some() == 0
            assert await maintenance.sweep_some() == 0
            assert (await store.get("t1")).result == b"1"

    go(scenario())


def test_old_entries_of_the_audit_are_dropped_unless_the_clock_jumps(go, tmp_path):
    jump = [0.0]

    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (queue, store):
            await store.cancel("t1", note=AuditNote("cancel"))
            wall = GuardedWall(wall=lambda: time.time() + jump[0], steady=time.monotonic)
            steady_wall = GuardedWall(wall=time.time, steady=time.monotonic)

            async def entries_after(days, wall):
                settings = ControllerSettings(audit_retention_days=days)
                gate = CommitGate(Health())
                await Maintenance(queue, store, gate, None, None, settings, dict, wall).purge_audit()
                return len(await store.tokens.audit())

            assert await entries_after(90, wall) == 1
            jump[0] = 91 * 86_400
            assert await entries_after(90, wall) == 1
            assert await entries_after(1e-9, steady_wall) == 0

    go(scenario())


def test_short_task_is_never_placed(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner())
            placed = []
            place = world.store.place

            async def spy(placements):
                placed.extend(placements)
                await place(placements)

            world.store.place = spy
            await world.send(*((f"t{n}", {"value": n}) for n in range(20)))
            for n in range(20):
                await world.ended(f"t{n}")
            assert placed == []

    go(scenario())


def test_progress_is_stored_while_the_task_runs(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            runner.report("t1", 0.4)
            row = await world.until_row("t1", lambda row: row.progress)
            assert (row.progress.fraction, row.progress.message) == (0.4, "at work")
            runner.report("t1", 0.8)
            await world.until_row("t1", lambda row: row.progress.fraction == 0.8)
            waits = [wait for _, with_payload, wait in runner.calls if not with_payload]
            assert waits
            assert max(waits) <= 2

    go(scenario())


def test_running_task_is_cancelled_at_its_runner(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            await world.until_row("t1", lambda row: row.state is TaskState.RUNNING)
            assert await world.store.cancel("t1") is CancelAnswer.REQUESTED
            row = await world.ended("t1", 5)
            assert row.state is TaskState.CANCELLED
            assert runner.deleted == ["t1"]

    go(scenario())


def test_queued_task_that_was_cancelled_never_runs(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start()
            await world.send(("t1", {"value": 1}), ("t2", {"value": 2}))
            assert await world.store.cancel("t1") is CancelAnswer.CANCELLED
            await runner.start()
            world.runners.append(runner)
            world.tell()
            await world.ended("t2")
            assert runner.executions == [("t2", 1)]

    go(scenario())


def test_cancel_mark_is_met_before_a_retry(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)

            marked = world.store.cancel_requested
            await world.send(("t1", {"do": "fail_until", "attempt": 3}))

            async def all_marked(ids):
                await marked(ids)
                return set(ids)

            world.store.cancel_requested = all_marked
            row = await world.ended("t1")
            assert row.state is TaskState.CANCELLED
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_task_that_waits_for_a_slot_is_cancelled_without_having_run(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}), ("t2", {"value": 2}))
            await wait_until(lambda: runner.started("t1"))
            await world.store.cancel("t2")
            runner.let_go("t1")
            row = await world.ended("t2")
            assert row.state is TaskState.CANCELLED
            assert not runner.started("t2")

    go(scenario())


@pytest.mark.parametrize("level", ["full", "plain"])
def test_cancel_of_the_store_wins_over_a_runner_that_does_not_end_the_run(
    worlds, make_runner, go, wait_until, monkeypatch, level
):
    monkeypatch.setattr("controller.maintenance.RUNNER_GRACE_SECONDS", 0.0)

    async def scenario():
        async with worlds() as world:
            runner = make_runner(level=level)
            ended = asyncio.Event()

            async def runs_on(request):
                runner.executions.append(("t1", 1))
                await ended.wait()
                return web.json_response({"result": "too late"})

            async def refuses(request):
                runner.deleted.append(request.match_info["id"])
                return web.json_response({}, status=409)

            runner._run, runner._delete = runs_on, refuses
            await world.start(runner, runner_margin_seconds=1.0)
            await world.send(("t1", {"do": "hold"}))
            await world.until_row("t1", lambda row: row.state is TaskState.RUNNING)
            assert await world.store.cancel("t1") is CancelAnswer.REQUESTED
            row = await world.ended("t1")
            assert row.state is TaskState.CANCELLED
            assert runner.deleted == (["t1"] if level == "full" else [])
            ended.set()
            runner.let_go("t1", "too late")
            await world.send(("t2", {"value": 2}))
            if level == "full":
                assert (await world.ended("t2")).state is TaskState.SUCCEEDED
            row = await world.row("t1")
            assert (row.state, row.result) == (TaskState.CANCELLED, None)

    go(scenario())


def test_task_that_a_busy_runner_never_takes_can_be_cancelled(worlds, make_runner, go, problem, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.on_batch = lambda items: problem(429, "busy", headers={"Retry-After": "0.1"})
            await world.start(runner)
            await world.send(("t1", {}))
            await wait_until(lambda: len(runner.calls) > 3)
            await world.store.cancel("t1")
            assert (await world.ended("t1")).state is TaskState.CANCELLED

    go(scenario())
