"""A run, and what it keeps of its runner."""

from controller.runs import Run
from runnerlib.contract import Progress, RunnerLevel, RunnerView
from taskqueue.tasks import Delivery

RUNNER = RunnerView(id="r", name="r", host="http://h:1", boot="b1", level=RunnerLevel.FULL, algorithms=["a"])


def test_run_that_is_handed_back_brings_nothing_of_its_runner_along():
    run = Run(Delivery("t1", "a", b"{}", "digest", 1, None))
    run.sent_to(RUNNER, "b1", 1.0)
    run.progress = run.reported = Progress(fraction=0.9)
    run.running_since = 2.0
    run.handed_back()
    assert (run.runner, run.progress, run.reported, run.running_since) == (None, None, None, None)
    assert run.current_placement is None
