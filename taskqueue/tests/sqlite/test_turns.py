"""What a restart of the process that owns the file leaves of turns and of times."""

import sqlite3
import time

import pytest

from taskqueue.clock import Clock
from taskqueue.connect import open_embedded
from taskqueue.sqlite.queue import LeaseTimes

DAY_SECONDS = 86_400.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.db"


@pytest.fixture
def available_at(path):
    """``available_at("a")``: the column of a task, in a file that nobody has open."""

    def read(task_id):
        with sqlite3.connect(path) as connection:
            ((found,),) = connection.execute("SELECT available_at FROM tasks WHERE id = ?", (task_id,))
        connection.close()
        return found

    return read


async def start(queue, prefetch, **more):
    feed = await queue.feed("upper")
    await feed.set_prefetch(prefetch, **more)
    return feed


@pytest.mark.parametrize("group", [None, "g"])
def test_delayed_task_keeps_its_time(run, path, make_task, take_all, group):
    async def scenario():
        began = time.time()
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("late", group=group, not_before=began + 2), make_task("now", group=group)])
            await take_all(await start(queue, 5), 1)
        async with open_embedded(path) as (queue, _):
            feed = await start(queue, 5)
            assert [each.id for each in await take_all(feed, 1)] == ["now"]
            (late,) = await take_all(feed, 1, 8)
            assert time.time() >= began + 1.99
            assert (late.id, late.group, late.attempt, late.delivery_count) == ("late", group, 1, 0)

    run(scenario())


@pytest.mark.parametrize("group", [None, "g"])
def test_delay_of_days_is_no_delay_between_attempts(run, path, make_task, available_at, group):
    not_before = time.time() + 6 * DAY_SECONDS

    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a", group=group, not_before=not_before)])
        async with open_embedded(path):
            pass

    run(scenario())
    assert available_at("a") == pytest.approx(not_before, abs=1)


def test_leased_tasks_of_groups_can_be_claimed_at_once_in_their_turns(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task(f"{name}{n}", group=name) for name in "ab" for n in range(3)])
            await take_all(await start(queue, 4), 4)
        async with open_embedded(path) as (queue, _):
            taken = await take_all(await start(queue, 6), 6, 5)
            assert [(each.id, each.delivery_count) for each in taken] == [
                ("a0", 1),
                ("b0", 1),
                ("a1", 1),
                ("b1", 1),
                ("a2", 0),
                ("b2", 0),
            ]
            assert {(each.group, each.attempt) for each in taken} == {("a", 1), ("b", 1)}

    run(scenario())


def test_slots_of_a_group_are_free_again(run, path, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task(f"a{n}", group="a") for n in range(4)])
            await take_all(await start(queue, 4, group_slots=2), 2)
        async with open_embedded(path) as (queue, _):
            feed = await start(queue, 4, group_slots=2)
            taken = await take_all(feed, 2, 5)
            assert [(each.id, each.delivery_count) for each in taken] == [("a0", 1), ("a1", 1)]
            assert await comes_nothing(feed)
            await queue.ack(taken)
            assert [each.id for each in await take_all(feed, 2, 5)] == ["a2", "a3"]

    run(scenario())


@pytest.mark.parametrize("group", [None, "g"])
def test_abandoned_task_that_has_expired_is_swept_when_nobody_offers_its_algorithm(
    run, path, make_task, take_all, group
):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a", group=group, expires_at=time.time())])
            await take_all(await start(queue, 1), 1)
        async with open_embedded(path, leases=LeaseTimes(seconds=0.5)) as (queue, _):
            assert await queue.sweep([], 0.0, 10) == [], "a runner may have it: it can be taken up first"
            deadline = time.monotonic() + 5
            while not (swept := await queue.sweep([], 0.0, 10)):
                assert time.monotonic() < deadline, "it is never swept"
            assert [(each.id, each.group, each.delivery_count) for each in swept] == [("a", group, 1)]

    run(scenario())


@pytest.mark.parametrize("not_before", [None, 0.0])
def test_retry_waits_for_its_delay_and_no_longer(run, path, make_task, take_all, not_before):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a", group="g", not_before=not_before)])
            taken = await take_all(await start(queue, 1), 1)
            began = time.monotonic()
            await queue.retry(taken, [1.0])
        async with open_embedded(path) as (queue, _):
            (again,) = await take_all(await start(queue, 1), 1, 8)
            assert 0.95 <= time.monotonic() - began < 5
            assert (again.group, again.attempt, again.delivery_count) == ("g", 2, 0)

    run(scenario())


@pytest.mark.parametrize("group", [None, "g"])
def test_retry_of_a_delayed_task_by_a_clock_that_was_ahead_waits_an_hour_at_most(
    run, path, make_task, take_all, available_at, group
):
    ahead = Clock(wall=lambda: time.time() + DAY_SECONDS)

    async def scenario():
        async with open_embedded(path, clock=ahead) as (queue, _):
            await queue.publish([make_task("a", group=group, not_before=ahead.wall() + 0.2)])
            await queue.retry(await take_all(await start(queue, 1), 1), [60.0])
        async with open_embedded(path):
            pass

    run(scenario())
    assert available_at("a") <= time.time() + 3600


def test_algorithm_whose_grouped_tasks_are_all_late_is_still_claimed_in_turn(run, path, make_task, take_all):
    async def scenario():
        began = time.time()
        async with open_embedded(path) as (queue, _):
            await queue.publish(
                [make_task(f"{name}{n}", group=name, not_before=began + 1) for name in "ab" for n in "01"]
            )
        async with open_embedded(path) as (queue, _):
            taken = await take_all(await start(queue, 4), 4, 8)
            assert time.time() >= began + 0.99
            assert [each.id for each in taken] == ["a0", "b0", "a1", "b1"]

    run(scenario())
