"""A paused algorithm: what waits goes back and stays there, what runs ends, over restarts until somebody resumes it."""

import asyncio
from contextlib import AsyncExitStack

from aiohttp import web

from runnerlib.contract import Limits, TaskState
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue


def test_pause_hands_back_what_waits_lets_runs_end_and_survives_a_restart(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            await is_paused_and_resumed(world, make_runner, wait_until)

    go(scenario())


def test_pause_hands_back_what_waits_lets_runs_end_and_survives_a_restart_on_a_broker(
    worlds, broker, database_url, make_runner, go, wait_until
):
    async def scenario():
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_rabbitmq(broker.url, retry_steps_seconds=(0.2,)))
            store = await stack.enter_async_context(open_postgres(database_url))
            recorded = RecordedQueue(queue, store)
            world = await stack.enter_async_context(worlds(parts=(recorded, store, store, queue.ingress_feed)))
            await is_paused_and_resumed(world, make_runner, wait_until)

    go(scenario())


async def is_paused_and_resumed(world, make_runner, wait_until):
    runner = make_runner(algorithms=("echo", "other"))
    world.limits = {"echo": Limits(slots=3)}
    await world.start(runner)
    await world.send(("held", {"do": "hold"}))
    await wait_until(lambda: runner.started("held"))
    # the controller has both, and the runner takes neither
    runner.on_batch = lambda items: web.Response(status=429, headers={"Retry-After": "0.1"})
    await world.send(("t1", {"value": 1}), ("t2", {"value": 2}))
    await wait_until(lambda: {"t1", "t2"} <= {item["id"] for item in runner.items})
    await world.store.pause("echo", "on-call")
    await were_handed_back(world, "t1", "t2")
    runner.on_batch = lambda items: None
    runner.let_go("held")
    assert (await world.ended("held")).state is TaskState.SUCCEEDED
    await world.stop_controller()
    await world.start_controller()
    await world.send(("t3", {"value": 3}))
    await world.send(("o1", {"value": 4}), algorithm="other")
    await world.ended_soon("o1")
    assert [await state_of(world, name) for name in ("t1", "t2", "t3")] == [TaskState.QUEUED] * 3
    await world.store.resume("echo")
    for name in ("t1", "t2", "t3"):
        assert (await world.ended_soon(name)).attempt == 1
    assert sorted(runner.executions) == [(name, 1) for name in ("held", "o1", "t1", "t2", "t3")]


async def were_handed_back(world, *names):
    """Another controller gets them now; it gives them back, too."""
    feed = await world.queue.feed("echo")
    await feed.set_prefetch(len(names))
    deliveries = []
    async with asyncio.timeout(15):
        while len(deliveries) < len(names):
            deliveries += await feed.take(len(names))
    assert sorted(each.id for each in deliveries) == sorted(names)
    await feed.set_prefetch(0)
    await world.queue.release(deliveries)
    await feed.close()


async def state_of(world, name):
    return (await world.row(name)).state
