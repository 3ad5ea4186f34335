"""A whole controller's start, stop and readiness."""

import asyncio
import time

import pytest

from runnerlib.contract import TaskState
from taskqueue.errors import StoreUnavailable
from taskqueue.tasks import Cancelled, Delivery


def test_not_ready_until_discovery_has_answered(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await world.start_controller()
            assert "catalogue" in world.health.reasons
            world.tell_none()
            await wait_until(lambda: world.health.is_ready)

    go(scenario())


def test_stop_waits_for_short_tasks(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner, grace_seconds=5.0)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            stopping = asyncio.create_task(world.stop_controller())
            await wait_until(lambda: "stopping" in world.health.reasons.get("consumers", ""))
            runner.let_go("t1", 1)
            await stopping
            row = await world.row("t1")
            assert (row.state, row.result) == (TaskState.SUCCEEDED, b"1")

    go(scenario())


@pytest.mark.serial
def test_stop_hands_long_tasks_back_uncounted_and_attachable(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}), ("t2", {"value": 2}))
            await wait_until(lambda: runner.started("t1"))
            started = time.monotonic()
            await world.stop_controller()
            assert time.monotonic() - started < 3
            # placed although it had not run for a second
            assert (await world.row("t1")).placement.runner == "r1"
            assert (await world.row("t1")).attempt == 1
            assert (await world.row("t2")).state is TaskState.QUEUED
            assert runner.deleted == []
            await world.start_controller()
            runner.let_go("t1", 1)
            row = await world.ended("t1")
            assert (row.result, row.attempt, row.history) == (b"1", 1, ())
            assert runner.executions.count(("t1", 1)) == 1
            assert (await world.ended("t2")).attempt == 1

    go(scenario())


def test_stop_takes_nothing_more(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.stop_controller()
            await world.send(("t1", {"value": 1}))
            assert (await world.row("t1")).state is TaskState.QUEUED
            assert runner.executions == []

    go(scenario())


def test_stop_while_tasks_flow_loses_none_and_counts_none(worlds, make_runner, go, tmp_path):
    async def scenario():
        async with worlds(tmp_path / "tasks.sqlite") as world:
            await world.start(make_runner("r1"), make_runner("r2"))
            await world.send(*((f"t{n}", {"value": n}) for n in range(2000)))
            for _ in range(5):
                await world.ended("t0")
                await world.stop_controller()
                await world.start_controller()
            for n in range(2000):
                row = await world.ended(f"t{n}")
                assert (row.state, row.attempt, row.history) == (TaskState.SUCCEEDED, 1, ())

    go(scenario())


def test_store_that_is_away_holds_outcomes_and_nothing_new_is_taken(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            record, lookup, acknowledged = world.store.record, world.store.lookup, []
            ack, away = world.queue.ack, True

            async def failing_record(records):
                if away:
                    raise StoreUnavailable("planted")
                return await record(records)

            async def failing_lookup(ids):
                if away and "t1" not in ids:
                    raise StoreUnavailable("planted")
                return await lookup(ids)

            async def spying_ack(deliveries):
                acknowledged.extend(each.id for each in deliveries)
                await ack(deliveries)

            world.store.record, world.store.lookup, world.queue.ack = failing_record, failing_lookup, spying_ack
            await world.send(("t1", {"value": 1}))
            await wait_until(lambda: "store" in world.health.reasons)
            await world.send(*((f"u{n}", {"value": n}) for n in range(20)))
            assert acknowledged == []
            assert runner.executions == [("t1", 1)]
            away = False
            assert (await world.ended("t1")).result == b"1"
            for n in range(20):
                assert (await world.ended(f"u{n}")).attempt == 1
            assert world.health.is_ready
            assert runner.executions.count(("t1", 1)) == 1

    go(scenario())


def test_outcome_that_the_fence_keeps_out_is_acknowledged(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            lookup = await world.store.lookup(["t1"])
            row = lookup["t1"]
            other = Delivery("t1", "echo", row.payload, row.digest, attempt=1, receipt=None)
            await world.store.record([Cancelled(other)])
            runner.let_go("t1")
            await wait_until(lambda: world.metric("controller_in_flight") == 0)
            assert (await world.row("t1")).state is TaskState.CANCELLED

    go(scenario())


def test_metrics_tell_what_happened(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner())
            await world.send(("t1", {"value": 1}), ("t2", {"do": "no_result"}))
            await world.ended("t1")
            await world.ended("t2")
            outcome = "controller_outcomes_total"
            assert world.metric("controller_tasks_taken_total", algorithm="echo") == 2
            assert world.metric(outcome, algorithm="echo", outcome="succeeded", code="") == 1
            # A waiter gets its row before the completer goes on.
            await wait_until(lambda: world.metric(outcome, algorithm="echo", outcome="failed", code="bad_result") == 1)
            assert world.metric("controller_batch_size_count", algorithm="echo") >= 1
            assert world.metric("controller_dispatch_seconds_count", algorithm="echo") >= 1

    go(scenario())
