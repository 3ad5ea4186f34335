"""Many tasks by their ids in one call."""

from typing import Any

import pytest
import requests

from producer.gateway import tasks


def ask(gateway: Any, body: Any) -> requests.Response:
    return requests.post(f"{gateway.url}/tasks/lookup", json=body, timeout=10)


def test_known_tasks_come_in_the_order_of_the_ids(gateway: Any) -> None:
    for task_id in ("a", "b", "c"):
        gateway.post("upper", {"text": task_id}, id=task_id)
    gateway.succeed("upper", b'{"n":1.0}')
    answer = ask(gateway, {"ids": ["c", "nobody", "a", "c"]})
    assert answer.status_code == 200
    assert [(task["id"], task["state"]) for task in answer.json()["tasks"]] == [("c", "queued"), ("a", "succeeded")]
    assert b'"result":{"n":1.0}' in answer.content
    assert answer.json()["tasks"][1] == gateway.get("/tasks/a").json()
    assert ask(gateway, {"ids": []}).json() == {"tasks": [], "left_out": []}


def test_what_has_no_room_is_named(gateway: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tasks, "MAX_LOOKUP_BYTES", 1500)
    for task_id in ("a", "b", "c"):
        gateway.post("upper", {"text": task_id}, id=task_id)
    for _ in range(3):
        gateway.succeed("upper", b'"%b"' % (b"x" * 1400))
    answer = ask(gateway, {"ids": ["a", "b", "c"]}).json()
    assert [task["id"] for task in answer["tasks"]] == ["a"]
    assert answer["left_out"] == ["b", "c"]


def test_few_large_tasks_are_in_memory_together_and_many_small_ones(gateway: Any, monkeypatch: Any) -> None:
    asked: list[int] = []
    lookup = gateway.store.lookup

    async def counted(ids: Any) -> Any:
        asked.append(len(ids))
        return await lookup(ids)

    monkeypatch.setattr(gateway.store, "lookup", counted)
    small, large = [f"small-{n}" for n in range(30)], [f"large-{n}" for n in range(30)]
    for task_id in (*small, *large):
        gateway.post("upper", {"text": "x" * (30_000 if task_id in large else 1)}, id=task_id)
    for ids, steps in ((small, [10, 20]), (large, [10, 10, 10])):
        asked.clear()
        answer = ask(gateway, {"ids": ids}).json()
        assert [task["id"] for task in answer["tasks"]] == ids
        assert asked == steps


@pytest.mark.parametrize("body", [{}, [], {"ids": "a"}, {"ids": [1]}, {"ids": ["no spaces"]}, {"ids": ["a"] * 101}])
def test_other_bodies_are_refused_by_name(gateway: Any, body: Any) -> None:
    answer = ask(gateway, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "ids" in answer.json()["detail"]
