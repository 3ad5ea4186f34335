"""A queue or a store that is away: 503 and Retry-After, never a 202."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from runnerlib.contract import TaskView
from taskqueue.errors import QueueUnavailable, StoreUnavailable


@pytest.fixture
def broken(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The same gateway, with a disk that is full and a file that cannot be read."""

    async def publish(_tasks: Sequence[Any], **_options: Any) -> Any:
        raise QueueUnavailable("database or disk is full")

    async def unreadable(*_args: Any, **_options: Any) -> Any:
        raise StoreUnavailable("disk I/O error")

    monkeypatch.setattr(gateway.queue, "publish", publish)
    monkeypatch.setattr(gateway.queue, "replay", publish)
    for name in (
        *("get", "wait_finished", "cancel", "counts", "lookup", "list_tasks"),
        *("dead_letters", "dead_letter", "discard"),
    ):
        monkeypatch.setattr(gateway.store, name, unreadable)
    yield gateway


def check(answer: requests.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert int(answer.headers["Retry-After"]) >= 1
    assert "disk" in answer.json()["detail"] and "Traceback" not in answer.text


def test_nothing_is_accepted_without_durability(broken: Any) -> None:
    check(broken.post("upper", {"text": "a"}), "queue_unavailable")
    batch = [{"algorithm": "upper", "payload": {"text": "a"}}]
    check(requests.post(f"{broken.url}/tasks/batch", json=batch, timeout=5), "queue_unavailable")
    for call in ("tasks", "run"):
        answer = requests.post(f"{broken.url}/algorithms/upper/{call}", json={"text": "a"}, timeout=5)
        check(answer, "queue_unavailable")
    check(requests.post(f"{broken.url}/dead/1/replay", timeout=5), "queue_unavailable")
    check(requests.post(f"{broken.url}/dead/replay", json={"ids": [1]}, timeout=5), "queue_unavailable")


def test_reads_say_that_the_store_is_away(broken: Any) -> None:
    for path in ("/tasks/a", "/tasks", "/dead", "/dead/1", "/algorithms", "/algorithms/upper", "/status"):
        check(broken.get(path), "store_unavailable")
    check(broken.get("/tasks/a", Prefer="wait=1"), "store_unavailable")
    check(broken.delete("/tasks/a"), "store_unavailable")
    check(requests.post(f"{broken.url}/dead/1/discard", timeout=5), "store_unavailable")
    check(requests.post(f"{broken.url}/dead/replay", json={"filter": {}}, timeout=5), "store_unavailable")


@pytest.mark.parametrize("call", ["tasks", "run"])
def test_sender_of_a_durable_task_gets_its_id_when_the_store_goes_away_meanwhile(
    gateway: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def unreadable(*_args: Any, **_options: Any) -> Any:
        raise StoreUnavailable("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.store, "get", unreadable)
        patch.setattr(gateway.store, "wait_finished", unreadable)
        answer = requests.post(f"{gateway.url}/algorithms/upper/{call}", json={"text": "a"}, timeout=5)
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert gateway.get(answer.headers["Location"]).json()["id"] == answer.json()["id"]


def test_task_that_cannot_be_read_back_is_told_with_its_group_and_its_time(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(*_args: Any, **_options: Any) -> Any:
        raise StoreUnavailable("disk I/O error")

    monkeypatch.setattr(gateway.store, "get", unreadable)
    answer = gateway.post("upper", {"text": "a"}, group="acme", delay_seconds=3600)
    task = TaskView.model_validate(answer.json())
    assert (answer.status_code, task.group) == (202, "acme")
    assert task.not_before is not None
    assert (task.not_before - task.created_at).total_seconds() == pytest.approx(3600)
    assert task.waiting_for == f"it was sent to start not before {task.not_before:%Y-%m-%dT%H:%M:%SZ}"


def test_task_whose_sender_waits_in_vain_is_accepted_only_when_it_is_durable(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def flush() -> None:
        raise QueueUnavailable("disk I/O error")

    message = {"algorithm": "upper", "payload": {"text": "a"}, "id": "kept"}
    first = requests.post(f"{gateway.url}/tasks", json=message, headers={"Prefer": "wait=0.1"}, timeout=5)
    assert first.status_code == 202
    with monkeypatch.context() as patch:
        patch.setattr(gateway.queue, "flush", flush)
        check(requests.post(f"{gateway.url}/tasks", json=message, timeout=5), "queue_unavailable")
        check(requests.post(f"{gateway.url}/tasks/batch", json=[message], timeout=5), "queue_unavailable")
        new = {**message, "id": "new"}
        answer = requests.post(f"{gateway.url}/tasks", json=new, headers={"Prefer": "wait=0.1"}, timeout=5)
        check(answer, "queue_unavailable")
    assert requests.post(f"{gateway.url}/tasks", json=new, timeout=5).status_code == 202


def test_document_needs_neither(broken: Any) -> None:
    assert "/algorithms/upper/run" in broken.get("/openapi.json").json()["paths"]


def test_bad_messages_are_still_told_from_a_broken_queue(broken: Any) -> None:
    assert broken.post("upper", {}).status_code == 422


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk of its own can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_is_told_by_the_answer_and_by_readiness_until_there_is_room(
    small_disk: Path, start_gateway: Callable[[Path], Any]
) -> None:
    gateway = start_gateway(small_disk)
    (small_disk / "other").write_bytes(b"x" * 1_000_000)

    def ready() -> tuple[int, dict[str, str]]:
        answer = gateway.get("/healthz/ready")
        return answer.status_code, answer.json()["reasons"]

    accepted = 0
    while (answer := gateway.post("anything", "x" * 50_000, id=f"t{accepted}")).status_code == 202:
        accepted += 1
        assert accepted < 100, "the disk is never full"
    check(answer, "queue_unavailable")
    reason = "the disk with the database is full; free some space, nothing is lost meanwhile"
    assert reason in answer.json()["detail"]
    assert ready() == (503, {"store": reason})
    assert gateway.get("/tasks/t0").json()["state"] == "queued"
    with pytest.raises(StoreUnavailable, match="the disk with the database is full"):
        gateway.run(gateway.store.check_writing())
    (small_disk / "other").unlink()
    deadline = time.monotonic() + 20
    while ready()[0] != 200:
        assert time.monotonic() < deadline, "it is never ready again"
        time.sleep(0.05)
    assert gateway.post("anything", "x" * 50_000, id=f"t{accepted}").status_code == 202
