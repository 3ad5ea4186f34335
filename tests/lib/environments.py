"""The whole environment in processes that a test can kill, each with its own ports and data folder."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import psycopg
import requests
from servers.processes import free_port
from token_senders import ADMIN_TOKEN

from runnerlib.contract.identity import RunnerKeys

RUNNERS = Path(__file__).parent.parent / "runners"
#: Every wait of these tests ends by then, whatever happens. Half a dozen processes start at once on a busy machine.
PATIENCE_SECONDS = 90.0


def until(condition: Callable[[], Any], what: str, within_seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits for a true answer and returns it; fails the test with `what` when the time is over."""
    deadline = time.monotonic() + within_seconds
    pause = threading.Event()
    while True:
        with contextlib.suppress(requests.RequestException):
            if answer := condition():
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds:.0f} s: {what}")
        pause.wait(0.05)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class Service:
    """One process of the environment; the same command, port and files at every start."""

    name: str
    command: list[str]
    port: int
    settings: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    #: whoever is asked twice stops at once
    _is_stopping: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, ready: bool = True) -> "Service":
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")} | self.settings
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=environment, stdout=log, stderr=log)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, within_seconds: float = PATIENCE_SECONDS) -> None:
        def answer() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended by itself:\n{self.log.read_text()[-3000:]}"
            return requests.get(f"{self.url}/healthz/ready", timeout=2).status_code == 200

        until(answer, f"{self.name} ready; see {self.log}", within_seconds)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def ask_to_stop(self) -> None:
        assert self.process is not None, f"{self.name} does not run"
        self.process.send_signal(signal.SIGTERM)
        self._is_stopping = True

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, with_signal: signal.Signals) -> int:
        if self.process is None:
            return 0
        if with_signal is not signal.SIGTERM or not self._is_stopping:
            self.process.send_signal(with_signal)
        code = self.process.wait(30)
        self.process, self._is_stopping = None, False
        return code


@dataclass
class Environment:
    """With `keys` (as RUNNER_KEYS has them) everything asks for tokens, and what a sender does is done as admin."""

    folder: Path
    services: list[Service] = field(default_factory=list)
    core_settings: dict[str, str] = field(default_factory=dict)
    keys: str = ""

    def __post_init__(self) -> None:
        self.discovery = self._discovery()
        self.core = self._service(
            "core",
            ["worker.core"],
            {
                "DISCOVERY_URL": self.discovery.url,
                "DATA_FOLDER": str(self.folder),
                "RETRY_STEPS_SECONDS": "[0.2, 0.4]",
                **self._of_services,
                **self._of_gateway,
                **self.core_settings,
            },
        )

    def _discovery(self) -> Service:
        snapshot = {"SNAPSHOT_PATH": str(self.folder / "discovery.json")}
        return self._service("discovery", ["runner_discovery"], {**snapshot, **self._of_services})

    @property
    def _of_services(self) -> dict[str, str]:
        return {"RUNNER_KEYS": self.keys} if self.keys else {}

    @property
    def _of_gateway(self) -> dict[str, str]:
        return {"ADMIN_TOKEN": ADMIN_TOKEN} if self.keys else {}

    @property
    def as_admin(self) -> dict[str, str]:
        """Headers for the gateway."""
        return bearer(ADMIN_TOKEN) if self.keys else {}

    @property
    def as_service(self) -> dict[str, str]:
        """Headers for discovery."""
        return bearer(RunnerKeys.read(self.keys).service_token()) if self.keys else {}

    def _service(self, name: str, module: list[str], settings: dict[str, str]) -> Service:
        port = free_port()
        service = Service(
            name,
            [sys.executable, "-P", "-m", *module],
            port,
            {"PORT": str(port), "HOST": "127.0.0.1", "LOG_FORMAT": "json", **settings},
            self.folder / f"{name}.log",
        )
        self.services.append(service)
        return service

    def runner(self, folder: str, name: str | None = None, **settings: str) -> Service:
        """A runner of tests/runners, or of an absolute folder; not started yet."""
        name = name or folder
        token = {"RUNNER_TOKEN": RunnerKeys.read(self.keys).runner_token(name)} if self.keys else {}
        return self._service(
            name,
            ["runnerlib"],
            {
                "NAME": name,
                "RUNNER_ADAPTER": str(RUNNERS / folder / "runner_adapter.py"),
                "DISCOVERY_URL": self.discovery.url,
                "GRACE_SECONDS": "3",
                **token,
                **settings,
            },
        )

    def start(self, *runners: str) -> "Environment":
        """Discovery, controller + gateway, and these runners; returns when all algorithms can be asked for."""
        started = [self.runner(folder) for folder in runners]
        for service in (self.discovery, self.core, *started):
            service.start(ready=False)
        for service in (self.discovery, self.core, *started):
            service.wait_ready()
        for runner in started:
            self.wait_offered(runner)
        return self

    def wait_offered(self, runner: Service) -> None:
        def offered() -> bool:
            catalogue = requests.get(f"{self.discovery.url}/catalogue", headers=self.as_service, timeout=2).json()
            hosts = {view["host"] for view in catalogue["runners"].values()}
            known = requests.get(f"{self.core.url}/algorithms", headers=self.as_admin, timeout=2).json()
            return runner.url in hosts and str(known).count(runner.url) > 0

        until(offered, f"{runner.name} in the catalogue of discovery and gateway")

    # what a sender does

    def submit(self, algorithm: str, payload: dict[str, Any], **envelope: Any) -> str:
        message = {"algorithm": algorithm, "payload": payload, **envelope}
        answer = requests.post(f"{self.core.url}/tasks", json=message, headers=self.as_admin, timeout=10)
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["id"])

    def submit_many(self, algorithm: str, payloads: list[dict[str, Any]]) -> list[str]:
        ids: list[str] = []
        for start in range(0, len(payloads), 1000):
            part = [{"algorithm": algorithm, "payload": payload} for payload in payloads[start : start + 1000]]
            answer = requests.post(f"{self.core.url}/tasks/batch", json=part, headers=self.as_admin, timeout=30)
            assert answer.status_code == 202, answer.text
            ids += [entry["id"] for entry in answer.json()]
        return ids

    def task(self, task_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self.core.url}/tasks/{task_id}", headers=self.as_admin, timeout=10)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def finished(self, task_id: str, within_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            view = self.task(task_id)
            return view if view["state"] in ("succeeded", "failed", "cancelled") else None

        view: dict[str, Any] = until(ended, f"task {task_id} ended", within_seconds)
        return view

    def in_state(self, task_id: str, state: str) -> None:
        until(lambda: self.task(task_id)["state"] == state, f"task {task_id} {state}")

    def stop(self) -> None:
        """All at once: nothing is asked of them any more."""
        running = [each for each in self.services if each.process is not None and each.process.poll() is None]
        for service in running:
            service.ask_to_stop()
        for service in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.stop()
            if service.process is not None:
                service.kill()


@dataclass
class Production(Environment):
    """The same on RabbitMQ and PostgreSQL: controllers and gateways are processes of their own, any number of each.

    `core` is the first gateway: what senders talk to.
    """

    queue_url: str = ""
    database_url: str = ""

    def __post_init__(self) -> None:
        self.discovery = self._discovery()
        self.core = self.gateway("gateway")
        self.controllers: list[Service] = []

    @property
    def _addresses(self) -> dict[str, str]:
        return {
            "QUEUE_URL": self.queue_url,
            "DATABASE_URL": self.database_url,
            "DISCOVERY_URL": self.discovery.url,
            **self._of_services,
        }

    def gateway(self, name: str) -> Service:
        """One more; not started yet."""
        return self._service(name, ["producer.gateway"], {**self._addresses, **self._of_gateway})

    def controller(self, **settings: str) -> Service:
        """One more; not started yet."""
        more = {**self._addresses, "RETRY_STEPS_SECONDS": "[0.2, 0.4]", **self.core_settings, **settings}
        made = self._service(f"controller-{len(self.controllers) + 1}", ["controller"], more)
        self.controllers.append(made)
        return made

    def start(self, *runners: str, controllers: int = 1) -> "Production":
        for _ in range(controllers - len(self.controllers)):
            self.controller()
        for controller in self.controllers:
            controller.start(ready=False)
        super().start(*runners)
        for controller in self.controllers:
            controller.wait_ready()
        return self

    # what a stranger does

    def publish(self, body: bytes, queue: str = "tasks", **properties: Any) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.queue_url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds."""
        with psycopg.connect(self.database_url, connect_timeout=10) as connection:
            return connection.execute(query.encode()).fetchall()
