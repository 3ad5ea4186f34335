"""Calls of one algorithm: the payload alone is the body, and everything else is as with /tasks."""

import json
import threading
import time
from typing import Any

import pytest
import requests

from runnerlib.contract.envelope import DELAY_RULE, EXPIRES_LATER_RULE, GROUP_RULE


def send(gateway: Any, path: str, payload: Any = None, *, data: bytes | None = None, **headers: str) -> Any:
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    body = json.dumps(payload).encode() if data is None else data
    return requests.post(f"{gateway.url}/algorithms/{path}", data=body, headers=sent, timeout=15)


def test_payload_alone_becomes_a_task(gateway: Any) -> None:
    answer = send(gateway, "upper/tasks?expires_seconds=60", {"text": "a"}, Idempotency_Key="one")
    assert (answer.status_code, answer.headers["Location"]) == (202, "/tasks/one")
    assert (answer.json()["state"], answer.json()["algorithm"]) == ("queued", "upper")
    delivery = gateway.take("upper")
    assert (delivery.id, delivery.payload) == ("one", b'{"text":"a"}')
    assert delivery.expires_at is not None


def test_same_key_is_one_task_however_it_is_sent(gateway: Any) -> None:
    assert send(gateway, "upper/tasks", {"text": "a"}, Idempotency_Key="one").status_code == 202
    assert gateway.post("upper", {"text": "a"}, id="one").status_code == 202
    conflict = send(gateway, "upper/run", {"text": "b"}, Idempotency_Key="one")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "id_conflict")
    gateway.succeed("upper", b'"A"')
    assert send(gateway, "upper/tasks", {"text": "a"}, Idempotency_Key="one").json()["result"] == "A"


def test_run_waits_for_the_result_unless_told_otherwise(gateway: Any) -> None:
    runner = threading.Thread(target=gateway.succeed, args=("upper", b'"A"'))
    runner.start()
    answer = send(gateway, "upper/run", {"text": "a"}, Prefer="return=representation")
    runner.join()
    assert (answer.status_code, answer.json()["result"]) == (200, "A")
    assert "Preference-Applied" not in answer.headers
    for preference in ("wait=0", "wait=0.05"):
        assert send(gateway, "upper/run", {"text": "a"}, Prefer=preference).status_code == 202


def test_run_does_not_wait_for_a_task_that_starts_later_than_it_would_wait(gateway: Any) -> None:
    # waiting it would take longer than `send` does
    answer = send(gateway, "upper/run?delay_seconds=3600", {"text": "a"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_run_tells_a_failure_as_an_ended_task(gateway: Any) -> None:
    runner = threading.Thread(target=gateway.fail, args=("upper", "no"))
    runner.start()
    answer = send(gateway, "upper/run", {"text": "a"}, Prefer="wait=10")
    runner.join()
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]["message"]) == (200, "failed", "no")


def test_tasks_waits_only_when_asked(gateway: Any) -> None:
    runner = threading.Thread(target=gateway.succeed, args=("upper", b'"A"'))
    runner.start()
    answer = send(gateway, "upper/tasks", {"text": "a"}, Prefer="wait=10")
    runner.join()
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=10")


#: body, status, code, words of the sentence
BAD_PAYLOADS = [
    (b"", 400, "malformed", "not JSON"),
    (b"\xff", 400, "malformed", "not UTF-8"),
    (b'{"text":NaN}', 400, "malformed", "NaN"),
    (b'{"text":1e400}', 400, "malformed", "beyond"),
    (b'{"text":"a","text":"b"}', 400, "malformed", "duplicate key"),
    (b'{"text":"\\ud800"}', 400, "malformed", "lone surrogate"),
    (b"9" * 5000, 400, "malformed", "digits"),
    (b"[" * 30_000 + b"]" * 30_000, 400, "malformed", "deeper"),
    (b'{"txt":"a"}', 422, "invalid_payload", "did you mean 'text'?"),
    (b"[]", 422, "invalid_payload", "must be an object"),
    (b'{"text":"a"},"id":"x"', 400, "malformed", "not JSON"),
]


def test_mistakes_are_those_of_a_message(gateway: Any) -> None:
    for call in ("tasks", "run"):
        for data, status, code, words in BAD_PAYLOADS:
            answer = send(gateway, f"upper/{call}", data=data)
            assert (answer.status_code, answer.json()["code"]) == (status, code), data[:80]
            assert words in answer.json()["detail"]
    assert gateway.get("/tasks").json()["tasks"] == []


def test_payload_may_be_as_deep_as_in_a_message(gateway: Any) -> None:
    for depth, status in ((63, 202), (64, 400)):
        payload = b"[" * depth + b"]" * depth
        assert send(gateway, "anything/tasks", data=payload).status_code == status
        message = b'{"algorithm":"anything","payload":' + payload + b"}"
        headers = {"Content-Type": "application/json"}
        assert requests.post(f"{gateway.url}/tasks", data=message, headers=headers, timeout=5).status_code == status


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("call", ["tasks", "run"])
def test_payload_over_the_limit_is_413(gateway: Any, call: str, in_chunks: bool) -> None:
    body = json.dumps({"text": "a" * 70_000}).encode()
    data: Any = iter([body[:1000], body[1000:]]) if in_chunks else body
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{gateway.url}/algorithms/upper/{call}", data=data, headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_unknown_algorithm_is_404_with_near_names_when_the_catalogue_is_sure(gateway: Any) -> None:
    answer = send(gateway, "uper/run", {"text": "a"})
    assert (answer.status_code, answer.json()["code"], answer.json()["near"]) == (404, "unknown_algorithm", ["upper"])
    gateway.watch.is_sure = False
    answer = send(gateway, "uper/run", {"text": "a"}, Prefer="wait=0")
    assert answer.status_code == 202
    assert answer.json()["waiting_for"] == "no runner offers 'uper' now; it waits for one"


def test_name_that_no_algorithm_can_have_is_404(gateway: Any) -> None:
    gateway.watch.is_sure = False
    for name in ("UPPER", "a%20b", "%00", "x" * 64, "%F0%9F%98%80", "tasks.upper"):
        answer = send(gateway, f"{name}/tasks", {"text": "a"})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_algorithm")
        assert name != "UPPER" or answer.json()["near"] == ["upper"]


def test_group_and_delay_are_parameters_beside_the_expiry(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, usual = [], gateway.queue.publish

    async def publish(tasks: Any, **options: Any) -> Any:
        sent.extend(tasks)
        return await usual(tasks, **options)

    monkeypatch.setattr(gateway.queue, "publish", publish)
    before = time.time()
    query = "expires_seconds=90&delay_seconds=60.5&group=tenant:A-1"
    for call in ("tasks", "run"):
        assert send(gateway, f"upper/{call}?{query}", {"text": "a"}, Prefer="wait=0").status_code == 202
    send(gateway, "upper/tasks?delay_seconds=0", {"text": "a"})
    first, second, at_once = sent
    for task in (first, second):
        assert before + 60.5 <= task.not_before <= time.time() + 60.5
        assert (task.group, task.expires_at - task.not_before) == ("tenant:A-1", pytest.approx(29.5))
    assert (at_once.group, at_once.not_before, at_once.expires_at) == (None, None, None)


#: query, the parameter at fault, words of the sentence
BAD_QUERIES = [
    ("expires_seconds=0", "expires_seconds", "must be greater than 0"),
    ("expires_seconds=nan", "expires_seconds", ""),
    ("expires_seconds=1e12", "expires_seconds", "must be less than"),
    ("expires_seconds=soon", "expires_seconds", "must be a valid number"),
    ("expire_seconds=5", "expire_seconds", "did you mean 'expires_seconds'?"),
    ("expires_seconds=5&expires_seconds=6", "expires_seconds", "more than once"),
    ("delay_seconds=-1", "delay_seconds", DELAY_RULE),
    ("delay_seconds=604801", "delay_seconds", DELAY_RULE),
    ("delay_seconds=nan", "delay_seconds", DELAY_RULE),
    ("delay_seconds=soon", "delay_seconds", "must be a valid number"),
    ("expires_seconds=5&delay_seconds=5", "expires_seconds", EXPIRES_LATER_RULE),
    ("group=", "group", GROUP_RULE),
    ("group=a%20b", "group", GROUP_RULE),
    ("group=a%0A", "group", GROUP_RULE),
    ("group=" + "a" * 65, "group", GROUP_RULE),
    ("group=a&group=b", "group", "more than once"),
    ("delay_second=5", "delay_second", "did you mean 'delay_seconds'?"),
]


def test_bad_parameter_is_named(gateway: Any) -> None:
    for query, field, words in BAD_QUERIES:
        answer = send(gateway, f"upper/tasks?{query}", {"text": "a"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), query
        [error] = answer.json()["errors"]
        assert error["field"] == field
        assert words in error["message"] and f"{field} {error['message']}" in answer.json()["detail"]
    assert gateway.get("/tasks").json()["tasks"] == []


def test_other_methods_are_refused(gateway: Any) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = requests.request(method, f"{gateway.url}/algorithms/upper/run", timeout=5)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_page_of_another_site_cannot_send(gateway: Any) -> None:
    answer = requests.post(f"{gateway.url}/algorithms/upper/tasks", data=b'{"text":"a"}', timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
