"""The list of tasks, why one waits, and what a message may say; the other calls of /tasks are in test_tasks."""

import json
from typing import Any

import pytest
import requests

from runnerlib.contract import TaskListView


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [task.id for task in TaskListView.model_validate(answer.json()).tasks]


@pytest.fixture
def filled(gateway: Any) -> Any:
    for task_id in ("a", "b", "c"):
        gateway.post("upper", {"text": task_id}, id=task_id)
    gateway.post("anything", 1, id="d")
    gateway.succeed("upper", b'"A"')
    gateway.fail("upper", "no colours")
    return gateway


def test_newest_task_comes_first_without_payload_or_result(filled: Any) -> None:
    answer = filled.get("/tasks")
    assert ids(answer) == ["d", "c", "b", "a"]
    assert answer.json()["next"] is None
    _, _, failed, succeeded = answer.json()["tasks"]
    assert failed["error"] == {"code": "handler_error", "message": "no colours"}
    assert (succeeded["state"], succeeded["runner"]) == ("succeeded", "text-1")
    assert not {"payload", "result"} & succeeded.keys()


def test_filters(filled: Any) -> None:
    assert ids(filled.get("/tasks?algorithm=upper")) == ["c", "b", "a"]
    assert ids(filled.get("/tasks?state=failed&state=succeeded")) == ["b", "a"]
    assert ids(filled.get("/tasks?algorithm=anything&state=failed")) == []
    since = filled.get("/tasks/c").json()["created_at"]
    assert ids(filled.get(f"/tasks?created_from={since}")) == ["d", "c"]
    assert ids(filled.get(f"/tasks?created_before={since}")) == ["b", "a"]
    # a + that nobody escaped
    assert ids(filled.get("/tasks?created_from=2020-01-01T00:00:00+02:00&limit=1")) == ["d"]
    assert ids(filled.get("/tasks?created_before=2020-01-01")) == []


def test_pages_are_gone_through_by_their_cursor(filled: Any) -> None:
    seen, cursor = [], ""
    for _ in range(10):
        page = filled.get(f"/tasks?limit=1{cursor}")
        seen += ids(page)
        if page.json()["next"] is None:
            break
        cursor = f"&cursor={page.json()['next']}"
    assert seen == ["d", "c", "b", "a"]


#: query, the parameter at fault, words of the sentence
BAD_QUERIES = [
    ("limit=0", "limit", "greater than or equal to 1"),
    ("limit=1001", "limit", "less than or equal to 1000"),
    ("limit=" + "9" * 5000, "limit", ""),
    ("limit=ten", "limit", "must be a valid integer"),
    ("state=done", "state", "must be 'queued'"),
    ("state=failed&state=", "state", "must be 'queued'"),
    ("algorithm=A", "algorithm", "must be an algorithm's name"),
    ("algorithm=", "algorithm", "must be an algorithm's name"),
    ("algorithm=%00", "algorithm", "must be an algorithm's name"),
    ("algorithm=%FF", "algorithm", "must be an algorithm's name"),
    ("algorithm=a&algorithm=b", "algorithm", "is given more than once"),
    ("created_from=1700000000", "created_from", "a time such as"),
    ("created_before=2026-13-01", "created_before", "must be"),
    ("cursor=d5", "cursor", "'next' of the page before"),
    ("cursor=", "cursor", "'next' of the page before"),
    ("stat=failed", "stat", "did you mean 'state'?"),
    ("%FF=1", "\ufffd", "is not a parameter here; there are algorithm, state,"),
]


def test_bad_parameter_is_named(gateway: Any) -> None:
    for query, field, words in BAD_QUERIES:
        answer = gateway.get(f"/tasks?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query
        [error] = answer.json()["errors"]
        assert error["field"] == field
        assert words in error["message"]


def test_any_time_there_is_can_be_asked_for(gateway: Any) -> None:
    for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00%2B14:00"):
        assert gateway.get(f"/tasks?created_from={time}&created_before={time}").status_code == 200


def test_waiting_task_says_what_it_waits_for(gateway: Any) -> None:
    gateway.post("upper", {"text": "a"}, id="one")
    task = gateway.get("/tasks/one").json()
    assert (task["waiting_for"], task["replays"]) == (None, 0)
    view = gateway.watch.catalogue.algorithms["upper"]
    gateway.watch.catalogue.algorithms["upper"] = view.model_copy(update={"runners": []})
    sentence = "no runner offers 'upper' now; it waits for one"
    assert gateway.get("/tasks/one").json()["waiting_for"] == sentence
    assert gateway.get("/tasks").json()["tasks"][0]["waiting_for"] == sentence
    assert gateway.post("upper", {"text": "b"}).json()["waiting_for"] == sentence
    [upper] = [each for each in gateway.get("/status").json()["algorithms"] if each["name"] == "upper"]
    assert (upper["waiting_for_runner"], upper["runners"]) == (True, 0)


UNKNOWN_FIELDS = [
    ({"expire_seconds": 1}, "unknown field 'expire_seconds'; did you mean 'expires_seconds'?"),
    (
        {"run_at": "2026-05-31"},
        "unknown field 'run_at'; a message has algorithm, payload, id, expires_seconds, delay_seconds, group",
    ),
    ({"Payload": {}}, "unknown field 'Payload'; did you mean 'payload'?"),
]


@pytest.mark.parametrize(("more", "sentence"), UNKNOWN_FIELDS)
def test_message_with_an_unknown_field_is_refused_at_every_door(
    gateway: Any, more: dict[str, Any], sentence: str
) -> None:
    good, bad = (
        {"algorithm": "anything", "payload": 1, "id": name, **extra} for name, extra in (("g", {}), ("b", more))
    )
    answer = requests.post(f"{gateway.url}/tasks", json=bad, timeout=10)
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (422, "invalid_request", sentence)
    assert answer.json()["errors"] == [{"field": next(iter(more)), "message": sentence}]
    lines = "\n".join(json.dumps(message) for message in (good, bad))
    headers = {"Content-Type": "application/x-ndjson"}
    batch = requests.post(f"{gateway.url}/tasks/batch", json=[good, bad], timeout=10)
    for answer in (batch, requests.post(f"{gateway.url}/tasks/batch", data=lines, headers=headers, timeout=10)):
        taken, refused = answer.json()
        assert taken == {"id": "g", "state": "queued"}
        assert (refused["id"], refused["problem"]["code"], refused["problem"]["detail"]) == (
            "b",
            "invalid_request",
            sentence,
        )
    assert gateway.get("/tasks/b").status_code == 404


def test_parameter_that_a_call_does_not_have_is_refused(gateway: Any) -> None:
    gateway.post("anything", 1, id="a")
    gateway.fail("anything", "no")
    [dead_id] = [letter["dead_id"] for letter in gateway.get("/dead").json()["dead_letters"]]
    calls = [
        *[("POST", "/tasks"), ("POST", "/tasks/batch"), ("POST", "/tasks/lookup"), ("GET", "/tasks/a")],
        *[("DELETE", "/tasks/a"), ("POST", "/dead/replay"), ("GET", f"/dead/{dead_id}")],
        *[("POST", f"/dead/{dead_id}/discard"), ("GET", "/algorithms"), ("GET", "/algorithms/upper")],
        *[("GET", "/status"), ("POST", "/algorithms/anything/tasks"), ("POST", "/algorithms/anything/run")],
    ]
    for method, path in calls:
        body = {"json": {}} if method == "POST" else {}
        answer = requests.request(method, f"{gateway.url}{path}?expire_seconds=1", timeout=10, **body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), path
        assert answer.json()["errors"][0]["field"] == "expire_seconds"
    assert "did you mean 'expires_seconds'?" in answer.text
    assert gateway.get("/tasks/a").json()["state"] == "failed"


def test_time_of_a_task_is_the_same_in_every_answer(gateway: Any) -> None:
    for answer in (
        gateway.post("anything", 1, id="a"),
        requests.post(f"{gateway.url}/algorithms/anything/tasks", json=1, timeout=10),
    ):
        told = answer.json()
        later = gateway.get(f"/tasks/{told['id']}").json()
        assert (told["created_at"], told["updated_at"]) == (later["created_at"], later["updated_at"])


def test_idempotency_key_and_another_id_contradict_each_other(gateway: Any) -> None:
    def post(key: str, **envelope: Any) -> requests.Response:
        message = {"algorithm": "anything", "payload": 1, **envelope}
        return requests.post(f"{gateway.url}/tasks", json=message, headers={"Idempotency-Key": key}, timeout=10)

    answer = post("k", id="a")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"] == "the message has the id 'a', but its Idempotency-Key is 'k'; send one of them"
    assert gateway.get("/tasks/a").status_code == gateway.get("/tasks/k").status_code == 404
    assert (post("k", id="k").status_code, post("k").status_code) == (202, 202)
    batch = requests.post(f"{gateway.url}/tasks/batch", json=[], headers={"Idempotency-Key": "k"}, timeout=10)
    assert (batch.status_code, batch.json()["code"]) == (422, "invalid_request")
