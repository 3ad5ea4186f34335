"""Waiting for a task that another process ends: by NOTIFY at once, by a look each second at the latest."""

import asyncio
import time

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.postgres import notifications, open_postgres
from taskqueue.tasks import Retrying, Succeeded

LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database() AND state = 'idle'"
)


@pytest.fixture
def seldom_looks(monkeypatch):
    """Only a notification can be in time."""
    monkeypatch.setattr(notifications, "POLL_SECONDS", 45.0)


@pytest.fixture
def listening(ask, eventually):
    """Waits until so many processes listen; their backends."""

    async def wait(count: int = 1) -> list[int]:
        await eventually(lambda: len(ask(LISTENERS)) == count)
        return [pid for (pid,) in ask(LISTENERS)]

    return wait


@pytest.mark.serial
def test_end_in_another_process_is_told_at_once(run, database_url, seldom_looks, listening, make_task, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            await gateway.admit([make_task("a")])
            waiters = [asyncio.create_task(gateway.wait_finished("a", 20.0)) for _ in range(3)]
            await listening()
            began = time.monotonic()
            await controller.record([Succeeded(make_delivery("a"), b"1")])
            rows = await asyncio.gather(*waiters)
            assert time.monotonic() - began < 0.9
            assert [row.result for row in rows] == [b"1"] * 3

    run(scenario())


@pytest.mark.serial
def test_cancel_in_another_process_is_told_at_once(run, database_url, seldom_looks, listening, make_task):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as other:
            await gateway.admit([make_task("a")])
            waiter = asyncio.create_task(gateway.wait_finished("a", 20.0))
            await listening()
            began = time.monotonic()
            await other.cancel("a")
            assert (await waiter).state is TaskState.CANCELLED
            assert time.monotonic() - began < 0.9

    run(scenario())


def test_task_that_nobody_knows_yet_is_waited_for(run, database_url, seldom_looks, listening, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            assert await gateway.wait_finished("nobody", 0.05) is None
            waiter = asyncio.create_task(gateway.wait_finished("a", 20.0))
            await listening()
            await controller.record([Succeeded(make_delivery("a"), b"1")])
            assert (await waiter).result == b"1"

    run(scenario())


def test_all_ends_of_a_large_record_are_told(run, database_url, seldom_looks, listening, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            ids = [f"{n:0>100}" for n in range(200)]
            waiters = [asyncio.create_task(gateway.wait_finished(task_id, 20.0)) for task_id in ids]
            await listening()
            await controller.record([Succeeded(make_delivery(task_id), b"1") for task_id in ids])
            assert all(row.result == b"1" for row in await asyncio.gather(*waiters))

    run(scenario())


def test_end_is_seen_by_a_look_when_nobody_can_listen(run, database_url, monkeypatch, ask, make_task, make_delivery):
    monkeypatch.setattr(notifications, "LISTEN", "SELECT 1 / 0")

    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            await gateway.admit([make_task("a"), make_task("b")])
            waiters = [asyncio.create_task(gateway.wait_finished(task_id, 20.0)) for task_id in "ab"]
            await asyncio.wait(waiters, timeout=0.2)
            began = time.monotonic()
            await controller.record([Succeeded(make_delivery(task_id), b"1") for task_id in "ab"])
            assert [row.result for row in await asyncio.gather(*waiters)] == [b"1"] * 2
            assert time.monotonic() - began < 5.0
            assert ask(LISTENERS) == []

    run(scenario())


def test_listening_starts_again_after_its_connection_was_cut(
    run, database_url, seldom_looks, listening, ask, eventually, make_task, make_delivery
):
    async def scenario():
        async with open_postgres(database_url) as gateway, open_postgres(database_url) as controller:
            await gateway.admit([make_task("a"), make_task("b")])
            waiters = {task_id: asyncio.create_task(gateway.wait_finished(task_id, 30.0)) for task_id in "ab"}
            (first,) = await listening()
            ask("SELECT pg_terminate_backend(%s)", first)
            await controller.record([Succeeded(make_delivery("a"), b"1")])
            assert (await waiters["a"]).result == b"1", "seen when it listened again"
            await eventually(lambda: [(first,)] != ask(LISTENERS) != [])
            await controller.record([Succeeded(make_delivery("b"), b"2")])
            assert (await waiters["b"]).result == b"2"

    run(scenario())


def test_nobody_listens_before_somebody_waits(run, database_url, ask, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            await store.record([Succeeded(make_delivery("a"), b"1")])
            assert (await store.wait_finished("a", 20.0)).result == b"1"
            assert ask(LISTENERS) == []

    run(scenario())


def test_retry_wakes_nobody(run, database_url, listening, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store, open_postgres(database_url) as other:
            waiter = asyncio.create_task(store.wait_finished("a", 2.0))
            await listening()
            again = Retrying(make_delivery("a"), FailureCode.TIMEOUT, "slow", time.time() + 60)
            began = time.monotonic()
            assert await other.record([again]) == [True]
            assert (await waiter).state is TaskState.RETRYING
            assert time.monotonic() - began > 0.5

    run(scenario())


def test_notifications_stay_below_the_limit_and_lose_no_id():
    ids = [f"task-{n}-{'x' * (n % 120)}" for n in range(1000)]
    parts = list(notifications.payloads(ids))
    assert [task_id for part in parts for task_id in part.split("\n")] == ids
    assert all(len(part.encode()) < 7900 for part in parts)
    assert len(parts) < 12
    assert list(notifications.payloads([])) == []
