"""The list of tasks, and why one waits; the other calls of /tasks are in test_routes."""

from typing import Any

import pytest

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
