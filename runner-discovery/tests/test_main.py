"""The registry as a process: restarts, signals, a taken port."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Make = Callable[..., dict[str, Any]]


def without_time(catalogue: dict[str, Any]) -> dict[str, Any]:
    return {key: catalogue[key] for key in ("runners", "algorithms")}


def test_after_a_kill_the_catalogue_is_the_same_at_once(
    discovery: Callable[..., Any], free_port: int, registration: Make, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    first = discovery(RUNNER_DISCOVERY_PORT=str(free_port))
    httpx.post(f"{url}/algorithms", json={"algorithm": "ocr", "host": "ocr:8000"}).raise_for_status()
    httpx.put(f"{url}/runners/a", json=registration(upper=1)).raise_for_status()
    httpx.put(f"{url}/runners/b", json=registration(upper=2, host="h:2")).raise_for_status()
    snapshot = tmp_path / ".plugplay" / "discovery.json"
    deadline = time.monotonic() + 30
    while not (snapshot.exists() and '"id":"b"' in snapshot.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before = httpx.get(f"{url}/catalogue").json()
    first.process.kill()
    first.wait()

    discovery(RUNNER_DISCOVERY_PORT=str(free_port))
    after = httpx.get(f"{url}/catalogue").json()
    assert without_time(after) == without_time(before)
    assert after["algorithms"]["upper"]["outdated"] == ["a"]
    assert after["epoch"] != before["epoch"]
    assert httpx.put(f"{url}/runners/a", json=registration(upper=1)).json()["index"] == after["index"]


def test_a_frozen_registry_drops_nobody_when_it_goes_on(
    discovery: Callable[..., Any], free_port: int, registration: Make
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    service = discovery(PORT=str(free_port), LEASE_SECONDS="1")
    httpx.put(f"{url}/runners/a", json=registration(upper=1)).raise_for_status()
    service.process.send_signal(signal.SIGSTOP)
    time.sleep(3.5)
    service.process.send_signal(signal.SIGCONT)
    service.wait_line("stood still")
    assert [runner["id"] for runner in httpx.get(f"{url}/runners").json()] == ["a"]


@pytest.mark.serial
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_who_waits_and_takes_less_than_two_seconds(
    discovery: Callable[..., Any], free_port: int, number: signal.Signals
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    service = discovery(PORT=str(free_port))
    known = httpx.get(f"{url}/catalogue").json()
    query = {"epoch": known["epoch"], "index": known["index"], "wait": 30}
    with httpx.Client() as client:
        request = client.build_request("GET", f"{url}/catalogue", params=query, timeout=10)
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(client.send(request)))
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        service.process.send_signal(number)
        assert service.wait(5) == 0
        assert time.monotonic() - began < 2
        thread.join(30)
    assert answers[0].status_code == 200


def test_a_taken_port_is_one_sentence_and_exit_code_1(discovery: Callable[..., Any], free_port: int) -> None:
    discovery(PORT=str(free_port))
    second = discovery(wait=False, PORT=str(free_port))
    assert second.wait() == 1
    (line,) = second.lines
    assert f"port {free_port}" in line and "set RUNNER_DISCOVERY_PORT" in line


def test_a_bad_setting_is_one_sentence_and_exit_code_2(discovery: Callable[..., Any]) -> None:
    service = discovery(wait=False, LEASE_SECONDS="soon")
    assert service.wait() == 2
    assert service.lines[0].startswith("LEASE_SECONDS has a value 'soon'")


def test_a_corrupt_snapshot_starts_an_empty_registry(
    discovery: Callable[..., Any], free_port: int, tmp_path: Path
) -> None:
    (tmp_path / "memory.json").write_text("{")
    service = discovery(PORT=str(free_port), SNAPSHOT_PATH=str(tmp_path / "memory.json"))
    service.wait_line("cannot be read")
    assert httpx.get(f"http://127.0.0.1:{free_port}/catalogue").json()["runners"] == {}
