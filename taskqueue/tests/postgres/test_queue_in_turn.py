"""Tasks that take turns or start late, of controllers that share one database."""

import asyncio
import re
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import pytest

from runnerlib.contract import TaskState
from taskqueue.postgres import open_postgres, writer
from taskqueue.postgres.engine import parameters_from, reading_engine
from taskqueue.postgres.queue import WITH_TASKS, PostgresQueue
from taskqueue.postgres.store import PostgresStore
from taskqueue.sql.groups import CLAIM_OF_GROUP, GROUPS, NOW_DUE, OUT
from taskqueue.sql.table_queue import LeaseTimes
from taskqueue.tasks import Succeeded

#: The lease of a controller that is gone, as if it had been killed.
GONE = LeaseTimes(seconds=1.0, renew_seconds=3600.0)
#: Before the first poll of a feed that has found nothing.
BEFORE_ITS_POLL_SECONDS = 6.0
#: What is claimed, by algorithm and group.
OUT_NOW = (
    "SELECT algorithm, task_group, count(*) FROM tasks"
    " WHERE receipt IS NOT NULL AND delivery_count > 0 AND finished_at IS NULL GROUP BY algorithm, task_group"
)


class Controller(NamedTuple):
    store: PostgresStore
    queue: PostgresQueue

    async def start(self, prefetch, algorithm="upper", **more):
        feed = await self.queue.feed(algorithm)
        await feed.set_prefetch(prefetch, **more)
        return feed

    async def finish(self, deliveries):
        written = await self.store.record([Succeeded(each, b"1") for each in deliveries])
        await self.queue.ack(deliveries)
        return written


@pytest.fixture
def open_controllers(database_url):
    """``async with open_controllers(LeaseTimes(), None) as (one, other)``: each with a store and a queue of its own."""

    @asynccontextmanager
    async def opened(*times):
        async with AsyncExitStack() as stack:
            controllers = []
            for each in times:
                store = await stack.enter_async_context(open_postgres(database_url))
                controllers.append(Controller(store, await stack.enter_async_context(store.open_queue(each))))
            yield controllers

    return opened


@pytest.fixture
def notifications_are_lost(monkeypatch):
    """The statement is one that the writer can send, and tells nobody."""
    monkeypatch.setattr(writer, "NOTIFY", "SELECT %s::text, %s::text")


@asynccontextmanager
async def working(works):
    """These go on until the end of the block; one that fails ends it."""
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(work) for work in works]
        yield
        for task in started:
            task.cancel()


def test_two_controllers_share_the_tasks_and_each_has_one_taker(
    run, open_controllers, make_task, notifications_are_lost
):
    tasks = [make_task(f"{name}{n}", group=name) for n in range(80) for name in ("a", "b", "c", "d", "e")]
    tasks += [make_task(f"late{n}", not_before=time.time() + 1) for n in range(50)]
    takers = Counter()
    seen = []
    all_done = asyncio.Event()

    async def work(number, controller, feed):
        while True:
            taken = await feed.take(7)
            assert all(each.delivery_count == 0 for each in taken)
            seen.extend(each.id for each in taken)
            takers[number] += len(taken)
            assert await controller.finish(taken) == [True] * len(taken)
            if len(seen) >= len(tasks):
                all_done.set()

    async def scenario():
        async with open_controllers(None, None) as controllers:
            await controllers[0].queue.publish(tasks)
            feeds = [await each.start(10) for each in controllers]
            works = [work(n, *each) for n, each in enumerate(zip(controllers, feeds, strict=True))]
            async with working(works):
                await all_done.wait()
            assert sorted(seen) == sorted(task.id for task in tasks)
            assert set(takers) == {0, 1}, takers
            rows = await controllers[0].store.lookup(seen)
            assert {row.state for row in rows.values()} == {TaskState.SUCCEEDED}

    run(scenario())


@pytest.mark.parametrize("algorithms", [("upper",), ("upper", "lower")])
def test_slots_of_groups_hold_over_controllers_that_claim_at_the_same_time(
    run, open_controllers, make_task, ask, algorithms
):
    names = ("a", "b", "c", "d")
    tasks = [
        make_task(f"{algorithm}-{name}{n}", algorithm, group=name)
        for n in range(20)
        for name in names
        for algorithm in algorithms
    ]
    seen, running = [], Counter()
    all_done = asyncio.Event()
    most = Counter()

    async def work(controller, feed):
        while True:
            taken = await feed.take(3)
            keys = [(each.algorithm, each.group) for each in taken]
            running.update(keys)
            for key in keys:
                most[key] = max(most[key], running[key])
            await asyncio.sleep(0)
            running.subtract(keys)
            assert await controller.finish(taken) == [True] * len(taken)
            seen.extend(each.id for each in taken)
            if len(seen) == len(tasks):
                all_done.set()

    async def look():
        """What has been claimed and waits in a feed, too."""
        while True:
            for algorithm, group, count in await asyncio.to_thread(ask, OUT_NOW):
                most[algorithm, group] = max(most[algorithm, group], count)

    async def scenario():
        async with open_controllers(None, None) as controllers:
            feeds = [
                (each, await each.start(16, algorithm, group_slots=2))
                for each in controllers
                for algorithm in algorithms
            ]
            async with asyncio.timeout(40), working([look(), *(work(*each) for each in feeds)]):
                await controllers[0].queue.publish(tasks)
                await all_done.wait()
            assert sorted(seen) == sorted(task.id for task in tasks)
            assert most == {(algorithm, name): 2 for algorithm in algorithms for name in names}

    run(scenario())


def test_controller_that_is_gone_loses_its_lease_and_its_old_receipts_settle_nothing(
    run, open_controllers, make_task, take_all, comes_nothing, ask
):
    async def scenario():
        async with open_controllers(GONE, None) as (gone, other):
            await gone.queue.publish([make_task(each, group="g") for each in ("a", "b", "c")])
            old = {each.id: each for each in await take_all(await gone.start(3), 3)}
            feed = await other.start(3)
            again = await take_all(feed, 3)
            assert [(each.id, each.attempt, each.delivery_count, each.group) for each in again] == [
                (each, 1, 1, "g") for each in ("a", "b", "c")
            ]
            before = ask("SELECT * FROM tasks ORDER BY seq")
            await gone.queue.ack([old["a"]])
            await gone.queue.release([old["b"]])
            await gone.queue.retry([old["c"]], [0.0])
            assert ask("SELECT * FROM tasks ORDER BY seq") == before
            await feed.set_prefetch(10)
            assert await comes_nothing(feed)
            assert await other.finish(again) == [True] * 3

    run(scenario())


def test_task_of_a_controller_that_is_gone_wakes_one_that_waits_already(
    run, open_controllers, make_task, take_all, eventually, notifications_are_lost
):
    async def scenario():
        async with open_controllers(GONE, None) as (gone, other):
            feed = await other.start(1)
            await eventually(lambda: feed.is_hungry)
            await feed.set_prefetch(0)
            await gone.queue.publish([make_task("a", group="g")])
            await take_all(await gone.start(1), 1)
            await feed.set_prefetch(1)
            (again,) = await take_all(feed, 1, BEFORE_ITS_POLL_SECONDS)
            assert (again.id, again.delivery_count) == ("a", 1)

    run(scenario())


@pytest.mark.parametrize(("group", "delay_seconds"), [("g", None), ("g", 2.0), (None, 2.0)])
def test_task_whose_notification_was_lost_is_claimed_at_its_time_anyway(
    run, open_controllers, make_task, take_all, eventually, notifications_are_lost, group, delay_seconds
):
    async def scenario():
        async with open_controllers(None, None) as (sender, controller):
            feed = await controller.start(1)
            await eventually(lambda: feed.is_hungry)
            began = time.time()
            not_before = None if delay_seconds is None else began + delay_seconds
            await sender.store.admit([make_task("a", group=group, not_before=not_before)])
            (taken,) = await take_all(feed, 1, BEFORE_ITS_POLL_SECONDS)
            assert time.time() - began >= (delay_seconds or 0.0) - 0.01
            assert (taken.id, taken.group, taken.delivery_count) == ("a", group, 0)

    run(scenario())


def test_sweep_finds_expired_tasks_with_their_group(run, open_controllers, make_task):
    async def scenario():
        async with open_controllers(None) as ((store, queue),):
            past = time.time() - 10
            await queue.publish(
                [
                    make_task("old", group="g", expires_at=past),
                    make_task("late", expires_at=past, not_before=past + 3600),
                    make_task("new", group="g", expires_at=past + 3600),
                ]
            )
            swept = await store.sweep({"upper"}, 0.0, 10)
            assert sorted(((each.id, each.group) for each in swept), reverse=True) == [("old", "g"), ("late", None)]

    run(scenario())


def test_sweep_finds_tasks_of_an_algorithm_that_nobody_offers_with_their_group(run, open_controllers, make_task):
    async def scenario():
        async with open_controllers(None) as ((store, queue),):
            await queue.publish([make_task("a", group="g"), make_task("b", "nobody", group="g")])
            assert await store.sweep({"upper"}, time.time() - 600, 10) == [], "none has waited for so long"
            swept = await store.sweep({"upper"}, time.time() + 1, 10)
            assert [(each.id, each.algorithm, each.group) for each in swept] == [("b", "nobody", "g")]

    run(scenario())


@pytest.fixture
def fill(ask):
    """Many tasks of one algorithm: waiting for their turn in a hundred groups, late, leased, and without a group."""

    def rows():
        ask(
            """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, receipt, delivery_count, created_at,
                   updated_at, task_group)
SELECT n::text, 'upper', '1', 'd', 'queued', 1,
       CASE n % 4 WHEN 0 THEN -1 WHEN 1 THEN 2e9 + n WHEN 2 THEN 1e9 + n ELSE 0 END,
       CASE n % 4 WHEN 2 THEN n END, CASE n % 4 WHEN 2 THEN 1 ELSE 0 END, 0, 0,
       CASE WHEN n % 4 <> 3 THEN 'g' || n % 400 END
FROM generate_series(1, 20000) AS n
"""
        )
        ask("ANALYZE tasks")

    return rows


STATEMENTS = {
    "GROUPS": (GROUPS, "tasks_groups"),
    "CLAIM_OF_GROUP": (CLAIM_OF_GROUP, "tasks_groups"),
    "NOW_DUE": (NOW_DUE, "tasks_groups"),
    "OUT": (OUT, "tasks_groups_out"),
    "WITH_TASKS": (WITH_TASKS, "tasks_groups"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_claim_is_served_by_the_index_of_groups(run, database_url, fill, name):
    statement, index = STATEMENTS[name]
    run(opening(database_url))
    fill()
    plan = plan_of(statement, database_url)
    [(used, condition)] = re.findall(r"Scan (?:using|on) (tasks_[a-oq-z]\w*).*\n +Index Cond: (.*)", plan)[:1]
    assert (used, "algorithm" in condition) == (index, True), plan
    assert "tasks_claim" not in plan, plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("name", STATEMENTS)
def test_claim_is_served_by_an_index_while_the_table_is_empty(run, database_url, name):
    """The plan is kept when it fills."""
    run(opening(database_url))
    plan = plan_of(STATEMENTS[name][0], database_url)
    assert "Index" in plan, plan
    assert "Seq Scan" not in plan, plan


async def opening(url):
    async with open_postgres(url):
        pass


def plan_of(statement, database_url):
    made_up = {
        "the_algorithm": "upper",
        "the_group": "",
        "the_groups": ["g0", "g4"],
        "the_names": "{upper,lower}",
        "the_most": 64,
    }
    engine = reading_engine(parameters_from(database_url), 1)
    with engine.connect() as connection:
        compiled = statement.compile(dialect=connection.dialect)
        values = {name: made_up.get(name, 1) if given is None else given for name, given in compiled.params.items()}
        explained = compiled.construct_expanded_state(values)
        rows = connection.exec_driver_sql(f"EXPLAIN {explained.statement}", explained.parameters)
        plan = "\n".join(row[0] for row in rows)
    engine.dispose()
    return plan
