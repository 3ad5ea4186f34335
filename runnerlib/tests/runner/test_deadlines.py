"""A run's deadline holds wherever the run is: waiting, first of its call, or behind others."""

import time
from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = """
import time


def run_sleeps(seconds: float) -> str:
    time.sleep(seconds)
    return "done"
"""


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER)


def test_more_late_runs_than_python_may_nest_calls_all_expire(runner: Any, item: Any) -> None:
    entries = runner.batch("sleeps", [item(f"late-{n}", {"seconds": 0}, deadline=-1) for n in range(3000)])
    assert {entry["error"]["code"] for entry in entries} == {"expired"}


def test_deadline_of_a_run_behind_others_in_its_call_holds(runner: Any, item: Any) -> None:
    # Runs that are known to be short share a call.
    runner.batch("sleeps", [item(f"short-{n}", {"seconds": 0}) for n in range(20)])
    started = time.monotonic()
    first, second = runner.batch("sleeps", [item("free", {"seconds": 0}), item("bound", {"seconds": 12}, deadline=1)])
    assert first["state"] == "succeeded"
    assert (second["state"], second["error"]["code"]) == ("failed", "timeout")
    assert time.monotonic() - started < 8


def test_deadline_that_is_over_is_the_caller_s_and_not_a_fault_of_the_runner(runner: Any) -> None:
    answer = runner.run("sleeps", {"seconds": 0}, deadline=-1)
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (408, "expired", False)
