"""The command line, on real processes: `worker demo`, `up`, `status`, `schemas`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from worker.ports import is_free

Until = Callable[..., object]

GOOD = '''
def run_double(number: int) -> int:
    """Twice the number.

    >>> run_double(number=21)
    42
    """
    return 2 * number
'''
MISTAKEN = """
def run_broken(number) -> int:
    return 1
"""


@dataclass
class Place:
    """Where one environment lives; its virtual environments are kept over the tests of this module."""

    data: Path
    runners: Path
    ports: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | self.ports | {"DATA_FOLDER": str(self.data), "RUNNERS_FOLDER": str(self.runners)}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "worker", *words]

    def run(self, *words: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        with (self.data.parent / "log").open("a") as log:
            process = subprocess.Popen(self.command(*words), env=self.environment, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(40)

    @property
    def log(self) -> str:
        return (self.data.parent / "log").read_text()

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports['GATEWAY_PORT']}"

    def ready(self, name: str) -> bool:
        return f"{name} is ready" in self.log

    def send(self, algorithm: str, payload: object) -> str:
        body = json.dumps({"algorithm": algorithm, "payload": payload}).encode()
        request = urllib.request.Request(f"{self.gateway}/tasks", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["id"])

    def result(self, task_id: str) -> dict[str, object]:
        request = urllib.request.Request(f"{self.gateway}/tasks/{task_id}", headers={"Prefer": "wait=20"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


@pytest.fixture(scope="module")
def venvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments") / "venvs"


@pytest.fixture
def place(
    tmp_path: Path, venvs: Path, free_port: Callable[[], int], marked_processes: Callable[[Path], list[psutil.Process]]
) -> Place:
    data, runners = tmp_path / "data", tmp_path / "runners"
    data.mkdir()
    venvs.mkdir(exist_ok=True)
    (data / "venvs").symlink_to(venvs)
    (runners / "good").mkdir(parents=True)
    (runners / "good" / "runner_adapter.py").write_text(GOOD)
    ports = {"GATEWAY_PORT": str(free_port()), "DISCOVERY_PORT": str(free_port())}
    first = next(port for port in iter(free_port, 0) if is_free("127.0.0.1", port + 1))
    return Place(data, runners, ports | {"RUNNER_PORTS_START": str(first), "LOG_FORMAT": "pretty"})


def test_demo_sends_a_task_through_the_queue_and_leaves_nothing_behind(
    place: Place, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    done = place.run("demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if "double" in line and "21" in line)
    assert "42" in row
    assert "good" in row
    assert f"{place.gateway}/docs" in done.stdout
    assert marked_processes(place.data) == []
    assert not (place.data / "environment.json").exists()


def test_status_and_schemas_of_a_running_environment(place: Place, until: Until) -> None:
    with place.started("up"):
        until(lambda: place.ready("good"), 60)
        assert place.result(place.send("double", {"number": 4}))["result"] == 8
        status = place.run("status")
        assert status.returncode == 0, status.stderr
        assert "good" in status.stdout
        assert "double" in status.stdout
        schemas = json.loads(place.run("schemas").stdout)
        assert schemas["double"]["input_schema"]["properties"]["number"]["type"] == "integer"


def test_status_without_an_environment_says_so(place: Place) -> None:
    status = place.run("status")
    assert status.returncode == 1
    assert "no environment runs in" in status.stderr
    assert "worker up" in status.stderr


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--queue-url", "amqp://me:hush@broker/"], "set DATABASE_URL=postgresql://"),
        (["--database-url", "postgresql://me:hush@database/tasks"], "set QUEUE_URL=amqp://"),
        (["--queue-url", "kafka://me:hush@broker", "--database-url", "postgresql:///tasks"], "must name a RabbitMQ"),
    ],
)
def test_servers_that_do_not_go_together_are_told_in_a_sentence(place: Place, options: list[str], advice: str) -> None:
    refused = place.run("up", *options)
    assert refused.returncode == 1
    assert advice in refused.stderr
    assert "hush" not in refused.stdout + refused.stderr


def test_killed_runner_is_started_again_and_its_tasks_finish(
    place: Place, until: Until, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    with place.started("up"):
        until(lambda: place.ready("good"), 60)
        runner = next(p for p in marked_processes(place.data) if p.cmdline()[-2:] == ["-m", "runnerlib"])
        runner.kill()
        assert place.result(place.send("double", {"number": 5}))["result"] == 10
        assert "good was ended by SIGKILL; it is started again in 0.5 s" in place.log


@pytest.mark.slow
def test_mistaken_adapter_is_told_in_sentences_and_the_others_go_on(place: Place, until: Until) -> None:
    (place.runners / "mistaken").mkdir()
    (place.runners / "mistaken" / "runner_adapter.py").write_text(MISTAKEN)
    with place.started("up"):
        until(lambda: "mistaken is not started again" in place.log, 60)
        assert "run_broken(): parameter 'number' has no type hint" in place.log
        until(lambda: place.ready("good"), 60)
        assert place.result(place.send("double", {"number": 6}))["result"] == 12


@pytest.mark.slow
def test_kill_9_of_the_worker_leaves_nothing_and_the_next_start_works(
    place: Place, until: Until, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    with place.started("up") as worker:
        until(lambda: place.ready("good"), 60)
        assert len(marked_processes(place.data)) >= 3
        worker.kill()
        worker.wait(10)
    # At once, while what the killed worker left is still about to end.
    (place.data.parent / "log").write_text("")
    with place.started("up") as worker:
        until(lambda: place.ready("good"), 60)
        assert place.result(place.send("double", {"number": 7}))["result"] == 14
        worker.kill()
        worker.wait(10)
        until(lambda: not marked_processes(place.data), 20)


@pytest.mark.slow
def test_interrupt_of_a_busy_environment_stops_it_in_time(
    place: Place, until: Until, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    with place.started("up") as worker:
        until(lambda: place.ready("good"), 60)
        for number in range(200):
            place.send("double", {"number": number})
        worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 0
        assert marked_processes(place.data) == []


@pytest.fixture
def on_servers(place: Place, broker: Any, database_url: str, free_port: Callable[[], int]) -> Place:
    """The same, with a broker and a database in its environment."""
    place.ports |= {"QUEUE_URL": broker.url, "DATABASE_URL": database_url, "CONTROLLER_PORT": str(free_port())}
    return place


def test_demo_on_a_broker_and_a_database(
    on_servers: Place, broker: Any, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    done = on_servers.run("demo", "--once", timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "42" in next(line for line in done.stdout.splitlines() if "double" in line and "21" in line)
    assert broker.queue_state("tasks.double")["type"] == "quorum"
    assert not list(on_servers.data.glob("*.sqlite"))
    assert marked_processes(on_servers.data) == []
    assert broker.server.password not in done.stdout + done.stderr


def test_killed_controller_and_gateway_are_started_again_and_their_tasks_finish(
    on_servers: Place, broker: Any, until: Until, marked_processes: Callable[[Path], list[psutil.Process]]
) -> None:
    def process(module: str) -> psutil.Process:
        return next(p for p in marked_processes(on_servers.data) if p.cmdline()[-1] == module)

    with on_servers.started("up"):
        until(lambda: on_servers.ready("good"), 60)
        process("controller").kill()
        while_away = [on_servers.send("double", {"number": n}) for n in range(20)]
        assert [on_servers.result(task_id)["result"] for task_id in while_away] == [2 * n for n in range(20)]
        sent = on_servers.send("double", {"number": 30})
        process("producer.gateway").kill()
        until(lambda: "gateway was ended by SIGKILL; it is started again" in on_servers.log, 20)
        until(lambda: on_servers.log.count("gateway is ready") == 2, 60)
        assert on_servers.result(sent)["result"] == 60
        status = on_servers.run("status")
        commands = [word for p in marked_processes(on_servers.data) for word in p.cmdline()]
    assert status.returncode == 0, status.stderr
    for shown in (on_servers.log, status.stdout, "".join(commands)):
        assert broker.server.password not in shown
