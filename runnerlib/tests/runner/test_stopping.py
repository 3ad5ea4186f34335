"""SIGTERM: nothing new, what runs may end, whoever waits is told; nothing of it counts."""

from collections.abc import Callable
from typing import Any

ADAPTER = """
import time

OPTIONS = {"nap": {"slots": 1}}


def run_nap(seconds: float, *, task) -> str:
    task.progress(0.1)
    time.sleep(seconds)
    return "slept"
"""


def test_what_runs_may_end_and_what_waits_is_given_back(serve_adapter: Callable[..., Any], item: Any) -> None:
    runner = serve_adapter(ADAPTER, GRACE_SECONDS="5")
    call = runner.later(runner.batch, "nap", [item("runs", {"seconds": 1.0}), item("waits", {"seconds": 0})])
    runner.until_progress("runs")
    runner.terminate()
    assert [entry["state"] for entry in call.result()] == ["succeeded", "unknown"]
    assert runner.stop() == 0


def test_while_it_drains_new_work_is_refused_and_what_runs_can_be_asked_for(
    serve_adapter: Callable[..., Any], item: Any, until: Any
) -> None:
    runner = serve_adapter(ADAPTER, GRACE_SECONDS="5")
    runner.run("nap", {"seconds": 1.5}, id="runs", wait=0)
    runner.until_progress("runs")
    runner.terminate()
    until(lambda: runner.run("nap", {"seconds": 0}).status_code == 503, "it drains")
    answer = runner.post_batch("nap", [item("new", {"seconds": 0})])
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert runner.get("/healthz/ready").status_code == 503
    assert runner.get("/healthz/live").status_code == 200
    (entry,) = runner.batch("nap", [item("runs")])
    assert (entry["state"], entry["result"]) == ("succeeded", "slept")
    assert runner.stop() == 0


def test_what_outlasts_the_grace_is_interrupted_uncounted(serve_adapter: Callable[..., Any], item: Any) -> None:
    runner = serve_adapter(ADAPTER, GRACE_SECONDS="0.3")
    call = runner.later(runner.batch, "nap", [item("long", {"seconds": 60})])
    runner.until_progress("long")
    single = runner.later(runner.run, "nap", {"seconds": 60}, id="single")
    runner.until_state("single", "waiting")
    children = runner.children()
    runner.terminate()
    assert call.result() == [{"id": "long", "attempt": 1, "state": "unknown"}]
    answer = single.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert runner.stop() == 0
    assert not any(child.is_running() for child in children)
