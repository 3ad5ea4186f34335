"""What strangers can send to any listening port ends no process, takes no memory to speak of, and costs no task."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import door_attacks
import psutil
import pytest
import requests
from environments import Environment

#: What each service may take in docker-compose.yml.
LIMIT_BYTES = 512 * 1024 * 1024
#: Where each of gateway, discovery and runner takes bodies.
PATHS = ("/tasks/batch", "/runners/x", "/batch/square")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    found = Environment(tmp_path_factory.mktemp("attacked"))
    try:
        yield found.start("steady")
    finally:
        found.stop()


def peak_bytes(pid: int) -> int:
    """Of the process and of all that it has started, since they began."""
    found = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        found += int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return found


class HonestSender:
    """Sends one task after the other, in a thread, until it is left; then `ids` are those that were taken."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.ids: list[str] = []

    def _send(self) -> None:
        while not self._over.wait(0.05):
            payload = {"number": len(self.ids)}
            self.ids.append(self._environment.submit("square", payload))

    def __enter__(self) -> "HonestSender":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join(60)


@pytest.mark.sized
@pytest.mark.parametrize("attack", door_attacks.ATTACKS)
def test_attack_on_every_port_costs_nobody_anything(
    environment: Environment, attack: str, pytestconfig: pytest.Config
) -> None:
    seconds, silent = (pytestconfig.getoption(name) for name in ("attack_seconds", "silent_connections"))
    services = [environment.core, environment.discovery, environment.services[-1]]
    urls = [service.url + path for service, path in zip(services, PATHS, strict=True)]
    pids = [service.process.pid for service in services if service.process is not None]
    attacking = door_attacks.attacking(attack, seconds, urls, SILENT_CONNECTIONS=str(silent))
    with HonestSender(environment) as sender, attacking as attackers:
        assert [attacker.wait(seconds + 60) for attacker in attackers] == [0, 0, 0]
    assert len(sender.ids) > seconds
    for number, task_id in enumerate(sender.ids):
        view = environment.finished(task_id)
        assert (view["state"], view["attempt"], view["result"]) == ("succeeded", 1, number * number)
    for service, pid in zip(services, pids, strict=True):
        assert requests.get(f"{service.url}/healthz/ready", timeout=10).status_code == 200
        assert service.process is not None and service.process.poll() is None and service.process.pid == pid
        assert peak_bytes(pid) < LIMIT_BYTES
