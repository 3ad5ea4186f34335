"""A run is keyed (task id, attempt): who asks again attaches."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

ADAPTER = """
import time

OPTIONS = {"note": {"process": "one"}, "nap": {"process": "one"}, "many": {"slots": 50}}


def run_note(log: str, seconds: float = 0.0, text: str = "x") -> int:
    with open(log, "a") as file:
        file.write(f"{text}\\n")
    time.sleep(seconds)
    return 7


def run_nap(seconds: float, *, task) -> str:
    task.progress(0.5, "half")
    time.sleep(seconds)
    return "slept"


async def run_many(seconds: float) -> float:
    import asyncio
    await asyncio.sleep(seconds)
    return seconds
"""


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER)


@pytest.fixture
def log(tmp_path: Any) -> Any:
    file = tmp_path / "log"
    file.touch()
    return file


def test_fifty_identical_calls_are_one_run(runner: Any, log: Any) -> None:
    with ThreadPoolExecutor(50) as callers:
        payload = {"log": str(log), "seconds": 0.3}
        answers = list(callers.map(lambda _: runner.run("note", payload, id="fifty", attempt=1), range(50)))
    assert [answer.json() for answer in answers] == [{"result": 7}] * 50
    assert log.read_text() == "x\n"


def test_a_call_whose_wait_ended_is_attached_to_later(runner: Any, item: Any) -> None:
    first = runner.run("nap", {"seconds": 0.5}, id="later", attempt=1, wait=0.1)
    assert (first.status_code, first.json()["state"]) == (202, "running")
    assert first.headers["Location"] == "/tasks/later"
    (entry,) = runner.batch("nap", [item("later")])
    assert (entry["state"], entry["result"]) == ("succeeded", "slept")
    assert runner.run("nap", {"seconds": 0.5}, id="later", attempt=1).json() == {"result": "slept"}


def test_a_batch_that_has_not_ended_tells_progress(runner: Any, item: Any) -> None:
    items = [item("slow", {"seconds": 0.6}), item("behind", {"seconds": 0.0})]
    slow, behind = runner.batch("nap", items, wait=0.2)
    assert slow == {"id": "slow", "attempt": 1, "state": "running", "progress": {"fraction": 0.5, "message": "half"}}
    assert behind == {"id": "behind", "attempt": 1, "state": "waiting"}
    entries = runner.batch("nap", [item("slow"), item("behind")])
    assert [entry["state"] for entry in entries] == ["succeeded", "succeeded"]


def test_attach_only_never_starts_anything(runner: Any, item: Any) -> None:
    assert runner.batch("nap", [item("nobody")]) == [{"id": "nobody", "attempt": 1, "state": "unknown"}]
    assert runner.get("/tasks/nobody").status_code == 404


def test_a_higher_attempt_stops_the_lower_one(runner: Any, log: Any, item: Any, until: Any) -> None:
    lower = runner.later(runner.run, "note", {"log": str(log), "seconds": 60}, id="up", attempt=1)
    until(log.read_text, "its handler is at work")
    assert runner.run("note", {"log": str(log), "text": "second"}, id="up", attempt=2).json() == {"result": 7}
    answer = lower.result()
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    stale = runner.run("note", {"log": str(log)}, id="up", attempt=1)
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_attempt")
    assert runner.batch("note", [item("up")])[0]["state"] == "stale_attempt"
    assert runner.batch("note", [item("up", attempt=3)])[0]["state"] == "unknown"
    assert log.read_text() == "x\nsecond\n"


def test_the_same_attempt_with_another_payload_is_a_conflict(runner: Any, log: Any, item: Any) -> None:
    assert runner.run("note", {"log": str(log)}, id="conflict", attempt=1).status_code == 200
    other = runner.run("note", {"log": str(log), "text": "y"}, id="conflict", attempt=1)
    assert (other.status_code, other.json()["code"]) == (409, "id_conflict")
    (entry,) = runner.batch("note", [item("conflict", {"log": str(log), "text": "y"})])
    assert (entry["state"], entry["error"]["code"]) == ("failed", "id_conflict")
    assert log.read_text() == "x\n"


def test_one_task_twice_in_a_batch_is_one_run(runner: Any, log: Any, item: Any) -> None:
    entries = runner.batch("note", [item("twice", {"log": str(log)}), item("twice", {"log": str(log)})])
    assert [entry["result"] for entry in entries] == [7, 7]
    assert log.read_text() == "x\n"


def test_two_attempts_in_a_batch_run_the_higher_one(runner: Any, log: Any, item: Any) -> None:
    payload = {"log": str(log)}
    entries = runner.batch("note", [item("both", payload), item("both", payload, attempt=2)])
    assert [entry["state"] for entry in entries] == ["stale_attempt", "succeeded"]
    assert log.read_text() == "x\n"


def test_the_connection_may_go_and_the_run_goes_on(runner: Any, log: Any, item: Any) -> None:
    import requests

    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{runner.url}/run/note",
            json={"log": str(log), "seconds": 0.4},
            headers={"Task-Id": "gone"},
            timeout=0.1,
        )
    (entry,) = runner.batch("note", [item("gone")])
    assert entry["state"] == "succeeded"
    assert log.read_text() == "x\n"


def test_async_handlers_run_at_the_same_time(runner: Any, item: Any) -> None:
    entries = runner.batch("many", [item(f"many-{n}", {"seconds": 0.3}) for n in range(50)], wait=1.5)
    assert {entry["state"] for entry in entries} == {"succeeded"}


def test_a_full_runner_says_busy_and_counts_nothing(runner: Any, item: Any) -> None:
    first = runner.later(runner.batch, "nap", [item("busy-1", {"seconds": 0.5})])
    runner.until_state("busy-1", "running")
    second = runner.later(runner.batch, "nap", [item("busy-2", {"seconds": 0.0})])
    runner.until_state("busy-2", "waiting")
    third = runner.post_batch("nap", [item("busy-3", {"seconds": 0.0}), item("busy-1")])
    assert (third.status_code, third.json()["code"], third.headers["Retry-After"]) == (429, "busy", "0.05")
    assert runner.run("nap", {"seconds": 0.0}).status_code == 429
    assert runner.state("busy-3") == "unknown"
    assert runner.post_batch("nap", [item("busy-1"), item("busy-2")], wait=0).status_code == 200
    assert first.result()[0]["state"] == second.result()[0]["state"] == "succeeded"


def test_a_task_that_could_not_start_before_its_deadline_has_expired(runner: Any, item: Any) -> None:
    items = [item("ahead", {"seconds": 0.6}), item("late", {"seconds": 0.0}, deadline=0.2)]
    ahead, late = runner.batch("nap", items, wait=0.45)
    assert ahead["state"] == "running"
    assert (late["state"], late["error"]["code"]) == ("failed", "expired")
    (gone,) = runner.batch("nap", [item("gone-by", {"seconds": 0.0}, deadline=-1)])
    assert gone["error"]["code"] == "expired"


def test_a_run_is_stopped_at_its_deadline(runner: Any) -> None:
    answer = runner.run("nap", {"seconds": 60}, deadline=0.3)
    assert (answer.status_code, answer.json()["code"]) == (500, "timeout")
    assert "deadline" in answer.json()["detail"]


def test_every_answer_tells_who_gave_it(runner: Any) -> None:
    boots = {runner.get(path).headers["Runner-Boot"] for path in ("/healthz/live", "/tasks/x", "/nothing", "/docs")}
    assert len(boots) == 1
