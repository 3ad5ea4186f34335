"""A handler that hangs, dies or lies costs its own attempt, and the runner never."""

from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = '''
import ctypes, os, signal, stat, sys, time

OPTIONS = {
    "die": {"timeout_seconds": 0.5},
    "sane": {},
    "picky": {"timeout_seconds": 0.5},
    "apicky": {"timeout_seconds": 0.5, "slots": 8},
}


def run_die(how: str = "", log: str = "") -> str:
    """Ends in many ways."""
    if log:
        with open(log, "a") as file:
            file.write(f"{how}\\n")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how in ("close sockets", "close pipes"):
        is_meant = stat.S_ISSOCK if how == "close sockets" else stat.S_ISFIFO
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                if number > 2 and is_meant(os.fstat(number).st_mode):
                    os.close(number)
            except OSError:
                pass
        return "no descriptors are left"
    if how.startswith("close"):
        os.closerange(3, 64)
        if how == "close and go on":
            os.closerange(0, 3)
    if how == "write into descriptors":
        for number in range(3, 64):
            try:
                os.write(number, b"out of step")
            except OSError:
                pass
        time.sleep(60)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "loop":
        while True:
            pass
    if how == "sys.exit":
        sys.exit(1)
    if how == "raise":
        raise ValueError("no such colour")
    if how == "connection":
        raise ConnectionError("away")
    if how == "nan":
        return float("nan")
    return f"fine {how}"


def run_sane(number: int) -> int:
    return number


def run_picky(number: int) -> int:
    return batch_picky([number])[0]


def batch_picky(number: list[int]) -> list[int]:
    if 13 in number:
        os._exit(13)
    if 7 in number:
        raise ValueError("seven")
    if 99 in number:
        time.sleep(60)
    if 5 in number:
        return [1]
    return [ValueError("four") if n == 4 else n * n for n in number]


async def run_apicky(number: int) -> int:
    import asyncio
    if number == 13:
        await asyncio.sleep(0.05)
        os._exit(13)
    if number == 99:
        await asyncio.sleep(60)
    if number == 66:
        time.sleep(60)
    await asyncio.sleep(0.1)
    return number * number
'''


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER, CANCEL_GRACE_SECONDS="0.3")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("exit", "exited with code 3"),
        ("kill", "killed by SIGKILL (not by this runner"),
        ("close descriptors", "lost its connection to the runner"),
        ("close sockets", "lost its connection to the runner"),
        ("close pipes", "lost its connection to the runner"),
        ("close and go on", "lost its connection to the runner"),
        ("write into descriptors", "lost its connection to the runner"),
    ],
)
def test_a_handler_that_ends_its_process_is_a_lost_run_and_the_next_one_works(
    runner: Any, how: str, words: str
) -> None:
    answer = runner.run("die", {"how": how})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (500, "runner_lost", True)
    assert words in problem["detail"]
    assert runner.run("die", {"how": "again"}).json() == {"result": "fine again"}


def test_an_endless_loop_is_killed_at_its_time_limit(runner: Any) -> None:
    answer = runner.run("die", {"how": "loop"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (500, "timeout", True)
    assert "timeout_seconds (0.5 s)" in problem["detail"]
    assert runner.run("die", {"how": "again"}).json() == {"result": "fine again"}


@pytest.mark.parametrize(
    ("how", "code", "retryable", "words"),
    [
        ("raise", "handler_error", False, "ValueError: no such colour"),
        ("sys.exit", "handler_error", False, "SystemExit"),
        ("connection", "handler_error", True, "away"),
        ("nan", "bad_result", False, "run_die()"),
    ],
)
def test_what_a_handler_raises_is_told_without_a_traceback(
    runner: Any, how: str, code: str, retryable: bool, words: str
) -> None:
    answer = runner.run("die", {"how": how})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (500, code, retryable)
    assert words in problem["detail"]
    assert "Traceback" not in answer.text


def test_the_traceback_is_for_controllers_and_the_log(runner: Any, item: Any) -> None:
    (entry,) = runner.batch("die", [item("t1", {"how": "raise"})])
    assert "no such colour" in entry["error"]["traceback"]
    assert "traceback" not in runner.get("/tasks/t1").text
    assert "no such colour" in runner.log


def test_one_that_dies_in_a_sequence_costs_its_neighbours_nothing(runner: Any, item: Any, tmp_path: Any) -> None:
    log = tmp_path / "log"
    for _ in range(4):
        runner.run("die", {"how": "warm"})  # from here on several are expected to fit into one call
    ways = [f"a{n}" for n in range(6)] + ["exit"] + [f"b{n}" for n in range(6)]
    entries = runner.batch("die", [item(f"seq-{how}", {"how": how, "log": str(log)}) for how in ways])
    states = {entry["id"]: entry["state"] for entry in entries}
    assert states.pop("seq-exit") == "failed"
    assert set(states.values()) == {"succeeded"}
    assert sorted(log.read_text().split()) == sorted(ways)


@pytest.mark.parametrize(
    ("bad", "code"), [(13, "runner_lost"), (7, "handler_error"), (99, "timeout"), (4, "handler_error")]
)
def test_one_bad_member_of_a_batch_fails_alone(runner: Any, item: Any, bad: int, code: str) -> None:
    numbers = [1, 2, bad, 3]
    entries = runner.batch("picky", [item(f"m{bad}-{n}", {"number": n}) for n in numbers])
    for number, entry in zip(numbers, entries, strict=True):
        if number == bad:
            assert (entry["state"], entry["error"]["code"]) == ("failed", code)
        else:
            assert (entry["state"], entry["result"]) == ("succeeded", number * number)


def test_a_batch_of_the_wrong_length_runs_again_one_by_one(runner: Any, item: Any) -> None:
    entries = runner.batch("picky", [item(f"len-{n}", {"number": n}) for n in (5, 6)])
    assert [entry.get("result") for entry in entries] == [1, 36]


def test_an_async_handler_that_dies_costs_what_ran_beside_it_nothing(runner: Any, item: Any) -> None:
    numbers = [1, 13, 2]
    entries = runner.batch("apicky", [item(f"a-{n}", {"number": n}) for n in numbers])
    assert [entry["state"] for entry in entries] == ["succeeded", "failed", "succeeded"]
    assert entries[1]["error"]["code"] == "runner_lost"


def test_an_async_handler_that_takes_too_long_is_cancelled_alone(runner: Any, item: Any) -> None:
    pids = {child.pid for child in runner.children()}
    entries = runner.batch("apicky", [item(f"long-{n}", {"number": n}) for n in (99, 3)])
    assert entries[0]["error"]["code"] == "timeout"
    assert entries[1]["result"] == 9
    assert {child.pid for child in runner.children()} == pids


def test_an_async_handler_that_blocks_the_loop_is_killed(runner: Any, item: Any) -> None:
    (entry,) = runner.batch("apicky", [item("block", {"number": 66})])
    assert entry["error"]["code"] == "timeout"
    assert runner.run("apicky", {"number": 2}).json() == {"result": 4}


def test_health_answers_while_a_handler_is_busy(runner: Any, until: Any) -> None:
    busy = runner.later(runner.run, "die", {"how": "loop"}, id="busy")
    runner.until_state("busy", "running")
    assert runner.get("/healthz/live").status_code == 200
    assert runner.run("sane", {"number": 1}).json() == {"result": 1}
    assert busy.result().status_code == 500


def test_what_ended_how_is_counted(runner: Any) -> None:
    runner.run("sane", {"number": 1})
    metrics = runner.get("/metrics").text
    assert 'runner_runs_total{algorithm="sane",outcome="succeeded"}' in metrics
    assert 'runner_run_seconds_count{algorithm="sane"}' in metrics
    assert "runner_process_restarts_total" in metrics
