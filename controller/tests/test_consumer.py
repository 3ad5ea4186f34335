"""How tasks flow: who waits for whom, what one algorithm's trouble means for others, what was handed out before."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
from aiohttp import web

from controller.consumer import AlgorithmConsumer
from controller.runs import InFlight
from runnerlib.contract import FailureCode, Limits, TaskState
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import Delivery


def test_tasks_wait_in_the_queue_until_a_runner_appears(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await world.start()
            await world.send(("t1", {"value": 1}))
            runner = make_runner()
            await runner.start()
            world.runners.append(runner)
            assert (await world.row("t1")).state is TaskState.QUEUED
            world.tell()
            assert (await world.ended("t1")).state is TaskState.SUCCEEDED

    go(scenario())


def test_tasks_of_a_runner_that_nobody_can_reach_wait_and_say_why(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await wait_for_a_runner_that_cannot_be_reached(world, make_runner)

    go(scenario())


def test_tasks_of_a_runner_that_nobody_can_reach_wait_and_say_why_on_a_broker(
    worlds, broker, database_url, make_runner, go
):
    async def scenario():
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_rabbitmq(broker.url, retry_steps_seconds=(0.2,)))
            store = await stack.enter_async_context(open_postgres(database_url))
            recorded = RecordedQueue(queue, store)
            world = await stack.enter_async_context(worlds(parts=(recorded, store, store, queue.ingress_feed)))
            await wait_for_a_runner_that_cannot_be_reached(world, make_runner)

    go(scenario())


async def wait_for_a_runner_that_cannot_be_reached(world, make_runner):
    """At an address that is none; then it can be."""
    runner = make_runner()
    await runner.start()
    nowhere = runner.view.model_copy(update={"host": "http://nat-runner.invalid:18190", "boot": "elsewhere"})
    world.source.publish([nowhere], {})
    await world.start_controller()
    await world.send(*((f"t{n}", {"value": n}) for n in range(3)))
    await world.send(("late", {"value": 0}), expires_at=time.time() + 4)
    row = await world.until_row("t2", lambda row: row.pending_reason is not None)
    assert (row.state, row.runner, row.placement) == (TaskState.QUEUED, None, None)
    assert "no runner that offers 'echo' can be reached" in row.pending_reason
    assert "runner r1 at http://nat-runner.invalid:18190" in row.pending_reason
    await world.store.cancel("t1")
    assert (await world.row("t1")).state is TaskState.CANCELLED
    assert (await world.ended("late", 25)).error_code is FailureCode.EXPIRED
    assert (await world.row("t0")).state is TaskState.QUEUED
    world.runners.append(runner)
    world.tell()
    assert (await world.ended("t0")).state is TaskState.SUCCEEDED
    assert (await world.ended("t2")).pending_reason is None
    assert sorted(runner.executions) == [("t0", 1), ("t2", 1)]


def test_task_that_a_busy_runner_never_takes_waits_says_why_and_expires(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            runner.on_batch = lambda items: web.Response(status=429, headers={"Retry-After": "0.2"})
            await world.start(runner)
            await world.send(("t1", {"value": 1}), ("t2", {"value": 1}))
            await world.send(("late", {"value": 1}), expires_at=time.time() + 3)
            row = await world.until_row("t1", lambda row: row.pending_reason is not None)
            assert (row.state, row.runner) == (TaskState.QUEUED, None)
            assert "takes tasks now: runner r1" in row.pending_reason
            assert "no free slot" in row.pending_reason
            await world.store.cancel("t2")
            assert (await world.row("t2")).state is TaskState.CANCELLED
            assert (await world.ended("late")).error_code is FailureCode.EXPIRED
            runner.on_batch = lambda items: None
            assert (await world.ended("t1")).state is TaskState.SUCCEEDED
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_consumer_is_stopped_when_its_algorithm_has_no_runner_for_long_and_started_again(
    worlds, make_runner, go, wait_until, monkeypatch
):
    monkeypatch.setattr("controller.consumer_set.STOP_AFTER_SECONDS", 0.2)

    def consumers():
        return sum(task.get_name().startswith("consumer ") for task in asyncio.all_tasks())

    async def scenario():
        async with worlds() as world:
            runner = make_runner(algorithms=["echo", *(f"name_{n}" for n in range(50))])
            await world.start(runner)
            await wait_until(lambda: consumers() == 51)
            await world.send(("t1", {"do": "hold"}))
            await wait_until(lambda: runner.started("t1"))
            world.tell_none()
            await wait_until(lambda: consumers() == 1)
            runner.let_go("t1")
            await world.ended("t1")
            await wait_until(lambda: consumers() == 0)
            assert world.health.is_ready
            await world.send(("t2", {"value": 2}))
            world.tell()
            assert (await world.ended("t2")).state is TaskState.SUCCEEDED

    go(scenario())


def test_waiting_tasks_go_back_when_the_last_runner_leaves(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}), ("t2", {"value": 2}), ("t3", {"value": 3}))
            await wait_until(lambda: runner.started("t1"))
            world.tell_none()
            await world.until_row("t2", lambda row: row.state is TaskState.QUEUED)
            runner.let_go("t1")
            await world.ended("t1")
            world.tell()
            assert (await world.ended("t2")).attempt == 1

    go(scenario())


def test_slow_algorithm_does_not_block_another(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner(algorithms=["echo", "slow"])
            await world.start(runner)
            await world.send(*((f"s{n}", {"do": "hold"}) for n in range(20)), algorithm="slow")
            await wait_until(lambda: runner.started("s0"))
            await world.send(("t1", {"value": 1}))
            assert (await world.ended("t1")).state is TaskState.SUCCEEDED

    go(scenario())


def test_no_more_tasks_are_sent_than_there_are_slots_while_calls_are_long(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(slots=3)
            runner = make_runner()
            await world.start(runner)
            await world.send(*((f"t{n}", {"do": "hold"}) for n in range(10)))
            await wait_until(lambda: len(runner.executions) == 3)
            runner.let_go("t0")
            await wait_until(lambda: len(runner.executions) == 4)
            assert len([call for call in runner.calls if call[1]]) == 4
            # two for each slot and no more are taken from the queue
            assert world.metric("controller_in_flight") <= 6

    go(scenario())


def test_replicas_share_the_load(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runners = [make_runner(f"r{n}") for n in range(3)]
            await world.start(*runners)
            await world.send(*((f"t{n}", {"do": "hold"}) for n in range(3)))
            await wait_until(lambda: all(len(runner.executions) == 1 for runner in runners))

    go(scenario())


def test_batch_is_split_fairly_over_free_slots(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=64)
            one, two = make_runner("r1"), make_runner("r2")
            await world.start()
            await world.send(*((f"t{n}", {"do": "hold"}) for n in range(10)))
            for runner in (one, two):
                await runner.start()
                world.runners.append(runner)
            world.tell()
            await wait_until(lambda: len(one.executions) + len(two.executions) == 10)
            assert len(one.executions) == len(two.executions) == 5

    go(scenario())


def test_call_never_has_more_than_four_mebibytes(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=64)
            runner = make_runner()
            await world.start()
            await world.send(*((f"t{n}", {"value": n, "fill": "x" * 1_500_000}) for n in range(5)))
            await runner.start()
            world.runners.append(runner)
            world.tell()
            for n in range(5):
                await world.ended(f"t{n}")
            assert max(len(ids) for ids, with_payload, _ in runner.calls if with_payload) == 2

    go(scenario())


def test_failing_consumer_releases_its_tasks_and_others_go_on(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await world.start(make_runner(algorithms=["echo", "other"]))
            rows_that_forbid_start, broken = world.store.rows_that_forbid_start, True

            async def failing(deliveries):
                if broken and any(each.id.startswith("bad") for each in deliveries):
                    raise ZeroDivisionError("planted")
                return await rows_that_forbid_start(deliveries)

            world.store.rows_that_forbid_start = failing
            await world.send(("bad1", {"value": 1}))
            await wait_until(lambda: "planted" in world.health.reasons.get("consumers", ""))
            await world.send(("t1", {"value": 1}), algorithm="other")
            assert (await world.ended("t1")).state is TaskState.SUCCEEDED
            broken = False
            assert (await world.ended("bad1")).attempt == 1
            await wait_until(lambda: world.health.is_ready)

    go(scenario())


def test_failing_call_releases_its_tasks(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            record, failures = world.store.record, [1]

            async def failing(records):
                if failures:
                    failures.pop()
                    raise ZeroDivisionError("planted")
                return await record(records)

            world.store.record = failing
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)
            assert runner.executions == [("t1", 1)]

    go(scenario())


def test_redelivered_task_attaches_to_its_placed_run(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            row = await world.until_row("t1", lambda row: row.placement)
            assert (row.placement.runner, row.placement.boot) == ("r1", runner.boot)
            await world.stop_controller()
            assert (await world.row("t1")).attempt == 1
            await world.start_controller()
            await wait_until(lambda: world.metric("controller_in_flight") == 1)
            runner.let_go("t1", "kept")
            row = await world.ended("t1")
            assert (row.result, row.attempt, row.history) == (b'"kept"', 1, ())
            assert runner.executions == [("t1", 1)]

    go(scenario())


@pytest.mark.serial
def test_placed_run_of_another_boot_is_lost_at_once(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start(runner)
            await world.send(("t1", {"do": "hold"}))
            await world.until_row("t1", lambda row: row.placement)
            await world.stop_controller()
            await runner.kill()
            await runner.start()
            world.tell()
            await world.start_controller()
            await wait_until(lambda: ("t1", 2) in runner.executions, 3)

    go(scenario())


def test_redelivered_task_without_placement_is_found_at_the_runner_that_has_it(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds(None) as world:
            one, two = make_runner("r1"), make_runner("r2")
            await world.start(one, two)
            await world.stop_controller()
            await world.send(("t1", {"do": "hold"}))
            await crashed_once(world, "t1")
            two._accept({"id": "t1", "attempt": 1, "payload": {"do": "hold"}})
            await world.start_controller()
            await wait_until(lambda: any(ids == ["t1"] and wait > 0 for ids, _, wait in two.calls))
            two.let_go("t1", 5)
            assert (await world.ended("t1")).result == b"5"
            assert one.executions == []
            assert two.executions == [("t1", 1)]

    go(scenario())


async def crashed_once(world, task_id, times=1):
    """Makes the next delivery look like one after so many controllers were killed."""
    feed_of = world.queue.feed

    async def feed(algorithm):
        inner = await feed_of(algorithm)
        take = inner.take

        async def taking(most):
            return [replace(each, delivery_count=times) if each.id == task_id else each for each in await take(most)]

        inner.take = taking
        return inner

    world.queue.feed = feed


def test_redelivered_task_that_nobody_has_runs_with_the_same_attempt(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await crashed_once(world, "t1")
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            row = await world.ended("t1")
            assert (row.state, row.attempt) == (TaskState.SUCCEEDED, 1)
            assert [with_payload for ids, with_payload, _ in runner.calls] == [False, True]

    go(scenario())


def test_task_that_was_handed_out_three_times_runs_alone(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            world.limits["echo"] = Limits(batched=True, batch=8)
            runner = make_runner()
            await crashed_once(world, "bad", times=3)
            await world.start()
            await world.send(("bad", {"value": 1}), ("t1", {"value": 1}), ("t2", {"value": 1}))
            await runner.start()
            world.runners.append(runner)
            world.tell()
            for task_id in ("bad", "t1", "t2"):
                assert (await world.ended(task_id)).state is TaskState.SUCCEEDED
            assert ["bad"] in [ids for ids, with_payload, _ in runner.calls if with_payload]

    go(scenario())


def test_task_that_was_handed_out_twenty_times_fails_as_controller_lost(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await crashed_once(world, "t1", times=20)
            await world.start(runner)
            await world.send(("t1", {"value": 1}))
            assert (await world.ended("t1")).error_code is FailureCode.CONTROLLER_LOST
            assert runner.executions == []

    go(scenario())


def test_expired_task_never_runs(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            await world.start()
            await world.send(("t1", {"value": 1}), expires_at=time.time() + 0.05)
            await runner.start()
            world.runners.append(runner)
            assert (await world.ended("t1")).error_code is FailureCode.EXPIRED
            world.tell()
            assert runner.executions == []

    go(scenario())


def test_consumer_that_looks_up_what_has_come_is_not_idle(go):
    async def scenario():
        looked_up, dependencies = asyncio.Event(), MagicMock()

        async def rows_that_forbid_start(deliveries):
            await looked_up.wait()
            return {}

        async def complete(decided):
            return []

        dependencies.calls.completer.rows_that_forbid_start = rows_that_forbid_start
        dependencies.calls.completer.complete = complete
        dependencies.in_flight = InFlight()
        dependencies.calls.wall = lambda: 0.0
        consumer = AlgorithmConsumer("a", dependencies)
        assert consumer.is_idle
        consumer._taking = asyncio.create_task(asyncio.sleep(0))
        await consumer._taking
        assert not consumer.is_idle
        consumer._taking = None
        expired = Delivery("t1", "a", b"{}", "digest", 1, None, expires_at=-1.0)
        receiving = asyncio.create_task(consumer._sort_taken([expired]))
        await asyncio.sleep(0)
        assert not consumer.is_idle
        looked_up.set()
        await receiving
        assert consumer.is_idle

    go(scenario())
