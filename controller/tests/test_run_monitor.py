"""Placements, progress and cancels of runs in flight."""

import asyncio

import pytest
from aiohttp import web

from runnerlib.contract import TaskState
from taskqueue.tasks import CancelAnswer


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
    monkeypatch.setattr("controller.run_monitor.RUNNER_GRACE_SECONDS", 0.0)

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
