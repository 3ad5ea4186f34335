"""Dead letters over HTTP: listed, shown, replayed and discarded, one by one and many at once."""

import base64
from typing import Any

import requests

from runnerlib.contract import DeadLetterDetail, DeadLetterListView, FailureCode, task_digest
from taskqueue.tasks import Conflicting, Delivery, Failed


def post(gateway: Any, path: str, body: Any = None, **headers: str) -> requests.Response:
    return requests.post(f"{gateway.url}/dead/{path}", json=body, headers=headers, timeout=10)


def letters(gateway: Any, query: str = "") -> list[dict[str, Any]]:
    answer = gateway.get(f"/dead{query}")
    assert answer.status_code == 200, answer.text
    DeadLetterListView.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


def fail(gateway: Any, *ids: str) -> None:
    """Tasks of `upper` that failed, in this order."""
    for task_id in ids:
        gateway.post("upper", {"text": task_id}, id=task_id)
        gateway.fail("upper", f"no colours in {task_id}")


def fail_stranger(gateway: Any, body: bytes, **headers: Any) -> None:
    """A message that came past the gateway and can never become a task."""
    delivery = Delivery("stranger", "", body, "", 1, receipt=None, headers=headers, body=body)
    gateway.run(gateway.store.record([Failed(delivery, FailureCode.MALFORMED, "the message is not JSON")]))


def test_failed_task_is_listed_without_its_message_and_shown_with_all(gateway: Any) -> None:
    fail(gateway, "one")
    [line] = letters(gateway)
    assert (line["task_id"], line["algorithm"], line["code"], line["attempts"]) == ("one", "upper", "handler_error", 1)
    assert not {"body", "traceback", "history"} & line.keys()
    shown = gateway.get(f"/dead/{line['dead_id']}").json()
    DeadLetterDetail.model_validate(shown)
    assert {key: shown[key] for key in line} == line
    assert shown["traceback"] == "Traceback: secret"
    assert [entry["message"] for entry in shown["history"]] == ["no colours in one"]
    assert '"text"' in shown["body"]
    assert base64.b64decode(shown["body_base64"]).decode() == shown["body"]


def test_message_that_is_no_text_is_shown_in_base64(gateway: Any) -> None:
    fail_stranger(gateway, b"\xff\x00", origin="x")
    [line] = letters(gateway)
    shown = gateway.get(f"/dead/{line['dead_id']}").json()
    assert (shown["body"], base64.b64decode(shown["body_base64"])) == (None, b"\xff\x00")
    assert (shown["headers"], shown["attempts"], shown["algorithm"]) == ({"origin": "x"}, 1, "")


def test_filters_and_pages(gateway: Any) -> None:
    fail(gateway, "one", "two", "three")
    fail_stranger(gateway, b"{")
    assert [line["task_id"] for line in letters(gateway)] == ["stranger", "three", "two", "one"]
    assert [line["task_id"] for line in letters(gateway, "?algorithm=upper&limit=2")] == ["three", "two"]
    assert [line["task_id"] for line in letters(gateway, "?code=malformed&code=timeout")] == ["stranger"]
    assert [line["task_id"] for line in letters(gateway, "?task_id=two")] == ["two"]
    assert letters(gateway, "?created_before=2020-01-01T00:00:00Z") == []
    first = gateway.get("/dead?limit=3").json()
    assert first["next"] is not None
    assert [line["task_id"] for line in letters(gateway, f"?limit=3&cursor={first['next']}")] == ["one"]


def test_replayed_task_runs_again_under_its_id(gateway: Any) -> None:
    fail(gateway, "one")
    [line] = letters(gateway)
    answer = post(gateway, f"{line['dead_id']}/replay")
    assert (answer.status_code, answer.headers["Location"]) == (202, "/tasks/one")
    task = answer.json()
    assert (task["id"], task["state"], task["attempt"], task["replays"]) == ("one", "queued", 2, 1)
    assert (task["error"], task["finished_at"]) == (None, None)
    delivery = gateway.succeed("upper", b'"ONE"')
    assert (delivery.id, delivery.attempt) == ("one", 2)
    assert gateway.get("/tasks/one").json()["result"] == "ONE"
    assert letters(gateway) == []
    [replayed] = letters(gateway, "?all=true")
    assert replayed["replayed_at"] is not None and replayed["discarded_at"] is None
    again = post(gateway, f"{line['dead_id']}/replay")
    assert (again.status_code, again.json()["code"]) == (409, "already_replayed")
    assert post(gateway, f"{line['dead_id']}/discard").json()["code"] == "already_replayed"


def test_discarded_dead_letter_is_still_shown_and_never_replayed(gateway: Any) -> None:
    fail(gateway, "one")
    [line] = letters(gateway)
    answer = post(gateway, f"{line['dead_id']}/discard")
    assert answer.status_code == 200
    assert (answer.json()["dead_id"], answer.json()["discarded_at"] is None) == (line["dead_id"], False)
    for call in ("replay", "discard"):
        again = post(gateway, f"{line['dead_id']}/{call}")
        assert (again.status_code, again.json()["code"]) == (409, "already_discarded")
        assert str(line["dead_id"]) in again.json()["detail"]
    assert letters(gateway) == []
    assert len(letters(gateway, "?all=true")) == 1
    assert gateway.get("/tasks/one").json()["state"] == "failed"


def test_what_can_never_run_is_not_replayable(gateway: Any) -> None:
    fail_stranger(gateway, b"{")
    gateway.post("upper", {"text": "a"}, id="one")
    other = Delivery("one", "upper", b'{"text":"b"}', task_digest("upper", {"text": "b"}), 1, receipt=None)
    gateway.run(gateway.store.record([Conflicting(other, "the id is another task's")]))
    for line in letters(gateway):
        answer = post(gateway, f"{line['dead_id']}/replay")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_replayable")
        assert post(gateway, f"{line['dead_id']}/discard").status_code == 200


def test_many_by_their_ids(gateway: Any) -> None:
    fail(gateway, "one", "two")
    fail_stranger(gateway, b"{")
    stranger, two, one = (line["dead_id"] for line in letters(gateway))
    answer = post(gateway, "replay", {"ids": [one, stranger, 999, two, one]})
    assert answer.status_code == 200
    done = answer.json()
    assert (done["done"], done["next"]) == (2, None)
    assert [(each["dead_id"], each["code"]) for each in done["skipped"]] == [
        (stranger, "not_replayable"),
        (999, "unknown_dead_letter"),
    ]
    assert all(each["detail"].endswith(".") for each in done["skipped"])
    assert [gateway.take("upper").id for _ in range(2)] == ["one", "two"]
    assert post(gateway, "discard", {"ids": [stranger]}).json() == {"done": 1, "skipped": [], "next": None}
    assert post(gateway, "discard", {"ids": []}).json()["done"] == 0


def test_many_by_a_filter_page_by_page(gateway: Any) -> None:
    fail(gateway, *(f"t{number}" for number in range(5)))
    fail_stranger(gateway, b"{")
    body: dict[str, Any] = {"filter": {"algorithm": "upper", "codes": ["handler_error"]}, "limit": 2}
    done, calls = 0, 0
    while True:
        answer = post(gateway, "replay", body).json()
        done, calls = done + answer["done"], calls + 1
        if answer["next"] is None or calls > 10:
            break
        body["cursor"] = answer["next"]
    assert (done, calls) == (5, 3)
    assert [line["task_id"] for line in letters(gateway)] == ["stranger"]
    assert {gateway.take("upper").id for _ in range(5)} == {f"t{number}" for number in range(5)}
    assert post(gateway, "discard", {"filter": {}}).json()["done"] == 1
    assert letters(gateway) == []


def test_filter_never_touches_what_is_decided(gateway: Any) -> None:
    fail(gateway, "one", "two")
    two, one = (line["dead_id"] for line in letters(gateway))
    post(gateway, f"{one}/discard")
    assert post(gateway, "replay", {"filter": {}}).json() == {"done": 1, "skipped": [], "next": None}
    assert gateway.take("upper").id == "two"
    assert gateway.get("/tasks/one").json()["state"] == "failed"
    assert gateway.get(f"/dead/{two}").json()["replayed_at"] is not None


#: body, the field at fault, words of the sentence
BAD_BODIES: list[tuple[Any, str, str]] = [
    ({}, "body", "either 'ids' or 'filter'"),
    ([], "body", "either 'ids' or 'filter'"),
    ({"ids": [1], "filter": {}}, "body", "either 'ids' or 'filter'"),
    ({"ids": ["1"]}, "ids[0]", "must be a whole number"),
    ({"ids": [True]}, "ids[0]", "must be a whole number"),
    ({"ids": [1, 0]}, "ids[1]", "greater than"),
    ({"ids": [2**63]}, "ids[0]", "less than"),
    ({"ids": [1] * 1001}, "ids", "at most 1000"),
    ({"ids": [1], "limit": 5}, "limit", "is not a field here"),
    ({"filter": {"code": ["timeout"]}}, "filter.code", "did you mean 'codes'?"),
    ({"filter": {"codes": ["nonsense"]}}, "filter.codes[0]", "must be 'malformed'"),
    ({"filter": {"algorithm": "A"}}, "filter.algorithm", "must be an algorithm's name"),
    ({"filter": {"task_id": "a\u0000b"}}, "filter.task_id", "must be a task id"),
    ({"filter": {"created_from": 5}}, "filter.created_from", "a time such as"),
    ({"filter": {}, "limit": 1001}, "limit", "less than"),
    ({"filter": {}, "cursor": "t5"}, "cursor", "'next' of the page before"),
]


def test_mistake_in_a_call_on_many_changes_nothing(gateway: Any) -> None:
    fail(gateway, "one")
    for call in ("replay", "discard"):
        for body, field, words in BAD_BODIES:
            answer = post(gateway, call, body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), body
            [error] = answer.json()["errors"]
            assert error["field"] == field
            assert words in error["message"]
        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"{gateway.url}/dead/{call}", data=b"{", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert len(letters(gateway)) == 1


def test_id_of_nothing_is_told(gateway: Any) -> None:
    for path, status, code in (
        ("7", 404, "unknown_dead_letter"),
        ("0", 422, "invalid_id"),
        ("9" * 19, 422, "invalid_id"),
        ("9" * 5000, 422, "invalid_id"),
        ("seven", 404, "not_found"),
        ("-1", 404, "not_found"),
    ):
        for answer in (gateway.get(f"/dead/{path}"), post(gateway, f"{path}/replay"), post(gateway, f"{path}/discard")):
            assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_other_methods_are_refused(gateway: Any) -> None:
    for path, allowed in (
        *(("/dead", "GET, HEAD"), ("/dead/7", "GET, HEAD")),
        *(("/dead/replay", "POST"), ("/dead/7/discard", "POST")),
    ):
        answer = requests.delete(f"{gateway.url}{path}", timeout=5)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert gateway.get("/dead/replay").status_code == 405


def test_page_of_another_site_changes_nothing(gateway: Any) -> None:
    fail(gateway, "one")
    [line] = letters(gateway)
    for call in ("replay", "discard"):
        for told in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": "https://elsewhere.example"},
            {"Origin": "null"},
            {"Origin": "http://["},
        ):
            answer = post(gateway, f"{line['dead_id']}/{call}", **told)
            assert (answer.status_code, answer.json()["code"]) == (403, "other_site")
        answer = requests.post(f"{gateway.url}/dead/{call}", data='{"filter":{}}', timeout=5)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert len(letters(gateway)) == 1
    # a proxy may call us by another name than the page does: the browser knows better
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "https://tasks.example"}
    assert post(gateway, f"{line['dead_id']}/replay", **own).status_code == 202
    gateway.fail("upper", "no colours again")
    [line] = letters(gateway)
    assert post(gateway, f"{line['dead_id']}/discard", Origin=gateway.url).status_code == 200
