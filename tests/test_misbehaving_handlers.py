"""A handler that hangs, dies or lies costs its own attempt, never its neighbours."""

from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    environment = request.getfixturevalue("environment_factory")(tmp_path_factory.mktemp("environment"))
    try:
        yield environment.start("troublemaker", "steady")
    finally:
        environment.stop()


def test_an_endless_loop_fails_as_timeout_after_its_retries_and_frees_its_slot(running: Any) -> None:
    hanging = running.submit("hang", {"forever": True})
    running.in_state(hanging, "running")
    flowing = [running.submit("square", {"number": n}) for n in range(20)]
    for n, task_id in enumerate(flowing):
        assert running.finished(task_id)["result"] == n * n
    view = running.finished(hanging)
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "timeout", 2)
    assert running.finished(running.submit("hang", {"forever": False}))["result"] == "came back"


@pytest.mark.parametrize(("algorithm", "payload"), [("exit", {"code": 1}), ("segfault", {})])
def test_a_handler_that_kills_its_process_fails_after_two_lone_losses(
    running: Any, algorithm: str, payload: dict[str, Any]
) -> None:
    view = running.finished(running.submit(algorithm, payload))
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "runner_lost", 2)
    assert running.finished(running.submit("square", {"number": 3}))["result"] == 9


@pytest.mark.parametrize(
    ("bad", "code"), [(13, "runner_lost"), (7, "handler_error"), (5, "handler_error")], ids=["dies", "raises", "slot"]
)
def test_one_bad_member_of_a_batch_costs_its_neighbours_nothing(running: Any, bad: int, code: str) -> None:
    numbers = [1, 2, bad, 3, 4]
    ids = running.submit_many("picky", [{"number": n} for n in numbers])
    for number, task_id in zip(numbers, ids, strict=True):
        view = running.finished(task_id)
        if number == bad:
            assert (view["state"], view["error"]["code"]) == ("failed", code)
        else:
            assert (view["state"], view["result"], view["attempt"]) == ("succeeded", number * number, 1)


def test_the_sender_reads_the_authors_message_and_no_traceback(running: Any) -> None:
    view = running.finished(running.submit("refuse", {"reason": "no colours below 3"}))
    assert view["error"]["code"] == "handler_error"
    assert "no colours below 3" in view["error"]["message"]
    assert "Traceback" not in str(view)
    assert view["attempt"] == 1


def test_a_transient_error_is_tried_again_until_its_budget_is_spent(running: Any) -> None:
    view = running.finished(running.submit("flaky", {}))
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "handler_error", 4)


def test_a_result_that_is_not_json_fails_as_bad_result(running: Any) -> None:
    view = running.finished(running.submit("bad_result", {}))
    assert (view["state"], view["error"]["code"]) == ("failed", "bad_result")


def test_a_running_task_can_be_cancelled_and_a_finished_one_cannot(
    running: Any, tmp_path: Any, until: Any, delete: Any
) -> None:
    task_id = running.submit("slow", {"seconds": 30, "log": str(tmp_path / "log")})
    until(lambda: running.task(task_id).get("progress"), "progress is visible")
    assert delete(running, task_id) == 202
    assert running.finished(task_id)["state"] == "cancelled"
    done = running.submit("square", {"number": 2})
    running.finished(done)
    assert delete(running, done) == 409


def test_progress_is_seen_within_seconds_also_when_the_algorithm_is_known_to_be_short(
    running: Any, tmp_path: Any, until: Any, delete: Any
) -> None:
    log = str(tmp_path / "log")
    for _ in range(3):
        running.finished(running.submit("slow", {"seconds": 0, "log": log}))
    task_id = running.submit("slow", {"seconds": 15, "log": log})
    until(lambda: (running.task(task_id).get("progress") or {}).get("fraction"), "progress is visible", 8)
    delete(running, task_id)
    assert running.finished(task_id)["state"] == "cancelled"


def test_a_task_cancelled_before_it_starts_never_runs(running: Any, tmp_path: Any, delete: Any) -> None:
    log = tmp_path / "log"
    log.touch()
    blockers = [running.submit("nap", {"seconds": 1.5, "log": str(log)}) for _ in range(4)]
    last = running.submit("nap", {"seconds": 0, "log": str(log)})
    assert running.task(last)["state"] == "queued"
    assert delete(running, last) == 200
    assert running.task(last)["state"] == "cancelled"
    for task_id in blockers:
        running.finished(task_id)
    assert running.finished(last)["state"] == "cancelled"
    assert last not in log.read_text()
