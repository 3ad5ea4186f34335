"""Parts of a call and of a lane by themselves."""

import asyncio
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from controller.batching import LatencyEstimate
from controller.call import RunnerCall
from controller.consumer import AlgorithmConsumer
from controller.runs import Run
from runnerlib.contract import Limits, Progress, RunnerLevel, RunnerView
from taskqueue.tasks import Delivery

RUNNER = RunnerView(id="r", name="r", host="http://h:1", boot="b1", level=RunnerLevel.FULL, algorithms=["a"])


@pytest.fixture
def run():
    return Run(Delivery("t1", "a", b"{}", "digest", 1, None))


def test_run_that_is_handed_back_brings_nothing_of_its_runner_along(run):
    run.sent_to(RUNNER, "b1", 1.0)
    run.progress = run.reported = Progress(fraction=0.9)
    run.running_since = 2.0
    run.handed_back()
    assert (run.runner, run.progress, run.reported, run.running_since) == (None, None, None, None)
    assert run.current_placement is None


@pytest.mark.parametrize(("attach", "running_seconds"), [(False, 21.0), (True, 91.0)])
def test_run_that_is_attached_to_has_the_time_of_a_whole_batch(run, attach, running_seconds):
    limits = Limits(timeout_seconds=10, batch=8)
    directory = SimpleNamespace(limits=lambda name: limits, shared_limits=lambda runner: [limits])
    tools = SimpleNamespace(directory=directory, margin_seconds=1.0, clock=lambda: 0.0)
    talk = RunnerCall(tools, LatencyEstimate(), "a", RUNNER, [run], attach=attach)
    assert talk._deadline.running == running_seconds


def test_lane_that_looks_up_what_has_come_is_not_idle(go):
    async def scenario():
        looked_up, tools = asyncio.Event(), MagicMock()

        async def sort(deliveries):
            await looked_up.wait()
            return SimpleNamespace(start=[], attach={}, ask=[])

        tools.intake.sort = sort
        lane = AlgorithmConsumer("a", tools)
        assert lane.is_idle
        lane._taking = asyncio.create_task(asyncio.sleep(0))
        await lane._taking
        assert not lane.is_idle
        lane._taking = None
        admitting = asyncio.create_task(lane._admit([]))
        await asyncio.sleep(0)
        assert not lane.is_idle
        looked_up.set()
        await admitting
        assert lane.is_idle

    go(scenario())
