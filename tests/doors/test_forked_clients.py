"""One client that was made and used before a fork: each child gets the results of its own tasks."""

import json
import subprocess
import sys
from typing import Any

import forked_senders
import pytest
from environments import Production

CHILDREN = 20


@pytest.mark.parametrize("tasks", [10, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["gateway", "broker"])
def test_each_forked_child_gets_the_results_of_its_own_tasks(scene: Any, way: str, tasks: int) -> None:
    environment = scene.environment
    if way == "broker" and not isinstance(environment, Production):
        pytest.skip("there is no broker")
    queue_url = [environment.queue_url] if way == "broker" else []
    command = [sys.executable, forked_senders.__file__, "offered_later", str(CHILDREN), str(tasks), scene.url]
    done = subprocess.run([*command, *queue_url], capture_output=True, text=True, timeout=100, check=False)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"own": tasks, "others": []}] * CHILDREN
    assert done.returncode == 0, done.stderr
