"""Every mistake that any AMQP client can put into the queue `tasks`: the task fails in words, and nothing is lost."""

import contextlib
import hashlib
import json
from typing import Any

import pika
import pytest
import requests
from bad_messages import CARRIED, MESSAGES, PAYLOADS, Bad, carrying
from environments import until

# Each test takes seconds; together they take minutes, and so they begin early.
pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024


def each(cases: list[Bad]) -> Any:
    return pytest.mark.parametrize("bad", cases, ids=[case.name for case in cases])


@each(MESSAGES)
def test_what_is_no_message_fails_as_malformed_and_its_bytes_are_kept(broker_scene: Any, bad: Bad) -> None:
    task_id = broker_scene.publish(bad.body, headers={"from": "a\x00 stranger"})
    view = broker_scene.ended(task_id)
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "malformed", 1)
    assert bad.says in view["error"]["message"]
    [(code, body, headers)] = broker_scene.dead_letters(task_id)
    assert (code, body) == ("malformed", bad.body)
    assert "stranger" in headers


@each(PAYLOADS)
def test_payload_that_does_not_fit_fails_without_a_retry_and_names_the_field(broker_scene: Any, bad: Bad) -> None:
    body = b'{"algorithm": "repeat", "payload": %b}' % bad.body
    task_id = broker_scene.publish(body)
    view = broker_scene.ended(task_id)
    assert (view["state"], view["error"]["code"], view["attempt"]) == ("failed", "invalid_payload", 1)
    # of a payload that is no object there is no field to name
    assert bad.says in view["error"]["message"] or bad.says == "payload"
    assert [(code, kept) for code, kept, _ in broker_scene.dead_letters(task_id)] == [("invalid_payload", body)]


@pytest.mark.parametrize("text", CARRIED.values(), ids=CARRIED)
def test_unusual_values_are_carried_faithfully(broker_scene: Any, text: bytes) -> None:
    view = broker_scene.ended(broker_scene.publish(carrying(text)))
    assert view["state"] == "succeeded", view["error"]
    assert json.dumps(view["result"]) == json.dumps(json.loads(text))


def test_of_a_message_over_the_limit_the_beginning_and_the_digest_are_kept(broker_scene: Any) -> None:
    frame = b'{"algorithm": "measure", "payload": {"text": ""}}'
    body = frame.replace(b'""', b'"' + b"x" * MIB + b'"')
    task_id = broker_scene.publish(body)
    view = broker_scene.ended(task_id)
    assert (view["state"], view["error"]["code"]) == ("failed", "too_large")
    assert "the limit is 1048576; store the data elsewhere and send a reference" in view["error"]["message"]
    [(code, kept, headers)] = broker_scene.dead_letters(task_id)
    assert (code, kept) == ("too_large", body[:4096])
    told = json.loads(headers)
    assert (told["body_bytes"], told["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_message_over_16_mib_is_refused_by_the_broker_or_fails_as_too_large(broker_scene: Any) -> None:
    """RabbitMQ 4 takes none; 3.10 does."""
    task_id = broker_scene.new_id()
    was_refused = False
    with contextlib.suppress(pika.exceptions.AMQPError):
        was_refused = True
        broker_scene.publish(b"x" * (17 * MIB), task_id)
        was_refused = False
    if was_refused:
        assert broker_scene.is_unknown(task_id)
    else:
        assert broker_scene.ended(task_id)["error"]["code"] == "too_large"
        [(_, kept, _)] = broker_scene.dead_letters(task_id)
        assert kept == b"x" * 4096
    assert broker_scene.ended(broker_scene.publish(carrying(b"1")))["result"] == 1


def test_same_id_twice_is_one_task_and_with_another_content_a_conflict(broker_scene: Any) -> None:
    task_id, log = broker_scene.new_id(), broker_scene.log()

    def message(text: str) -> bytes:
        return json.dumps({"algorithm": "noted", "payload": {"text": text, "log": str(log)}}).encode()

    for _ in range(3):
        broker_scene.publish(message("a"), task_id)
    assert broker_scene.ended(task_id)["result"] == "a"
    broker_scene.publish(message("a"), task_id)
    broker_scene.publish(message("b"), task_id)
    until(lambda: broker_scene.dead_letters(task_id), "the conflict is among the dead letters")
    assert [(code, body) for code, body, _ in broker_scene.dead_letters(task_id)] == [("id_conflict", message("b"))]
    assert broker_scene.ended(task_id)["result"] == "a"
    # the gateway knows it, too
    answer = requests.post(f"{broker_scene.url}/tasks", json={**json.loads(message("b")), "id": task_id}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (409, "id_conflict")
    assert log.read_text().split() == [task_id]


def test_task_that_was_cancelled_before_it_came_or_while_it_waited_never_runs(broker_scene: Any) -> None:
    early = broker_scene.new_id()
    assert broker_scene.cancel(early).json()["state"] == "cancelled"
    with broker_scene.busy() as log:
        body = json.dumps({"algorithm": "gentle", "payload": {"log": str(log)}}).encode()
        waiting = broker_scene.publish(body)
        assert broker_scene.cancel(waiting).json()["state"] == "cancelled"
        broker_scene.publish(body, early)
        last = broker_scene.publish(body)
    until(lambda: last in log.read_text(), "what came last runs")
    broker_scene.cancel(last)
    assert [broker_scene.ended(task_id)["state"] for task_id in (early, waiting, last)] == ["cancelled"] * 3
    assert early not in log.read_text()
    assert waiting not in log.read_text()


@pytest.mark.parametrize("algorithm", ["gentle", "stubborn"])
def test_running_task_is_stopped_when_it_is_cancelled_if_need_be_by_force(broker_scene: Any, algorithm: str) -> None:
    log = broker_scene.log()
    body = json.dumps({"algorithm": algorithm, "payload": {"log": str(log)}}).encode()
    task_id = broker_scene.publish(body)
    until(lambda: log.read_text(), "it runs")
    assert broker_scene.cancel(task_id).status_code in (200, 202)
    assert broker_scene.ended(task_id)["state"] == "cancelled"
    after = broker_scene.publish(body)
    until(lambda: after in log.read_text(), "its slot works again")
    broker_scene.cancel(after)


def test_task_that_expires_while_it_waits_never_runs(broker_scene: Any) -> None:
    with broker_scene.busy() as log:
        message = {"algorithm": "gentle", "payload": {"log": str(log)}, "expires_seconds": 0.2}
        late = broker_scene.publish(json.dumps(message).encode())
        # counted from when a controller has seen it
        broker_scene.pass_seconds(2.0)
    view = broker_scene.ended(late)
    assert (view["state"], view["error"]["code"]) == ("failed", "expired")
    assert [code for code, _, _ in broker_scene.dead_letters(late)] == ["expired"]
    assert late not in log.read_text()
