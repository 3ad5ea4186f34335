"""What a kill -9 of each process costs: nothing that was accepted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)


def executions(log: Path) -> Counter[str]:
    """How often each task id ran."""
    return Counter(line.split()[0] for line in log.read_text().splitlines())


def test_tasks_survive_the_kill_of_their_runner_and_finish_when_it_is_back(
    environment: Any, execution_log: Path, until: Any
) -> None:
    environment.start()
    runner = environment.runner("steady").start()
    environment.wait_offered(runner)
    ids = environment.submit_many("noted", [{"number": n, "log": str(execution_log)} for n in range(2000)])
    until(lambda: len(execution_log.read_text().splitlines()) > 100, "tasks flow")
    runner.kill()
    assert any(environment.task(task_id)["state"] != "succeeded" for task_id in ids[-50:])
    runner.start()
    for n, task_id in enumerate(ids):
        view = environment.finished(task_id)
        assert (view["state"], view["result"]) == ("succeeded", n * n)


def test_kill_of_discovery_changes_nothing_for_tasks(environment: Any) -> None:
    environment.start("steady")
    environment.discovery.kill()
    for n in range(20):
        assert environment.finished(environment.submit("square", {"number": n}))["result"] == n * n
    environment.discovery.start()
    assert environment.finished(environment.submit("square", {"number": 9}))["result"] == 81


def test_a_new_controller_attaches_to_the_run_that_outlived_the_old_one(
    environment: Any, execution_log: Path, until: Any
) -> None:
    environment.start("steady")
    task_id = environment.submit("slow", {"seconds": 8, "log": str(execution_log)})
    until(lambda: environment.task(task_id).get("runner"), "the task's placement is on record")
    environment.core.kill()
    environment.core.start()
    view = environment.finished(task_id)
    assert (view["state"], view["result"], view["attempt"]) == ("succeeded", "done", 1)
    assert executions(execution_log) == {task_id: 1}


def test_an_orderly_stop_of_the_controller_counts_no_attempt(environment: Any, execution_log: Path, until: Any) -> None:
    environment.core.settings["GRACE_SECONDS"] = "1"
    environment.start("steady")
    running = environment.submit("slow", {"seconds": 6, "log": str(execution_log)})
    waiting = [environment.submit("nap", {"seconds": 0.2, "log": str(execution_log)}) for _ in range(20)]
    until(lambda: environment.task(running).get("runner"), "the task's placement is on record")
    assert environment.core.stop() == 0
    environment.core.start()
    for task_id in [running, *waiting]:
        view = environment.finished(task_id)
        assert (view["state"], view["attempt"]) == ("succeeded", 1)
    assert executions(execution_log)[running] == 1


def test_an_orderly_stop_of_a_runner_counts_no_attempt(environment: Any, execution_log: Path, until: Any) -> None:
    environment.start()
    runner = environment.runner("steady", GRACE_SECONDS="1").start()
    environment.wait_offered(runner)
    task_id = environment.submit("slow", {"seconds": 4, "log": str(execution_log)})
    until(lambda: environment.task(task_id).get("runner"), "the task's placement is on record")
    assert runner.stop() == 0
    runner.start()
    view = environment.finished(task_id)
    assert (view["state"], view["result"], view["attempt"]) == ("succeeded", "done", 1)


@pytest.mark.serial  # a stop has grace_seconds and five more
@pytest.mark.parametrize("runner_first", [True, False], ids=["in worker's order", "the controller first"])
def test_stopping_everything_twice_while_a_long_task_runs_counts_no_attempt(
    environment: Any, execution_log: Path, until: Any, runner_first: bool
) -> None:
    environment.core.settings["GRACE_SECONDS"] = "1"
    environment.discovery.start()
    environment.core.start()
    runner = environment.runner("steady", GRACE_SECONDS="1").start()
    environment.wait_offered(runner)
    task_id = environment.submit("slow", {"seconds": 5, "log": str(execution_log)})
    for starts in (1, 2):
        until(lambda starts=starts: executions(execution_log)[task_id] == starts, "the task runs")
        until(lambda: environment.task(task_id).get("runner"), "the task's placement is on record")
        for service in (runner, environment.core) if runner_first else (environment.core, runner):
            assert service.stop() == 0
        assert environment.discovery.stop() == 0
        for service in (environment.discovery, environment.core, runner):
            service.start()
    view = environment.finished(task_id)
    assert (view["state"], view["attempt"]) == ("succeeded", 1)
    assert executions(execution_log) == {task_id: 3}


def test_two_processes_of_one_runner_share_the_load(environment: Any, execution_log: Path) -> None:
    environment.start()
    for name in ("steady-1", "steady-2"):
        environment.wait_offered(environment.runner("steady", name, NAME="steady").start())
    ids = [environment.submit("nap", {"seconds": 0.05, "log": str(execution_log)}) for _ in range(60)]
    for task_id in ids:
        assert environment.finished(task_id)["state"] == "succeeded"
    by_process = Counter(line.split()[2] for line in execution_log.read_text().splitlines())
    assert len(by_process) == 2
    assert min(by_process.values()) >= 15, by_process
