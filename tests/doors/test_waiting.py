"""Tasks of algorithms without a runner: they wait, say so, and run when it comes; nobody's fail in the end."""

import json
import re
from typing import Any

import pytest
import requests
from environments import until

# Each test takes seconds; together they take minutes, and so they begin early.
pytestmark = pytest.mark.timeout(300)


def counts(scene: Any, algorithm: str) -> dict[str, Any]:
    """What /status tells of one algorithm."""
    told = requests.get(f"{scene.url}/status", timeout=10).json()["algorithms"]
    [found] = [each for each in told if each["name"] == algorithm]
    return dict(found)


def test_known_algorithm_without_a_runner_waits_for_one_and_says_so(scene: Any) -> None:
    environment = scene.environment
    name = f"departed_{next(scene.numbers)}"
    runner = environment.runner(scene.write_runner(name), name)
    environment.wait_offered(runner.start())
    assert scene.ended(environment.submit(name, {"text": "a"}))["result"] == "A"
    assert runner.stop() == 0
    until(lambda: not scene.runners_of(name), "the gateway knows that it is gone")
    task_id = environment.submit(name, {"text": "b"})
    view = environment.task(task_id)
    assert view["state"] == "queued"
    assert re.search(rf"no runner offers '{name}' now", view["waiting_for"])
    told = until(lambda: (found := counts(scene, name))["tasks"]["waiting"] == 1 and found, "it is counted as waiting")
    assert told["waiting_for_runner"] is True
    runner.start()
    view = scene.ended(task_id)
    assert (view["state"], view["result"], view["attempt"], view["waiting_for"]) == ("succeeded", "B", 1, None)
    assert runner.stop() == 0


def test_stranger_s_task_of_an_algorithm_without_a_runner_waits_for_one(broker_scene: Any) -> None:
    scene, environment = broker_scene, broker_scene.environment
    name = f"departed_{next(scene.numbers)}"
    runner = environment.runner(scene.write_runner(name), name)
    environment.wait_offered(runner.start())
    assert runner.stop() == 0
    until(lambda: not scene.runners_of(name), "the gateway knows that it is gone")
    task_id = scene.publish(json.dumps({"algorithm": name, "payload": {"text": "b"}}).encode())
    runner.start()
    assert scene.ended(task_id)["result"] == "B"
    assert runner.stop() == 0


def test_task_of_an_unknown_algorithm_runs_when_a_runner_appears_in_time(any_scene: Any) -> None:
    for task_id in any_scene.for_a_late_one:
        view = any_scene.ended(task_id)
        assert (view["state"], view["result"], view["attempt"]) == ("succeeded", "EARLY", 1)


def test_task_of_an_algorithm_that_nobody_ever_offered_fails_after_the_grace(any_scene: Any) -> None:
    for task_id in any_scene.for_nobody:
        view = any_scene.ended(task_id)
        assert (view["state"], view["error"]["code"]) == ("failed", "unknown_algorithm")
        assert "'never_offered'" in view["error"]["message"]
        assert [code for code, _, _ in any_scene.dead_letters(task_id)] == ["unknown_algorithm"]
