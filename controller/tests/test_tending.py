"""Placements, progress and cancels of runs in flight."""

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
