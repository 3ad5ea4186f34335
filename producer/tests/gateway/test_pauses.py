"""Pausing and resuming an algorithm over HTTP: who may, who did, and what everybody sees of it."""

import time
from collections.abc import Callable
from typing import Any

from token_senders import ADMIN_TOKEN, WAIT_SECONDS, Sender

from producer.client.client import GatewayClient
from taskqueue.tokens import Scope

MakeSender = Callable[..., Sender]


def test_paused_algorithm_takes_tasks_and_says_why_they_wait(guarded: Any, admin: Sender) -> None:
    assert admin.submit("upper", {"text": "a"}, id="a").status_code == 202
    assert admin.get("/tasks/a").json()["waiting_for"] is None
    paused = admin.post("/algorithms/upper/pause").json()
    assert (paused["algorithm"], paused["paused"]["by"]) == ("upper", "admin")
    since = paused["paused"]["since"]
    assert admin.submit("upper", {"text": "b"}, id="b").status_code == 202
    for task_id in "ab":
        why = admin.get(f"/tasks/{task_id}").json()["waiting_for"]
        assert why == f"'upper' is paused by admin since {since[:19]}Z; it waits"
    algorithms = {each["name"]: each["paused"] for each in admin.get("/status").json()["algorithms"]}
    assert algorithms == {"anything": None, "upper": paused["paused"]}
    assert admin.get("/algorithms/upper").json()["paused"] == paused["paused"]
    assert admin.post("/algorithms/upper/pause").json() == paused
    assert admin.post("/algorithms/upper/resume").json() == {"algorithm": "upper", "paused": None}
    assert admin.get("/tasks/a").json()["waiting_for"] is None
    assert admin.post("/algorithms/upper/resume").status_code == 200


def test_pauses_are_noted_in_the_audit_when_they_change_something(
    guarded: Any, admin: Sender, make_sender: MakeSender
) -> None:
    operator = make_sender(Scope.OPERATE)
    for call in ("pause", "pause", "resume", "resume"):
        assert operator.post(f"/algorithms/upper/{call}").status_code == 200
    entries = admin.get("/audit").json()["entries"]
    assert [(each["action"], each["who"], each["ids"], each["client"]) for each in entries[:2]] == [
        ("resume", operator.key_id, ["upper"], "127.0.0.1"),
        ("pause", operator.key_id, ["upper"], "127.0.0.1"),
    ]
    assert entries[2]["action"] == "token.create"


def test_only_what_exists_and_what_a_token_may_operate_can_be_paused(
    guarded: Any, admin: Sender, make_sender: MakeSender
) -> None:
    unknown = admin.post("/algorithms/uper/pause")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_algorithm")
    assert "'upper'" in unknown.json()["detail"]
    assert admin.post("/algorithms/UPPER/pause").status_code == 404
    limited = make_sender(Scope.OPERATE, algorithms=("any*",))
    refused = limited.post("/algorithms/upper/pause")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert limited.post("/algorithms/anything/pause").status_code == 200
    guarded.offer(upper=None)
    assert limited.post("/algorithms/anything/resume").status_code == 200


def test_pause_that_was_made_elsewhere_is_seen_soon(gateway: Any) -> None:
    nobody = Sender(gateway.url, None)
    gateway.post("anything", 1, id="a")
    assert nobody.post("/algorithms/upper/pause").json()["paused"]["by"] == ""
    gateway.run(gateway.store.resume("upper"))
    gateway.run(gateway.store.pause("anything", "on-call"))
    ends_at = time.monotonic() + WAIT_SECONDS
    while nobody.get("/tasks/a").json()["waiting_for"] is None:
        assert time.monotonic() < ends_at
    assert nobody.get("/tasks/a").json()["waiting_for"].startswith("'anything' is paused by on-call since 2")
    assert nobody.get("/algorithms/upper").json()["paused"] is None


def test_clients_pause_and_resume(guarded: Any) -> None:
    with GatewayClient(guarded.url, token=ADMIN_TOKEN) as client:
        assert client.pause("upper")["paused"]["by"] == "admin"
        assert client.resume("upper") == {"algorithm": "upper", "paused": None}
