"""Worker processes are replaced by count and by memory, and never outlive their runner."""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

ADAPTER = '''
import os, subprocess, sys, time

OPTIONS = {
    "fresh": {"max_tasks_per_process": 1},
    "three": {"max_tasks_per_process": 3},
    "leaks": {"max_rss_mb": 120},
    "athree": {"max_tasks_per_process": 3, "slots": 2},
}
KEPT = []


def load_thing():
    yield "loaded"
    open(os.environ["TORN"], "a").write("torn ")


def run_fresh() -> int:
    """A process for each.

    >>> run_fresh() > 0
    True
    """
    with open(os.environ["TORN"], "a") as log:
        log.write("fresh ")
    return os.getpid()


def run_three(*, thing) -> int:
    return os.getpid()


async def run_athree() -> int:
    return os.getpid()


def run_leaks(megabytes: int) -> int:
    KEPT.append(bytearray(os.urandom(1024) * 1024 * megabytes))
    return os.getpid()


def run_spawns(seconds: float) -> int:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    time.sleep(seconds)
    return child.pid
'''


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("torn") / "log"


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any], torn: Any) -> Any:
    return serve_adapter(ADAPTER, TORN=str(torn), OPTION_SPAWNS_TIMEOUT_SECONDS="0.5")


def test_each_task_gets_a_fresh_process(runner: Any, torn: Any) -> None:
    pids = [runner.run("fresh", {}).json()["result"] for _ in range(4)]
    assert len(set(pids)) == 4
    assert torn.read_text().split().count("fresh") == 5  # the example once, at the first start only


def test_a_batch_of_single_use_tasks_gets_a_process_for_each(runner: Any, item: Any) -> None:
    entries = runner.batch("fresh", [item(f"f{n}", {}) for n in range(3)])
    assert len({entry["result"] for entry in entries}) == 3


@pytest.mark.parametrize("algorithm", ["three", "athree"])
def test_a_process_serves_no_more_tasks_than_it_may(runner: Any, item: Any, algorithm: str) -> None:
    entries = runner.batch(algorithm, [item(f"{algorithm}{n}", {}) for n in range(7)])
    pids = [entry["result"] for entry in entries]
    assert sorted(pids.count(pid) for pid in set(pids)) == [1, 3, 3]


def test_a_replaced_process_tears_down_what_it_loaded(runner: Any, torn: Any, until: Any) -> None:
    for _ in range(3):
        runner.run("three", {})
    until(lambda: torn.exists() and "torn" in torn.read_text(), "the tear-down ran")


def test_a_process_that_has_grown_is_replaced(runner: Any, until: Any) -> None:
    first = runner.run("leaks", {"megabytes": 1}).json()["result"]
    assert runner.run("leaks", {"megabytes": 150}).json()["result"] == first
    assert runner.run("leaks", {"megabytes": 1}).json()["result"] != first
    assert 'reason="max_rss_mb"' in runner.get("/metrics").text


def test_a_killed_handler_takes_along_what_it_started(runner: Any, until: Any) -> None:
    call = runner.later(runner.run, "spawns", {"seconds": 60})
    sleeper = until(lambda: next((p for p in runner.children() if _sleeps(p)), None), "it started")
    assert call.result().json()["code"] == "timeout"
    until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE, "it is gone")


def _sleeps(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "time.sleep(300)" in " ".join(process.cmdline())
    return False


def test_a_killed_runner_leaves_no_process_behind(serve_adapter: Callable[..., Any], until: Any) -> None:
    source = "import time\ndef run_busy(seconds: float) -> None:\n    while True: pass\nasync def run_idle(): ..."
    runner = serve_adapter(source)
    runner.later(runner.run, "busy", {"seconds": 1}, id="busy", wait=0)
    runner.until_state("busy", "running")
    children = runner.children()
    assert len(children) == 2
    os.kill(runner.process.pid, signal.SIGKILL)
    until(
        lambda: all(not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in children),
        "the worker processes are gone",
    )
