"""Replayed tasks run: on a table, and on a broker, where the message may come twice, or by the ingress queue."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from runnerlib.contract import FailureCode, Limits, TaskState, strict_json, task_digest
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import DeadAnswer, Delivery, Failed

STEPS = (0.2,)
REPLAYED = [DeadAnswer.REPLAYED]


@pytest.fixture
def broker_world(worlds, broker, database_url):
    """Tasks are sent and replayed as a gateway does it."""

    @asynccontextmanager
    async def opened():
        async with AsyncExitStack() as stack:
            rabbit = await stack.enter_async_context(open_rabbitmq(broker.url, retry_steps_seconds=STEPS))
            store = await stack.enter_async_context(open_postgres(database_url))
            queue = RecordedQueue(rabbit, store)
            world = await stack.enter_async_context(worlds(parts=(queue, store, store, rabbit.ingress_feed)))
            world.rabbit = rabbit
            yield world

    return opened


async def goes_through_failures_and_replays(world, make_runner):
    world.limits = {"echo": Limits(retries=1)}
    runner = make_runner()
    await world.start(runner)
    await world.send(("t1", {"do": "fail_until", "attempt": 5}))
    for replays, attempt in enumerate((2, 4)):
        row = await world.ended("t1")
        assert (row.state, row.attempt, row.replays) == (TaskState.FAILED, attempt, replays)
        assert [entry.attempt for entry in row.history] == [attempt - 1, attempt], "each start has its own budget"
        (letter,) = await world.store.dead_letters()
        assert await world.queue.replay([letter.dead_id]) == REPLAYED
    row = await world.ended("t1")
    assert (row.state, row.attempt, row.replays, row.result) == (TaskState.SUCCEEDED, 5, 2, b"5")
    assert runner.executions == [("t1", attempt) for attempt in range(1, 6)]
    assert not await world.store.dead_letters()


def test_replayed_task_counts_its_attempts_on_and_its_failures_anew(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            await goes_through_failures_and_replays(world, make_runner)

    go(scenario())


def test_replayed_task_counts_its_attempts_on_and_its_failures_anew_on_a_broker(broker_world, make_runner, go):
    async def scenario():
        async with broker_world() as world:
            await goes_through_failures_and_replays(world, make_runner)

    go(scenario())


def test_expired_task_runs_when_it_is_replayed_also_through_the_ingress_and_once_though_it_was_sent_twice(
    broker_world, make_runner, go
):
    async def scenario():
        async with broker_world() as world:
            await world.store.record([expired("t1"), expired("t2")])
            letters = [line.dead_id for line in await world.store.dead_letters()]
            # Nobody has declared the algorithm's queue: these go to the ingress queue, one of them twice.
            for revived in await world.store.revive(letters[:1]):
                await world.rabbit.publish([revived.task])
            assert await world.queue.replay(letters) == REPLAYED * 2
            runner = make_runner()
            await world.start(runner)
            rows = [await world.ended("t1"), await world.ended("t2")]
            assert [(row.state, row.attempt, row.result) for row in rows] == [(TaskState.SUCCEEDED, 2, b"1")] * 2
            await world.send(("t3", {"value": 3}))
            await world.ended("t3")
            assert sorted(runner.executions) == [("t1", 2), ("t2", 2), ("t3", 1)]

    go(scenario())


def expired(task_id):
    """A task whose time was over, as a stranger sent it."""
    payload = {"value": 1}
    body = {"id": task_id, "algorithm": "echo", "payload": payload, "expires_seconds": 0.001}
    delivery = Delivery(
        task_id,
        "echo",
        strict_json.dumps(payload),
        task_digest("echo", payload),
        attempt=1,
        receipt=None,
        expires_at=1.0,
        body=strict_json.dumps(body),
    )
    return Failed(delivery, FailureCode.EXPIRED, "its time was over before it could start")
