"""From a failed task by its dead letter to its result, through every door."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import until

# Each test takes seconds; together they take minutes, and so they begin early.
pytestmark = pytest.mark.timeout(300)

DONE, FAILED = 0, 1


class Mendable:
    """A task that fails until `mend` is called."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        self.log: Path = scene.log()
        self.file = self.log.with_suffix(".mended")
        self.payload = {"file": str(self.file), "log": str(self.log)}

    def mend(self) -> None:
        self.file.write_text("mended")

    def submit(self) -> str:
        """Its id, once it has failed."""
        task_id = str(self.scene.environment.submit("mendable", self.payload))
        view = self.scene.ended(task_id)
        assert (view["state"], view["error"]["code"], view["replays"]) == ("failed", "handler_error", 0)
        return task_id


@pytest.fixture
def mendable(scene: Any) -> Mendable:
    return Mendable(scene)


def dead(scene: Any, path: str = "", **query: Any) -> Any:
    answer = requests.get(f"{scene.url}/dead{path}", params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(scene: Any, path: str, body: Any = None) -> requests.Response:
    return requests.post(f"{scene.url}/dead/{path}", json=body, timeout=20)


def test_failed_task_is_mended_and_replayed_to_one_result(scene: Any, mendable: Mendable) -> None:
    task_id = mendable.submit()
    [letter] = dead(scene, task_id=task_id)["dead_letters"]
    assert (letter["code"], letter["attempts"], letter["replayed_at"]) == ("handler_error", 1, None)
    shown = dead(scene, f"/{letter['dead_id']}")
    assert "mended is missing" in shown["message"]
    assert "ValueError" in shown["traceback"]
    assert [entry["attempt"] for entry in shown["history"]] == [1]
    assert json.loads(shown["body"])["payload"] == mendable.payload
    mendable.mend()
    answer = change(scene, f"{letter['dead_id']}/replay")
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/tasks/{task_id}")
    assert (answer.json()["id"], answer.json()["replays"]) == (task_id, 1)
    view = scene.ended(task_id)
    assert (view["state"], view["result"], view["attempt"], view["replays"]) == ("succeeded", "mended", 2, 1)
    assert view["error"] is None
    assert mendable.log.read_text().splitlines() == [f"{task_id} 1", f"{task_id} 2"]
    assert dead(scene, task_id=task_id)["dead_letters"] == []
    [letter] = dead(scene, task_id=task_id, all="true")["dead_letters"]
    assert letter["replayed_at"] is not None
    again = change(scene, f"{letter['dead_id']}/replay")
    assert (again.status_code, again.json()["code"]) == (409, "already_replayed")
    assert mendable.log.read_text().splitlines() == [f"{task_id} 1", f"{task_id} 2"]


def test_replay_that_fails_again_leaves_a_dead_letter_of_its_own(scene: Any, mendable: Mendable) -> None:
    task_id = mendable.submit()
    for attempt in (2, 3):
        [letter] = dead(scene, task_id=task_id)["dead_letters"]
        assert change(scene, f"{letter['dead_id']}/replay").status_code == 202
        until(lambda n=attempt: dead(scene, task_id=task_id, all="true")["dead_letters"][n - 1 :], "it failed again")
        view = scene.ended(task_id)
        assert (view["state"], view["attempt"], view["replays"]) == ("failed", attempt, attempt - 1)
    [letter] = dead(scene, task_id=task_id)["dead_letters"]
    discarded = change(scene, f"{letter['dead_id']}/discard")
    assert (discarded.status_code, discarded.json()["discarded_at"] is not None) == (200, True)
    refused = change(scene, f"{letter['dead_id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_discarded")


def test_many_are_replayed_by_a_filter_and_those_that_cannot_be_are_told(scene: Any) -> None:
    tasks = [Mendable(scene) for _ in range(5)]
    ids = [each.submit() for each in tasks]
    for each in tasks:
        each.mend()
    others = [each["dead_id"] for each in dead(scene, algorithm="mendable")["dead_letters"] if each["task_id"] in ids]
    assert len(others) == 5
    answer = change(scene, "replay", {"ids": [*others[:2], 10**9]})
    assert (answer.status_code, answer.json()["done"]) == (200, 2)
    assert [each["code"] for each in answer.json()["skipped"]] == ["unknown_dead_letter"]
    body: dict[str, Any] = {"filter": {"algorithm": "mendable", "codes": ["handler_error"]}, "limit": 100}
    while True:
        answer = change(scene, "replay", body)
        assert answer.status_code == 200, answer.text
        body["cursor"] = answer.json()["next"]
        if body["cursor"] is None:
            break
    for task_id in ids:
        until(lambda each=task_id: scene.environment.task(each)["state"] == "succeeded", "its replay succeeded")
    assert [each.log.read_text().count("\n") for each in tasks] == [2] * 5


def test_producer_dead_lists_shows_replays_and_discards(scene: Any, mendable: Mendable) -> None:
    task_id = mendable.submit()
    listed = scene.producer("dead", "list", "--task", task_id, "--json")
    [letter] = [json.loads(line) for line in listed.stdout.splitlines()]
    dead_id = str(letter["dead_id"])
    shown = scene.producer("dead", "show", dead_id)
    assert shown.returncode == DONE
    for words in ("handler_error", "mended is missing", "Traceback", task_id):
        assert words in shown.stdout
    mendable.mend()
    assert scene.producer("dead", "replay", "--task", task_id, "--yes").returncode == DONE
    result = scene.producer("result", task_id, "--wait")
    assert (result.returncode, json.loads(result.stdout)) == (DONE, "mended")
    again = scene.producer("dead", "replay", dead_id)
    assert again.returncode == FAILED
    assert f"Dead letter {dead_id} was replayed before" in again.stderr
    discarded = scene.producer("dead", "discard", dead_id)
    assert discarded.returncode == FAILED


def test_stranger_s_failed_task_is_replayed_and_what_is_no_task_is_not(broker_scene: Any) -> None:
    scene, mendable = broker_scene, Mendable(broker_scene)
    task_id = scene.publish(json.dumps({"algorithm": "mendable", "payload": mendable.payload}).encode())
    scene.ended(task_id)
    mendable.mend()
    [letter] = dead(scene, task_id=task_id)["dead_letters"]
    assert change(scene, f"{letter['dead_id']}/replay").status_code == 202
    view = scene.ended(task_id)
    assert (view["state"], view["result"], view["attempt"], view["replays"]) == ("succeeded", "mended", 2, 1)
    assert mendable.log.read_text().splitlines() == [f"{task_id} 1", f"{task_id} 2"]
    nonsense = scene.publish(b"no task \xff")
    scene.ended(nonsense)
    [letter] = dead(scene, task_id=nonsense)["dead_letters"]
    refused = change(scene, f"{letter['dead_id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
    shown = dead(scene, f"/{letter['dead_id']}")
    assert (shown["body"], shown["body_base64"]) == (None, "bm8gdGFzayD/")
    assert change(scene, f"{letter['dead_id']}/discard").status_code == 200
