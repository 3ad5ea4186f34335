"""A task belongs to the token that submitted it: nobody else sees it, changes it or learns that it is there."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from token_senders import Sender

from taskqueue.tokens import Scope

SUBMIT, READ, READ_ALL, OPERATE = Scope.SUBMIT, Scope.READ, Scope.READ_ALL, Scope.OPERATE
MakeSender = Callable[..., Sender]


@pytest.fixture
def owner(make_sender: MakeSender) -> Sender:
    return make_sender(SUBMIT, READ)


@pytest.fixture
def stranger(make_sender: MakeSender) -> Sender:
    return make_sender(SUBMIT, READ)


def codes(*answers: Any) -> list[tuple[int, str]]:
    return [(answer.status_code, answer.json().get("code", "")) for answer in answers]


def test_task_of_another_is_not_there(guarded: Any, owner: Sender, stranger: Sender) -> None:
    assert owner.submit("upper", {"text": "a"}, id="mine").status_code == 202
    assert codes(stranger.get("/tasks/mine"), stranger.call("DELETE", "/tasks/mine")) == [(404, "unknown_task")] * 2
    assert stranger.post("/tasks/lookup", {"ids": ["mine"]}).json() == {"tasks": [], "left_out": []}
    assert owner.get("/tasks/mine").json()["state"] == "queued"
    guarded.succeed("upper", b'"A"')
    assert owner.get("/tasks/mine").json()["result"] == "A"
    assert owner.post("/tasks/lookup", {"ids": ["mine"]}).json()["tasks"][0]["result"] == "A"
    assert stranger.get("/tasks/mine").json()["detail"] == stranger.get("/tasks/xxxx").json()["detail"].replace(
        "xxxx", "mine"
    )


def test_wait_for_a_task_of_another_takes_as_long_as_for_none(guarded: Any, owner: Sender, stranger: Sender) -> None:
    owner.submit("upper", {"text": "a"}, id="mine")
    guarded.succeed("upper", b'"A"')
    began = time.monotonic()
    assert stranger.get("/tasks/mine", Prefer="wait=0.5").status_code == 404
    assert time.monotonic() - began >= 0.5
    assert owner.get("/tasks/mine", Prefer="wait=5").json()["result"] == "A"


@pytest.mark.parametrize("content", ["a", "b"])
@pytest.mark.parametrize("way", ["message", "key", "payload", "batch"])
def test_id_of_another_is_a_conflict_that_tells_and_changes_nothing(
    guarded: Any, owner: Sender, stranger: Sender, content: str, way: str
) -> None:
    owner.submit("upper", {"text": "a"}, id="mine")
    message = {"algorithm": "upper", "payload": {"text": content}}
    if way == "message":
        answer = stranger.post("/tasks", {**message, "id": "mine"})
    elif way == "key":
        answer = stranger.post("/tasks", message, **{"Idempotency-Key": "mine"})
    elif way == "payload":
        headers = {"Idempotency-Key": "mine", "Prefer": "wait=1"}
        answer = stranger.post("/algorithms/upper/run", message["payload"], **headers)
    else:
        answer = stranger.post("/tasks/batch", [{**message, "id": "mine"}])
        assert answer.status_code == 202
    problem = answer.json() if way != "batch" else answer.json()[0]["problem"]
    assert problem["status"] == 409
    assert problem["detail"] == (
        "the id 'mine' belongs to another task: its content, or who sent it, is another; use another id, or none to be "
        "given one"
    )
    assert owner.submit("upper", {"text": "a"}, id="mine").status_code == 202
    assert guarded.take("upper").payload == b'{"text":"a"}'


def test_the_same_task_sent_again_by_its_owner_is_one_task(owner: Sender) -> None:
    first = owner.submit("upper", {"text": "a"}, id="mine")
    again = owner.submit("upper", {"text": "a"}, id="mine")
    assert (first.status_code, again.status_code, again.json()["id"]) == (202, 202, "mine")
    entries = owner.post("/tasks/batch", [{"algorithm": "upper", "payload": {"text": "a"}, "id": "mine"}]).json()
    assert entries == [{"id": "mine", "state": "queued"}]


def test_tombstone_belongs_to_its_token(owner: Sender, stranger: Sender) -> None:
    assert owner.call("DELETE", "/tasks/later").status_code == 200
    assert codes(stranger.get("/tasks/later"), stranger.call("DELETE", "/tasks/later")) == [(404, "unknown_task")] * 2
    assert stranger.submit("upper", {"text": "a"}, id="later").status_code == 409
    assert owner.submit("upper", {"text": "a"}, id="later").json()["state"] == "cancelled"


def test_lists_and_counts_show_what_the_token_may_see(
    guarded: Any, owner: Sender, stranger: Sender, make_sender: MakeSender
) -> None:
    for text in "abc":
        owner.submit("upper", {"text": text}, id=text)
    stranger.submit("anything", 1, id="x")
    seen = {
        name: [task["id"] for task in sender.get("/tasks").json()["tasks"]]
        for name, sender in {
            "owner": owner,
            "stranger": stranger,
            "all": make_sender(READ_ALL),
            "some": make_sender(READ_ALL, algorithms=("any*",)),
            "operator": make_sender(OPERATE),
        }.items()
    }
    assert seen == {
        "owner": ["c", "b", "a"],
        "stranger": ["x"],
        "all": ["x", "c", "b", "a"],
        "some": ["x"],
        "operator": ["x", "c", "b", "a"],
    }
    for sender, waiting in ((owner, 3), (stranger, 1), (make_sender(READ_ALL), 4), (make_sender(SUBMIT), 0)):
        assert sender.get("/status").json()["tasks"]["waiting"] == waiting
        listed = sender.get("/algorithms").json()["algorithms"]
        assert sum(each["tasks"]["waiting"] for each in listed) == waiting
    guarded.fail("upper", "broken")
    assert [len(each.get("/dead").json()["dead_letters"]) for each in (owner, stranger)] == [1, 0]
    dead_id = owner.get("/dead").json()["dead_letters"][0]["dead_id"]
    assert codes(owner.get(f"/dead/{dead_id}"), stranger.get(f"/dead/{dead_id}")) == [
        (200, "handler_error"),
        (404, "unknown_dead_letter"),
    ]


def test_operator_changes_what_fits_its_patterns_and_the_owner_stays(
    guarded: Any, owner: Sender, make_sender: MakeSender
) -> None:
    other, operator = make_sender(OPERATE, algorithms=("any*",)), make_sender(OPERATE, algorithms=("upp?r",))
    owner.submit("upper", {"text": "a"}, id="a")
    assert other.call("DELETE", "/tasks/a").status_code == 404
    guarded.fail("upper", "broken")
    [letter] = owner.get("/dead").json()["dead_letters"]
    path = f"/dead/{letter['dead_id']}"
    assert codes(other.post(path + "/replay"), other.post(path + "/discard"), owner.post(path + "/replay")) == [
        (404, "unknown_dead_letter"),
        (404, "unknown_dead_letter"),
        (403, "forbidden"),
    ]
    skipped = other.post("/dead/replay", {"ids": [letter["dead_id"]]}).json()["skipped"]
    assert [each["code"] for each in skipped] == ["unknown_dead_letter"]
    assert other.post("/dead/discard", {"filter": {}}).json() == {"done": 0, "skipped": [], "next": None}
    assert operator.post(path + "/replay").status_code == 202
    assert owner.get("/tasks/a").json()["replays"] == 1
    assert operator.call("DELETE", "/tasks/a").status_code == 200
    assert owner.get("/tasks/a").json()["state"] == "cancelled"


def test_token_submits_only_what_fits_its_patterns(make_sender: MakeSender) -> None:
    sender = make_sender(SUBMIT, READ, algorithms=("upp*",))
    refused = sender.submit("anything", 1)
    assert codes(refused) == [(403, "forbidden")]
    assert "'anything'" in refused.json()["detail"] and "upp*" in refused.json()["detail"]
    assert (
        codes(sender.post("/algorithms/anything/run", 1), sender.post("/algorithms/anything/tasks", 1))
        == [(403, "forbidden")] * 2
    )
    messages = [{"algorithm": "upper", "payload": {"text": "a"}, "id": "a"}, {"algorithm": "anything", "payload": 1}]
    good, bad = sender.post("/tasks/batch", messages).json()
    assert (good, bad["problem"]["code"]) == ({"id": "a", "state": "queued"}, "forbidden")
    assert len(sender.get("/tasks").json()["tasks"]) == 1


def test_task_without_an_owner_is_seen_by_those_who_may_see_all(
    guarded: Any, owner: Sender, make_sender: MakeSender, admin: Sender
) -> None:
    from runnerlib.contract import strict_json, task_digest
    from taskqueue.tasks import NewTask

    task = NewTask("a", "upper", strict_json.dumps({"text": "a"}), task_digest("upper", {"text": "a"}))
    guarded.run(guarded.queue.publish([task]))
    assert [each.get("/tasks/a").status_code for each in (owner, make_sender(READ_ALL), admin)] == [404, 200, 200]
    assert owner.submit("upper", {"text": "a"}, id="a").status_code == 409
