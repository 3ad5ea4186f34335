"""`most_running` and `rate_per_second`: how many tasks may be sent, and what whole controllers make of it."""

import asyncio
import time

import pytest

from controller.throttle import Throttle
from runnerlib.contract import Limits, TaskState


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def nobody_asks():
    raise AssertionError("without a limit nothing is counted")


def test_without_limits_nothing_is_counted_or_held_back():
    throttle = Throttle(Clock())
    assert throttle.free(Limits(), nobody_asks) is None
    assert throttle.next_in_seconds(Limits()) is None
    assert throttle.reason("echo", Limits(), nobody_asks, any_ready=True) is None


def test_number_that_runs_is_kept():
    throttle, limits = Throttle(Clock()), Limits(most_running=3)
    assert [throttle.free(limits, lambda n=n: n) for n in (0, 2, 3, 5)] == [3, 1, 0, 0]
    assert throttle.reason("echo", limits, lambda: 2, any_ready=True) is None
    assert throttle.reason("echo", limits, lambda: 3, any_ready=False).startswith("3 tasks of 'echo' run already")


def test_rate_is_kept_and_may_change():
    clock = Clock()
    throttle, limits = Throttle(clock), Limits(rate_per_second=2, most_running=5)
    assert throttle.free(limits, lambda: 0) == 1
    throttle.sent(limits, 1)
    assert throttle.free(limits, lambda: 0) == 0
    assert throttle.next_in_seconds(limits) == pytest.approx(0.5)
    assert "not more than 2 tasks" in throttle.reason("echo", limits, lambda: 1, any_ready=True)
    assert throttle.reason("echo", limits, lambda: 1, any_ready=False) is None
    clock.now += 0.5
    assert (throttle.free(limits, lambda: 0), throttle.next_in_seconds(limits)) == (1, None)
    fast = Limits(rate_per_second=100, most_running=5)
    assert (throttle.free(fast, lambda: 0), throttle.free(fast, lambda: 4)) == (5, 1)


def test_no_more_tasks_run_than_may_over_all_runners_and_the_others_say_why(worlds, make_runner, go, wait_until):
    async def scenario():
        async with worlds() as world:
            first, second = make_runner("r1"), make_runner("r2")
            world.limits = {"echo": Limits(slots=4, most_running=3)}
            await world.start(first, second)
            # of tasks that are known to be short the controller takes more than may run
            await world.send(*((f"short{number}", {"value": 1}) for number in range(20)))
            await asyncio.gather(*(world.ended(f"short{number}") for number in range(20)))
            names = [f"t{number}" for number in range(8)]
            await world.send(*((name, {"do": "hold"}) for name in names))

            def running():
                return [
                    key[0] for each in (first, second) for key, run in each.runs.items() if run["state"] == "running"
                ]

            ended = 0
            while ended < len(names):
                await wait_until(lambda ended=ended: len(running()) == min(3, len(names) - ended))
                if ended == 0:
                    waiting = [name for name in names if name not in running()]
                    row = await world.until_row(waiting[-1], lambda row: row.pending_reason is not None)
                    assert row.state is TaskState.QUEUED
                    assert "3 tasks of 'echo' run already" in row.pending_reason
                name = running()[0]
                for runner in (first, second):
                    runner.let_go(name)
                await world.ended(name)
                assert len(running()) <= 3
                ended += 1
            started = sorted(first.executions + second.executions)
            assert [each for each in started if each[0] in names] == [(name, 1) for name in names]

    go(scenario())


def test_no_more_tasks_start_in_a_second_than_may(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner, started = make_runner(), []

            def note(items):
                started.extend([time.monotonic()] * len(items))

            runner.on_batch = note
            world.limits = {"echo": Limits(slots=4, rate_per_second=20)}
            await world.start(runner)
            names = [f"t{number}" for number in range(30)]
            await world.send(*((name, {"value": 1}) for name in names))
            await asyncio.gather(*(world.ended(name) for name in names))
            assert len(started) == 30
            # two at once at first, then one each 50 ms
            assert started[-1] - started[0] >= 28 / 20 - 0.1

    go(scenario())


def test_task_that_a_rate_holds_back_says_so_and_can_be_cancelled(worlds, make_runner, go):
    async def scenario():
        async with worlds() as world:
            runner = make_runner()
            world.limits = {"echo": Limits(slots=4, rate_per_second=0.01)}
            await world.start(runner)
            await world.send(("t1", {"value": 1}), ("t2", {"value": 2}), ("t3", {"value": 3}))
            await world.ended("t1")
            row = await world.until_row("t3", lambda row: row.pending_reason is not None)
            assert row.state is TaskState.QUEUED
            assert row.pending_reason == "not more than 0.01 tasks of 'echo' may start in a second"
            await world.store.cancel("t2")
            assert (await world.ended("t2")).state is TaskState.CANCELLED
            await world.send(("late", {"value": 4}), expires_at=time.time() + 1)
            assert (await world.ended("late")).error_code == "expired"
            assert runner.executions == [("t1", 1)]

    go(scenario())
