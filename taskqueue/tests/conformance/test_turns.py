"""What every queue does whose tasks take turns by group, or start late."""

import asyncio
import time

import pytest


def ids(deliveries):
    return [delivery.id for delivery in deliveries]


async def start(queue, prefetch, **more):
    feed = await queue.feed("upper")
    await feed.set_prefetch(prefetch, **more)
    return feed


def test_groups_take_turns_each_in_the_order_of_arrival(run, open_turns, make_task, take_all):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task(f"a{n}", group="a") for n in range(6)])
            await queue.publish([make_task(f"b{n}", group="b") for n in range(2)])
            await queue.publish([make_task("c0", group="c")])
            taken = await take_all(await start(queue, 9), 9)
            assert ids(taken) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4", "a5"]
            assert [each.group for each in taken][:3] == ["a", "b", "c"]

    run(scenario())


def test_turns_go_on_where_they_ended(run, open_turns, make_task, take_all):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task(f"{name}{n}", group=name) for name in "abc" for n in range(3)])
            feed = await start(queue, 1)
            order = []
            for _ in range(9):
                taken = await take_all(feed, 1)
                order += ids(taken)
                await queue.ack(taken)
            assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]

    run(scenario())


def test_a_thousand_waiting_tasks_of_one_group_do_not_hold_up_another(run, open_turns, make_task, take_all):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task(f"a{n}", group="a") for n in range(1000)])
            feed = await start(queue, 100, in_turn=2)
            taken = await take_all(feed, 2)
            await queue.publish([make_task("b", group="b")])
            await queue.ack(taken)
            assert "b" in ids(await take_all(feed, 2))

    run(scenario())


def test_tasks_without_a_group_take_turns_with_the_groups(run, open_turns, make_task, take_all, eventually, request):
    # a broker's lane and that of the groups are filled each by itself
    full = 4 if "rabbitmq" in request.node.callspec.id else 2

    async def scenario():
        async with open_turns() as queue:
            feed = await start(queue, 0)
            await queue.publish([make_task(f"a{n}", group="a") for n in range(20)])
            await queue.publish([make_task(f"n{n}") for n in range(20)])
            await feed.set_prefetch(2)
            order = []
            while len(order) < 20:
                await eventually(lambda: feed.waiting() == full)
                taken = await take_all(feed, 2)
                order += ids(taken)
                await queue.ack(taken)
            assert sum(each.startswith("n") for each in order) == pytest.approx(10, abs=1)

    run(scenario())


def test_group_has_no_more_out_than_its_slots(run, open_turns, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task(f"a{n}", group="a") for n in range(5)])
            await queue.publish([make_task(f"b{n}", group="b") for n in range(3)])
            feed = await start(queue, 100, group_slots=2)
            taken = await take_all(feed, 4)
            assert sorted(ids(taken)) == ["a0", "a1", "b0", "b1"]
            assert await comes_nothing(feed)
            await queue.ack([each for each in taken if each.id == "a0"])
            more = await take_all(feed, 1)
            assert ids(more) == ["a2"]
            assert await comes_nothing(feed)
            await queue.release(more)
            assert ids(await take_all(feed, 1)) == ["a2"]

    run(scenario())


def test_slots_of_a_group_hold_over_all_feeds(run, open_turns, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task(f"a{n}", group="a") for n in range(5)])
            one, other = await start(queue, 10, group_slots=3), await start(queue, 10, group_slots=3)
            tasks = [asyncio.create_task(feed.take(10)) for feed in (one, other)]
            await asyncio.wait(tasks, timeout=1)
            out = [each for task in tasks if task.done() for each in task.result()]
            assert len(out) + one.waiting() + other.waiting() == 3
            for task in tasks:
                task.cancel()

    run(scenario())


def test_delayed_task_comes_not_before_its_time(run, open_turns, make_task, take_all):
    async def scenario():
        async with open_turns() as queue:
            feed = await start(queue, 10)
            began = time.time()
            late = make_task("late", not_before=began + 3)
            in_group = make_task("late-a", group="a", not_before=began + 2)
            await queue.publish([late, in_group, make_task("now", group="b"), make_task("at-once")])
            assert sorted(ids(await take_all(feed, 2))) == ["at-once", "now"]
            assert ids(await take_all(feed, 1)) == ["late-a"]
            assert time.time() - began >= 1.99
            taken = await take_all(feed, 1)
            assert ids(taken) == ["late"]
            assert time.time() - began >= 2.99
            assert (taken[0].group, taken[0].attempt, taken[0].delivery_count) == (None, 1, 0)

    run(scenario())


def test_retried_task_of_a_group_comes_back_in_its_turn(run, open_turns, make_task, take_all):
    async def scenario():
        async with open_turns() as queue:
            await queue.publish([make_task("a", group="a")])
            feed = await start(queue, 10)
            taken = await take_all(feed, 1)
            began = time.monotonic()
            await queue.retry(taken, [0.4])
            await queue.ack(taken)
            again = await take_all(feed, 1)
            assert time.monotonic() - began >= 0.35
            assert (again[0].id, again[0].group, again[0].attempt, again[0].delivery_count) == ("a", "a", 2, 0)

    run(scenario())


def test_feed_tells_whether_groups_take_turns(run, open_turns, make_task, take_all, eventually):
    async def scenario():
        async with open_turns() as queue:
            feed = await start(queue, 10)
            assert not feed.has_groups
            await queue.publish([make_task("a", group="a")])
            taken = await take_all(feed, 1)
            assert feed.has_groups
            await queue.ack(taken)
            await queue.publish([make_task("b")])
            await queue.ack(await take_all(feed, 1))
            await eventually(lambda: not feed.has_groups)

    run(scenario())


def test_two_thousand_groups_with_one_task_each_are_all_served(run, open_turns, make_task):
    async def scenario():
        async with open_turns() as queue:
            tasks = [make_task(f"t{n}", group=f"g{n}") for n in range(2_000)]
            await queue.publish(tasks)
            feed = await start(queue, 500)
            seen = []
            while len(seen) < len(tasks):
                taken = await feed.take(500)
                seen += ids(taken)
                await queue.ack(taken)
            assert sorted(seen) == sorted(task.id for task in tasks)

    run(scenario())
