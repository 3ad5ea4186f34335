"""Tasks that nobody will take, and old ones."""

import asyncio
import time

from controller.maintenance import Maintenance
from controller.store_gate import StoreGate
from runnerlib.contract import FailureCode, TaskState, task_digest
from runnerlib.service.health import Health
from taskqueue.clock import GuardedWall
from taskqueue.memory import open_memory
from taskqueue.tasks import Delivery, NewTask, Succeeded


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

            await asyncio.wait_for(gone(), 5)

    go(scenario())


def test_old_results_are_kept_for_a_day_when_the_clock_jumps(go):
    jump = [0.0]

    async def scenario():
        queue, store = open_memory()
        digest = task_digest("echo", 1)
        await queue.publish([NewTask("t1", "echo", b"1", digest)])
        await store.record([Succeeded(Delivery("t1", "echo", b"1", digest, 1, None), b"1")])
        wall = GuardedWall(wall=lambda: time.time() + jump[0], steady=time.monotonic)
        maintenance = Maintenance(
            queue,
            store,
            StoreGate(Health()),
            None,
            None,
            held_up=dict,
            unknown_grace_seconds=60,
            retention_seconds=7 * 86_400,
            clock=wall,
        )
        jump[0] = 8 * 86_400
        assert await maintenance.purge() == 0
        assert await maintenance.sweep() == 0
        assert (await store.get("t1")).result == b"1"
        await queue.close()

    go(scenario())
