"""The gateway over real HTTP, on the SQLite queue and store."""

import json
import threading
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator
from prometheus_client import generate_latest

from runnerlib.contract import TaskView
from taskqueue.tasks import Placement


def test_accepted_task_is_durable_and_told_with_its_address(gateway: Any) -> None:
    answer = gateway.post("upper", {"text": "hello"})
    assert answer.status_code == 202
    view = TaskView.model_validate(answer.json())
    assert (view.algorithm, view.state.value, view.attempt, view.result) == ("upper", "queued", 1, None)
    assert answer.headers["Location"] == f"/tasks/{view.id}"
    stored = gateway.get(f"/tasks/{view.id}").json()
    assert stored.keys() == answer.json().keys()
    assert (stored["state"], stored["id"]) == ("queued", view.id)
    assert gateway.take("upper").payload == b'{"text":"hello"}'


def test_result_is_embedded_as_it_was_stored(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    gateway.succeed("upper", b'{"text":"A","n":1.0,"big":18446744073709551615}')
    answer = gateway.get(f"/tasks/{task_id}")
    assert b'"result":{"text":"A","n":1.0,"big":18446744073709551615}' in answer.content
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["runner"] == "text-1"
    assert answer.json()["finished_at"] is not None


def test_failed_task_tells_its_error_and_no_traceback(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    gateway.fail("upper", "no colours below 3")
    answer = gateway.get(f"/tasks/{task_id}")
    assert answer.json()["error"] == {"code": "handler_error", "message": "no colours below 3"}
    assert "Traceback" not in answer.text


def test_progress_of_a_running_task_is_told(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    delivery = gateway.take("upper")
    gateway.run(gateway.store.place([(delivery, Placement(task_id, delivery.attempt, "text-1", "boot"))]))
    gateway.run(gateway.store.report_progress([(task_id, delivery.attempt, 0.5, "half")]))
    view = gateway.get(f"/tasks/{task_id}").json()
    assert view["state"] == "running"
    assert view["progress"] == {"fraction": 0.5, "message": "half"}


# --- ids


def test_same_id_and_content_is_one_task(gateway: Any) -> None:
    first = gateway.post("upper", {"text": "a"}, id="mine")
    again = gateway.post("upper", {"text": "a"}, id="mine")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == "mine"
    gateway.succeed("upper", b'"A"')
    known = gateway.post("upper", {"text": "a"}, id="mine")
    assert known.status_code == 200
    assert known.json()["result"] == "A"


def test_same_id_with_other_content_is_a_conflict(gateway: Any) -> None:
    gateway.post("upper", {"text": "a"}, id="mine")
    answer = gateway.post("upper", {"text": "b"}, id="mine")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "id_conflict"
    assert answer.json()["id"] == "mine"


@pytest.mark.parametrize("key", ["abc-1", '"abc-1"'])
def test_idempotency_key_serves_as_id(gateway: Any, key: str) -> None:
    message = {"algorithm": "upper", "payload": {"text": "a"}}
    for _ in range(2):
        answer = requests.post(f"{gateway.url}/tasks", json=message, headers={"Idempotency-Key": key}, timeout=5)
        assert (answer.status_code, answer.json()["id"]) == (202, "abc-1")


def test_idempotency_key_that_is_no_id_is_refused(gateway: Any) -> None:
    headers = {"Idempotency-Key": "not an id"}
    message = {"algorithm": "upper", "payload": {"text": "a"}}
    answer = requests.post(f"{gateway.url}/tasks", json=message, headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_id")


@pytest.mark.parametrize("path", ["/tasks/a%20b", "/tasks/" + "x" * 129, "/tasks/%F0%9F%98%80"])
def test_path_that_is_no_id_is_refused_with_advice(gateway: Any, path: str) -> None:
    for answer in (gateway.get(path), gateway.delete(path)):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_id")
        assert "1 to 128" in answer.json()["detail"]


def test_unknown_task_is_404(gateway: Any) -> None:
    answer = gateway.get("/tasks/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")


# --- waiting


def test_sender_that_waits_gets_the_result(gateway: Any) -> None:
    runner = threading.Thread(target=gateway.succeed, args=("upper", b'"A"'))
    runner.start()
    message = {"algorithm": "upper", "payload": {"text": "a"}}
    answer = requests.post(f"{gateway.url}/tasks", json=message, headers={"Prefer": "wait=10"}, timeout=15)
    runner.join()
    assert (answer.status_code, answer.json()["result"]) == (200, "A")
    assert answer.headers["Preference-Applied"] == "wait=10"


def test_sender_that_waits_too_short_gets_202(gateway: Any) -> None:
    message = {"algorithm": "upper", "payload": {"text": "a"}}
    answer = requests.post(f"{gateway.url}/tasks", json=message, headers={"Prefer": "wait=0.05"}, timeout=15)
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_get_waits_for_the_end(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    runner = threading.Thread(target=gateway.succeed, args=("upper", b'"A"'))
    runner.start()
    assert gateway.get(f"/tasks/{task_id}", Prefer="wait=10").json()["state"] == "succeeded"
    runner.join()


def test_sender_that_waits_while_the_gateway_stops_still_gets_its_id(gateway: Any) -> None:
    answers = []

    def send() -> None:
        message = {"algorithm": "upper", "payload": {"text": "a"}, "id": "kept"}
        headers = {"Prefer": "wait=30"}
        answers.append(requests.post(f"{gateway.url}/tasks", json=message, headers=headers, timeout=20))

    sender = threading.Thread(target=send)
    sender.start()
    gateway.take("upper")  # it is durable, and its sender waits
    gateway.run(gateway.server.__aexit__(None, None, None))
    sender.join(10)
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(202, "kept")]


# --- cancel


def test_cancel_of_a_waiting_task(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    answer = gateway.delete(f"/tasks/{task_id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert gateway.delete(f"/tasks/{task_id}").status_code == 200


def test_cancel_of_a_running_task_is_asked_for(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    delivery = gateway.take("upper")
    gateway.run(gateway.store.place([(delivery, Placement(task_id, delivery.attempt, "text-1", "boot"))]))
    answer = gateway.delete(f"/tasks/{task_id}")
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert answer.json()["cancel_requested"] is True


def test_cancel_of_a_finished_task_is_409_with_its_state(gateway: Any) -> None:
    task_id = gateway.post("upper", {"text": "a"}).json()["id"]
    gateway.succeed("upper", b'"A"')
    answer = gateway.delete(f"/tasks/{task_id}")
    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["state"]) == ("already_finished", "succeeded")


def test_cancel_before_the_task_arrives_is_remembered(gateway: Any) -> None:
    assert gateway.delete("/tasks/early").json()["state"] == "cancelled"
    answer = gateway.post("upper", {"text": "a"}, id="early")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


# --- refusals


def test_payload_that_does_not_fit_names_every_field(gateway: Any) -> None:
    answer = gateway.post("upper", {"txt": "a", "times": 0})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid_payload"
    assert [(error["field"], error["message"]) for error in problem["errors"]] == [
        ("text", "is missing"),
        ("times", "must be at least 1"),
        ("txt", "is not a field; did you mean 'text'?"),
    ]
    assert "text is missing" in problem["detail"]


def test_unknown_algorithm_is_404_with_near_names_when_the_catalogue_is_sure(gateway: Any) -> None:
    answer = gateway.post("uper", {"text": "a"})
    assert answer.status_code == 404
    assert (answer.json()["code"], answer.json()["near"]) == ("unknown_algorithm", ["upper"])
    assert "'upper'" in answer.json()["detail"]


@pytest.mark.parametrize("has_catalogue", [True, False])
def test_unknown_algorithm_is_accepted_when_nobody_is_sure(gateway: Any, has_catalogue: bool) -> None:
    gateway.watch.is_sure = False
    if not has_catalogue:
        gateway.watch.catalogue = None
    assert gateway.post("uper", {"text": "a"}).status_code == 202


def test_algorithm_without_schema_takes_anything(gateway: Any) -> None:
    assert gateway.post("anything", [1, None]).status_code == 202


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[1]", "must be a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"payload":{}}', "'algorithm'"),
        (b'{"algorithm":"upper"}', "'payload' is missing"),
        (b'{"algorithm":"upper","payload":{"text":NaN}}', "NaN"),
        (b'{"algorithm":"upper","algorithm":"lower","payload":{}}', "duplicate key"),
        (b'{"algorithm":"upper","payload":' + b"[" * 100_0 + b"]" * 100_0 + b"}", "deeper"),
        (b'{"algorithm":"upper","payload":' + b"9" * 5000 + b"}", "digits"),
        (b'{"algorithm":"upper","payload":{},"id":"a b"}', "'id'"),
        (b'{"algorithm":"upper","payload":{},"priority":1}', "not supported"),
    ],
)
def test_malformed_message_is_400_in_words(gateway: Any, body: bytes, words: str) -> None:
    answer = requests.post(f"{gateway.url}/tasks", data=body, headers={"Content-Type": "application/json"}, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_body_that_is_not_called_json_is_refused(gateway: Any, kind: str) -> None:
    body = b'{"algorithm":"upper","payload":{"text":"a"}}'
    answer = requests.post(f"{gateway.url}/tasks", data=body, headers={"Content-Type": kind}, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("in_chunks", [False, True])
def test_message_over_the_limit_is_413(gateway: Any, in_chunks: bool) -> None:
    body = json.dumps({"algorithm": "upper", "payload": {"text": "a" * 70_000}}).encode()
    data = iter([body[:1000], body[1000:]]) if in_chunks else body
    answer = requests.post(f"{gateway.url}/tasks", data=data, headers={"Content-Type": "application/json"}, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_other_methods_and_paths_are_problems(gateway: Any) -> None:
    answer = requests.put(f"{gateway.url}/tasks", timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"
    assert requests.put(f"{gateway.url}/tasks/x", timeout=5).headers["Allow"] == "GET, HEAD, DELETE"
    assert gateway.get("/nothing").json()["code"] == "not_found"


# --- batches


def test_batch_answers_each_message_in_order(gateway: Any) -> None:
    gateway.post("upper", {"text": "a"}, id="known")
    gateway.post("upper", {"text": "b"}, id="taken")
    gateway.succeed("upper", b'"A"')
    batch = [
        {"algorithm": "upper", "payload": {"text": "a"}, "id": "one"},
        {"algorithm": "upper", "payload": {"text": 1}, "id": "two"},
        "nonsense",
        {"algorithm": "upper", "payload": {"text": "a"}, "id": "known"},
        {"algorithm": "upper", "payload": {"text": "other"}, "id": "taken"},
        {"algorithm": "upper", "payload": {"text": "a"}, "id": "one"},
        {"algorithm": "uper", "payload": {}},
        {"algorithm": "anything", "payload": {}},
    ]
    answer = requests.post(f"{gateway.url}/tasks/batch", json=batch, timeout=5)
    assert answer.status_code == 202
    entries = answer.json()
    told = [entry.get("state") or entry["problem"]["code"] for entry in entries]
    assert told == [
        "queued",
        "invalid_payload",
        "malformed",
        "succeeded",
        "id_conflict",
        "queued",
        "unknown_algorithm",
        "queued",
    ]
    assert [entry["id"] for entry in entries[:6]] == ["one", "two", None, "known", "taken", "one"]
    assert entries[1]["problem"]["errors"][0]["field"] == "text"


def test_batch_of_lines(gateway: Any) -> None:
    lines = b'{"algorithm":"upper","payload":{"text":"a"}}\n\n{oops\r\n{"algorithm":"anything","payload":1}'
    headers = {"Content-Type": "application/x-ndjson"}
    answer = requests.post(f"{gateway.url}/tasks/batch", data=lines, headers=headers, timeout=5)
    assert answer.status_code == 202
    told = [entry.get("state") or entry["problem"]["code"] for entry in answer.json()]
    assert told == ["queued", "malformed", "queued"]


@pytest.mark.parametrize(
    ("batch", "status", "code"),
    [
        (b"{}", 400, "malformed"),
        (b"[", 400, "malformed"),
        (json.dumps([{"algorithm": "upper", "payload": {}}] * 1001).encode(), 413, "too_large"),
    ],
)
def test_batch_that_is_none_is_refused_as_a_whole(gateway: Any, batch: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{gateway.url}/tasks/batch", data=batch, headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_large_member_of_a_batch_does_not_stop_the_others(gateway: Any) -> None:
    batch = [{"algorithm": "anything", "payload": "x" * n} for n in (10, 70_000, 10)]
    answer = requests.post(f"{gateway.url}/tasks/batch", json=batch, timeout=5)
    told = [entry.get("state") or entry["problem"]["code"] for entry in answer.json()]
    assert told == ["queued", "too_large", "queued"]


def test_empty_batch_is_fine(gateway: Any) -> None:
    answer = requests.post(f"{gateway.url}/tasks/batch", json=[], timeout=5)
    assert (answer.status_code, answer.json()) == (202, [])


# --- what is told about it


def test_strangers_words_are_no_metric_labels(gateway: Any) -> None:
    gateway.post("upper", {"text": "a"})
    gateway.post("evil_name", {"text": "a"})
    metrics = generate_latest(gateway.registry).decode()
    assert 'gateway_submissions_total{algorithm="upper",outcome="accepted"} 1.0' in metrics
    assert 'gateway_submissions_total{algorithm="unknown",outcome="unknown_algorithm"} 1.0' in metrics
    assert "evil_name" not in metrics


def test_openapi_tells_the_shape_of_what_is_sent(gateway: Any) -> None:
    document = gateway.get("/openapi.json").json()
    submit = document["paths"]["/tasks"]["post"]
    assert {"200", "202", "400", "404", "409", "413", "415", "422", "503"} <= submit["responses"].keys()
    schema = {
        **submit["responses"]["202"]["content"]["application/json"]["schema"],
        "components": document["components"],
    }
    answer = gateway.post("upper", {"text": "a"})
    Draft202012Validator(schema).validate(answer.json())
    problem = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    Draft202012Validator(problem).validate(gateway.post("upper", {}).json())


def test_health_and_documentation_are_there(gateway: Any) -> None:
    assert gateway.get("/healthz/ready").json()["ready"] is True
    assert "swagger" in gateway.get("/docs").text
