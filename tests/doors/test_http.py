"""Every mistake that can be sent to the gateway, on both kinds of queue: a sentence, and nothing is left behind."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from bad_messages import CARRIED, MESSAGES, PAYLOADS, VALUES, Bad, carrying
from environments import until

# Each test takes seconds; together they take minutes, and so they begin early.
pytestmark = pytest.mark.timeout(300)

PROBLEM = "application/problem+json"
MIB = 1024 * 1024


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that was answered; its sentence has neither a traceback nor an endless quotation."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM), answer.text[:500]
    told: dict[str, Any] = answer.json()
    assert (told["status"], told["code"]) == (status, code)
    assert "Traceback" not in answer.text
    assert len(answer.content) < 4_000
    return told


def nothing_is_left(scene: Any, task_id: str) -> bool:
    return scene.is_unknown(task_id) and not scene.dead_letters(task_id)


def each(cases: list[Bad]) -> Any:
    return pytest.mark.parametrize("bad", cases, ids=[case.name for case in cases])


@each(MESSAGES)
def test_what_is_no_message_is_refused_with_its_reason(scene: Any, bad: Bad) -> None:
    task_id = scene.new_id()
    told = problem(scene.post("/tasks", bad.body, Idempotency_Key=task_id), 400, "malformed")
    assert bad.says in told["detail"]
    assert nothing_is_left(scene, task_id)


def test_bad_lines_of_a_batch_are_refused_and_the_others_go_on(scene: Any) -> None:
    bad_ones = [bad for bad in MESSAGES if bad.body.strip() and b"\n" not in bad.body]
    good = [scene.new_id() for _ in bad_ones]
    lines = [
        line
        for bad, task_id in zip(bad_ones, good, strict=True)
        for line in (bad.body, b'{"algorithm": "carry", "payload": {"value": 1}, "id": "%b"}' % task_id.encode())
    ]
    answer = scene.post("/tasks/batch", b"\n".join(lines), Content_Type="application/x-ndjson")
    assert answer.status_code == 202, answer.text[:500]
    entries = answer.json()
    for bad, entry in zip(bad_ones, entries[::2], strict=True):
        assert entry["problem"]["code"] == "malformed", bad.name
        assert bad.says in entry["problem"]["detail"], bad.name
    for task_id in good:
        assert scene.ended(task_id)["result"] == 1


@each(PAYLOADS)
def test_payload_that_does_not_fit_is_refused_with_the_field_at_fault(scene: Any, bad: Bad) -> None:
    task_id = scene.new_id()
    message = b'{"algorithm": "repeat", "payload": %b}' % bad.body
    told = problem(scene.post("/tasks", message, Idempotency_Key=task_id), 422, "invalid_payload")
    assert bad.says in [error["field"] for error in told["errors"]]
    assert bad.says in told["detail"]
    assert nothing_is_left(scene, task_id)


@each([*VALUES, *(Bad(bad.name, bad.body, bad.says) for bad in MESSAGES if bad.name in ("empty", "half", "binary"))])
@pytest.mark.parametrize("door", ["tasks", "run"])
def test_typed_doors_read_their_payload_as_strictly(scene: Any, bad: Bad, door: str) -> None:
    task_id = scene.new_id()
    body = b'{"value": ' + bad.body + b"}" if bad in VALUES else bad.body
    answer = scene.post(f"/algorithms/carry/{door}", body, Idempotency_Key=task_id)
    told = problem(answer, 400, "malformed")
    assert bad.says in told["detail"]
    assert nothing_is_left(scene, task_id)


@each(PAYLOADS)
@pytest.mark.parametrize("door", ["tasks", "run"])
def test_typed_doors_name_the_field_at_fault(scene: Any, bad: Bad, door: str) -> None:
    task_id = scene.new_id()
    answer = scene.post(f"/algorithms/repeat/{door}", bad.body, Idempotency_Key=task_id)
    told = problem(answer, 422, "invalid_payload")
    assert bad.says in [error["field"] for error in told["errors"]]
    assert nothing_is_left(scene, task_id)


@pytest.mark.parametrize("text", CARRIED.values(), ids=CARRIED)
def test_unusual_values_are_carried_faithfully(scene: Any, text: bytes) -> None:
    answer = scene.post("/tasks", carrying(text), Prefer="wait=20")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded"), answer.text[:500]
    assert json.dumps(answer.json()["result"]) == json.dumps(json.loads(text))
    again = requests.get(f"{scene.url}/tasks/{answer.json()['id']}", timeout=10)
    assert json.dumps(again.json()["result"]) == json.dumps(json.loads(text))


def test_what_a_handler_says_may_hold_anything(scene: Any) -> None:
    for text in ("a\u0000b", "\U0001f600", "'); DROP TABLE tasks; --", "\u202e\x1b[2J"):
        view = scene.ended(scene.environment.submit("mendable", {"file": f"/nowhere/{text}"}))
        assert (view["state"], view["error"]["code"]) == ("failed", "handler_error")
        assert "is missing" in view["error"]["message"]


def test_unknown_algorithm_is_refused_with_near_names_once_discovery_is_sure(scene: Any) -> None:
    until(lambda: requests.get(f"{scene.url}/algorithms", timeout=5).json()["complete"], "the gateway is sure")
    for path in ("/tasks", "/algorithms/repaet/tasks", "/algorithms/repaet/run"):
        task_id = scene.new_id()
        body = b'{"algorithm": "repaet", "payload": {}}' if path == "/tasks" else b"{}"
        told = problem(scene.post(path, body, Idempotency_Key=task_id), 404, "unknown_algorithm")
        assert "'repeat'" in told["detail"]
        assert told["near"][0] == "repeat"
        assert nothing_is_left(scene, task_id)


def test_message_over_the_limit_is_refused_before_it_is_read(scene: Any) -> None:
    def message(size: int) -> bytes:
        frame = b'{"algorithm": "measure", "payload": {"text": ""}}'
        return frame.replace(b'""', b'"' + b"x" * (size - len(frame)) + b'"')

    def in_chunks(body: bytes) -> Iterator[bytes]:
        return (body[start : start + 100_000] for start in range(0, len(body), 100_000))

    fits = scene.post("/tasks", message(MIB), Prefer="wait=20").json()
    assert (fits["state"], fits["result"]) == ("succeeded", MIB - 49)
    task_id = scene.new_id()
    large = message(MIB + 1)
    for path, body in (("/tasks", large), ("/algorithms/measure/tasks", large), ("/tasks", in_chunks(large))):
        told = problem(scene.post(path, body, Idempotency_Key=task_id), 413, "too_large")
        assert "reference" in told["detail"]
    assert nothing_is_left(scene, task_id)


@pytest.mark.parametrize(
    ("algorithm", "payload", "says"),
    [
        ("no_json", {}, "run_no_json() returned something that is not JSON"),
        ("no_number", {}, "NaN"),
        ("no_text", {}, "run_no_text() returned something that is not JSON"),
        ("huge", {"megabytes": 50}, "run_huge() returned 50000002 bytes of JSON, the limit is 1048576"),
    ],
)
def test_result_that_cannot_be_told_fails_in_words(
    scene: Any, algorithm: str, payload: dict[str, Any], says: str
) -> None:
    view = scene.ended(scene.environment.submit(algorithm, payload))
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "bad_result", 1)
    assert says in view["error"]["message"]
    assert [code for code, _, _ in scene.dead_letters(view["id"])] == ["bad_result"]


def test_same_id_with_the_same_content_is_one_task_and_with_another_a_conflict(scene: Any) -> None:
    task_id, log = scene.new_id(), scene.log()

    def send(text: str) -> requests.Response:
        message = {"algorithm": "noted", "payload": {"text": text, "log": str(log)}, "id": task_id}
        return scene.post("/tasks", json.dumps(message).encode())

    # 200 when it has ended by then, as it may on a busy machine.
    assert send("a").status_code in (200, 202)
    assert send("a").status_code in (200, 202)
    assert scene.ended(task_id)["result"] == "a"
    again = send("a")
    assert (again.status_code, again.json()["state"]) == (200, "succeeded")
    told = problem(send("b"), 409, "id_conflict")
    assert task_id in told["detail"]
    assert scene.ended(task_id)["result"] == "a"
    assert log.read_text().split() == [task_id]


def test_task_that_is_cancelled_while_it_waits_never_runs(scene: Any) -> None:
    with scene.busy() as log:
        waiting = scene.environment.submit("gentle", {"log": str(log)})
        answer = scene.cancel(waiting)
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    last = scene.environment.submit("gentle", {"log": str(log)})
    until(lambda: last in log.read_text(), "the slot works again")
    scene.cancel(last)
    assert scene.ended(waiting)["state"] == "cancelled"
    assert waiting not in log.read_text()


@pytest.mark.parametrize("algorithm", ["gentle", "stubborn"])
def test_running_task_is_stopped_when_it_is_cancelled_if_need_be_by_force(scene: Any, algorithm: str) -> None:
    log = scene.log()
    task_id = scene.environment.submit(algorithm, {"log": str(log)})
    until(lambda: log.read_text(), "it runs")
    scene.environment.in_state(task_id, "running")
    answer = scene.cancel(task_id)
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    view = scene.ended(task_id)
    assert (view["state"], view["attempt"], view["result"]) == ("cancelled", 1, None)
    assert log.read_text().split() == [task_id]
    again = scene.cancel(task_id)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    after = scene.environment.submit(algorithm, {"log": str(log)})
    until(lambda: after in log.read_text(), "its slot works again")
    scene.cancel(after)


@pytest.mark.parametrize(("algorithm", "state"), [("carry", "succeeded"), ("no_json", "failed")])
def test_finished_task_cannot_be_cancelled(scene: Any, algorithm: str, state: str) -> None:
    task_id = scene.environment.submit(algorithm, {"value": 1} if algorithm == "carry" else {})
    scene.ended(task_id)
    told = problem(scene.cancel(task_id), 409, "already_finished")
    assert (told["id"], told["state"]) == (task_id, state)
    assert scene.ended(task_id)["state"] == state


def test_task_that_expires_while_it_waits_never_runs(scene: Any) -> None:
    with scene.busy() as log:
        late = scene.environment.submit("gentle", {"log": str(log)}, expires_seconds=0.2)
        scene.pass_seconds(0.3)
    view = scene.ended(late)
    assert (view["state"], view["error"]["code"]) == ("failed", "expired")
    assert [code for code, _, _ in scene.dead_letters(late)] == ["expired"]
    assert late not in log.read_text()
