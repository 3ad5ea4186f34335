"""Cancel asks first and kills after a grace period."""

import time
from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = """
import asyncio, time

OPTIONS = {"polite": {"process": "one"}, "deaf": {"process": "one"}, "group": {"batch": 8}}


def run_polite(seconds: float, *, task) -> str:
    task.progress(0.1)
    for _ in task.track(range(int(seconds * 50))):
        time.sleep(0.02)
    return "done"


def run_deaf(seconds: float, *, task) -> str:
    task.progress(0.1)
    time.sleep(seconds)
    return "done"


def batch_group(number: list[int]) -> list[int]:
    time.sleep(0.4)
    return number


async def run_waits(seconds: float, *, task) -> str:
    task.progress(0.1)
    await asyncio.sleep(seconds)
    return "done"


async def run_deafly(seconds: float, *, task) -> str:
    task.progress(0.1)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(60)
    return "done"
"""


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER, CANCEL_GRACE_SECONDS="0.4")


@pytest.mark.parametrize(("algorithm", "is_killed"), [("polite", False), ("waits", False), ("deaf", True)])
def test_a_running_task_is_cancelled(runner: Any, algorithm: str, is_killed: bool) -> None:
    id = f"cancel-{algorithm}"
    pids = {child.pid for child in runner.children()}
    call = runner.later(runner.run, algorithm, {"seconds": 60}, id=id)
    runner.until_progress(id)
    started = time.monotonic()
    assert runner.cancel(id).status_code == 202
    answer = call.result()
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    assert (time.monotonic() - started >= 0.39) == is_killed
    assert runner.run(algorithm, {"seconds": 0}).json() == {"result": "done"}
    assert ({child.pid for child in runner.children()} == pids) == (not is_killed)


def test_a_deaf_async_handler_costs_its_neighbours_no_attempt(runner: Any) -> None:
    deaf = runner.later(runner.run, "deafly", {"seconds": 30}, id="deafly")
    runner.until_progress("deafly")
    beside = runner.later(runner.run, "deafly", {"seconds": 1}, id="beside")
    runner.until_progress("beside")
    assert runner.cancel("deafly").status_code == 202
    assert deaf.result().json()["code"] == "cancelled"
    assert beside.result().json() == {"result": "done"}


def test_a_waiting_task_is_cancelled_at_once_and_never_runs(runner: Any, item: Any) -> None:
    call = runner.later(runner.batch, "deaf", [item("w1", {"seconds": 0.5}), item("w2", {"seconds": 0})])
    runner.until_state("w1", "running")
    answer = runner.cancel("w2")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert [entry["state"] for entry in call.result()] == ["succeeded", "cancelled"]


def test_one_member_of_a_batch_is_cancelled_and_the_others_go_on(runner: Any, item: Any) -> None:
    call = runner.later(runner.batch, "group", [item(f"g{n}", {"number": n}) for n in range(3)])
    runner.until_state("g1", "running")
    assert runner.cancel("g1").status_code == 202
    assert [entry["state"] for entry in call.result()] == ["succeeded", "cancelled", "succeeded"]


def test_a_finished_task_cannot_be_cancelled_and_an_unknown_one_neither(runner: Any) -> None:
    assert runner.run("deaf", {"seconds": 0}, id="over").status_code == 200
    answer = runner.cancel("over")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_finished")
    assert "succeeded" in answer.json()["detail"]
    answer = runner.cancel("never")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")


def test_cancel_of_a_run_that_an_async_process_has_not_begun_touches_no_neighbour(
    serve_adapter: Callable[..., Any],
) -> None:
    runner = serve_adapter(
        """
        import asyncio, time


        async def run_blocks(seconds: float, *, task) -> str:
            task.progress(0.1)
            time.sleep(seconds)
            await asyncio.sleep(2)
            return "done"


        async def run_waits(seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "done"
        """,
        OPTION_BLOCKS_PROCESS="one",
        OPTION_WAITS_PROCESS="one",
    )
    pids = {child.pid for child in runner.children()}
    neighbour = runner.later(runner.run, "blocks", {"seconds": 1}, id="neighbour")
    runner.until_progress("neighbour")
    # The loop is blocked: the process reads the call and its cancel in one go.
    runner.run("waits", {"seconds": 60}, id="not-begun", wait=0)
    assert runner.cancel("not-begun").status_code == 202
    assert neighbour.result().json() == {"result": "done"}
    assert runner.state("not-begun") == "cancelled"
    assert {child.pid for child in runner.children()} == pids
