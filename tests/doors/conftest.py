"""One environment for each kind of queue, shared by all tests of this folder: ids are unique, so they don't meet."""

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import Environment, Production, until
from servers.postgresql import PostgreSQL
from servers.rabbitmq import RabbitMQ

#: How long a task waits for an algorithm that nobody has registered: runners start slowly on a busy machine.
GRACE_SECONDS = 30.0
#: So old must discovery be until it is sure that it has heard of every runner.
LEASE_SECONDS = 6.0
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Scene:
    """A running environment and what a row of the table needs of it."""

    environment: Environment
    folder: Path
    numbers: Iterator[int]
    #: tasks that were sent before anything had registered: of an algorithm that nobody ever offers, and of one that
    #: comes in time
    for_nobody: list[str] = field(default_factory=list)
    for_a_late_one: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.environment.core.url

    def new_id(self) -> str:
        return f"row-{next(self.numbers)}"

    def log(self) -> Path:
        """A file for handlers to note their runs in."""
        found = self.folder / f"log-{next(self.numbers)}"
        found.touch()
        return found

    def post(self, path: str, body: bytes | Iterator[bytes], **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(self.url + path, data=body, headers={**JSON, **named}, timeout=20)

    def publish(self, body: bytes, task_id: str | None = None, **properties: Any) -> str:
        """What a stranger does; the task's id."""
        task_id = task_id or self.new_id()
        assert isinstance(self.environment, Production)
        self.environment.publish(body, message_id=task_id, **properties)
        return task_id

    def runners_of(self, algorithm: str) -> list[Any]:
        """Who offers it now, as the gateway knows it."""
        return list(requests.get(f"{self.url}/algorithms/{algorithm}", timeout=10).json()["runners"])

    def is_unknown(self, task_id: str) -> bool:
        return requests.get(f"{self.url}/tasks/{task_id}", timeout=10).status_code == 404

    def ended(self, task_id: str) -> dict[str, Any]:
        """Also of a task that the gateway has not seen yet."""
        until(lambda: not self.is_unknown(task_id), f"task {task_id} is known")
        return self.environment.finished(task_id)

    def cancel(self, task_id: str) -> requests.Response:
        return requests.delete(f"{self.url}/tasks/{task_id}", timeout=10)

    @contextlib.contextmanager
    def busy(self) -> Iterator[Path]:
        """The one slot of `gentle` is taken meanwhile: what is sent to it waits. Gives a log that shows who ran."""
        log = self.log()
        blocker = self.environment.submit("gentle", {"log": str(log)})
        until(lambda: blocker in log.read_text(), "the slot is taken")
        yield log
        self.cancel(blocker)
        assert self.ended(blocker)["state"] == "cancelled"

    def pass_seconds(self, seconds: float) -> None:
        """For what is to happen to a task in that time."""
        over = time.monotonic() + seconds
        until(lambda: time.monotonic() > over, "time passes")

    def dead_letters(self, task_id: str) -> list[tuple[str, bytes, str]]:
        """(code, body, headers) of each, as the database holds them."""
        query = f"SELECT code, body, headers FROM dead_letters WHERE task_id = '{task_id}' ORDER BY dead_id"
        if isinstance(self.environment, Production):
            return [(code, bytes(body), headers) for code, body, headers in self.environment.rows(query)]
        file = self.environment.folder / "tasks.sqlite"
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def producer(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The command, as a person types it."""
        return subprocess.run(
            self.command(*words), env=self.variables(), capture_output=True, text=True, timeout=60, check=False
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "producer", *words]

    def variables(self) -> dict[str, str]:
        return {**os.environ, "GATEWAY_URL": self.url, "COLUMNS": "150"}

    def write_runner(self, algorithm: str) -> str:
        """A runner's folder with this algorithm alone, for `Environment.runner`."""
        folder = self.folder / f"runner-{algorithm}"
        folder.mkdir()
        (folder / "runner_adapter.py").write_text(
            f"def run_{algorithm}(text: str) -> str:\n    return text.upper()\n", encoding="utf-8"
        )
        return str(folder)


@pytest.fixture(scope="session")
def scenes(
    tmp_path_factory: pytest.TempPathFactory,
    broker_servers: Callable[[str], RabbitMQ],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[str], Scene]]:
    """The environment on "embedded", "rabbitmq3" or "rabbitmq4", started when first asked for."""
    with ExitStack() as stack:
        made: dict[str, Scene | Exception] = {}

        def environment(kind: str, folder: Path) -> Environment:
            settings = {"UNKNOWN_ALGORITHM_GRACE_SECONDS": str(GRACE_SECONDS)}
            if kind == "embedded":
                return Environment(folder, core_settings=settings)
            broker = broker_servers(kind.removeprefix("rabbitmq"))
            postgres: PostgreSQL = request.getfixturevalue("postgres_server")
            name = f"doors_{kind}_{os.getpid()}"
            broker.add_vhost(name)
            url = postgres.create_database(name)
            return Production(folder, core_settings=settings, queue_url=broker.url_of(name), database_url=url)

        def begin(kind: str) -> Scene:
            folder = tmp_path_factory.mktemp(kind)
            running = environment(kind, folder)
            stack.callback(running.stop)
            scene = Scene(running, folder, itertools.count(1))
            _begin(scene)
            return scene

        def get(kind: str) -> Scene:
            if kind not in made:
                try:
                    made[kind] = begin(kind)
                except Exception as error:  # told once for each test, without waiting for it again
                    made[kind] = error
            found = made[kind]
            if isinstance(found, Exception):
                raise found
            return found

        yield get


def _begin(scene: Scene) -> None:
    """Discovery comes last: until it answers, no gateway can be sure that an algorithm is unknown."""
    environment = scene.environment
    environment.discovery.settings["LEASE_SECONDS"] = str(LEASE_SECONDS)
    if isinstance(environment, Production):
        environment.controller().start(ready=False)
    environment.core.start(ready=False)
    for algorithm, ids in (("never_offered", scene.for_nobody), ("offered_later", scene.for_a_late_one)):
        message = json.dumps({"algorithm": algorithm, "payload": {"text": "early"}}).encode()
        answer = until(lambda body=message: scene.post("/tasks", body), "the gateway answers")
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
        if isinstance(environment, Production):
            ids.append(scene.publish(message))
    environment.discovery.start()
    late = environment.runner(scene.write_runner("offered_later"), "late").start(ready=False)
    runner = environment.runner("wayward")
    runner.settings["CANCEL_GRACE_SECONDS"] = "1"
    environment.wait_offered(runner.start())
    environment.wait_offered(late)


@pytest.fixture(params=["embedded", "rabbitmq4"])
def scene(request: pytest.FixtureRequest, scenes: Callable[[str], Scene]) -> Scene:
    """Each kind of queue in turn."""
    return scenes(request.param)


@pytest.fixture(params=["rabbitmq4", "rabbitmq3"])
def broker_scene(request: pytest.FixtureRequest, scenes: Callable[[str], Scene]) -> Scene:
    """Each version of the broker in turn."""
    return scenes(request.param)


@pytest.fixture(params=["embedded", "rabbitmq4", "rabbitmq3"])
def any_scene(request: pytest.FixtureRequest, scenes: Callable[[str], Scene]) -> Scene:
    return scenes(request.param)
