"""The command line, on real processes: `worker demo`, `up`, `status`, `schemas`."""

import contextlib
import json
import os
import shutil
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
#: Whole environments on a machine that runs other tests beside: each wait has its own, closer bound.
pytestmark = pytest.mark.timeout(300)

GOOD = '''
def run_double(number: int) -> int:
    """Twice the number.

    >>> run_double(number=21)
    42
    """
    return 2 * number
'''
GALLERY = '''
def load_tool() -> str:
    return open("no-such-tool").read()


def run_size(url: str, *, fetch) -> int:
    """How many bytes a picture has."""
    return len(fetch(url).content)


def run_trace(url: str, *, tool: str) -> str:
    return tool
'''
GALLERY_PICTURES = """
import base64, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "pictures" / "dot.gif").write_bytes(base64.b64decode("R0lGODlhAQABAAAAACw="))
samples = [
    {"algorithm": "size", "payload": {"url": "dot.gif"}},
    {"algorithm": "size", "payload": {"url": "no-such.gif"}, "fails": True},
    {"algorithm": "trace", "payload": {"url": "dot.gif"}},
]
(folder / "samples.json").write_text(json.dumps(samples))
"""
MISTAKEN = """
def run_broken(number) -> int:
    return 1
"""


@dataclass
class Place:
    """Where one environment lives; its virtual environments are there already."""

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

    def status(self) -> dict[str, Any]:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def send(self, algorithm: str, payload: object) -> str:
        body = json.dumps({"algorithm": algorithm, "payload": payload}).encode()
        request = urllib.request.Request(f"{self.gateway}/tasks", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["id"])

    def result(self, task_id: str) -> dict[str, object]:
        request = urllib.request.Request(f"{self.gateway}/tasks/{task_id}", headers={"Prefer": "wait=20"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


@pytest.fixture
def place(
    tmp_path: Path, venvs: Path, free_port: Callable[[], int], marked_processes: Callable[[Path], list[psutil.Process]]
) -> Place:
    data, runners = tmp_path / "data", tmp_path / "runners"
    data.mkdir()
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


@pytest.fixture
def gallery(place: Place) -> Path:
    """A runner with a picture; one of its algorithms lacks a tool."""
    folder = place.runners / "gallery"
    folder.mkdir()
    (folder / "runner_adapter.py").write_text(GALLERY)
    (folder / "demo_pictures.py").write_text(GALLERY_PICTURES)
    return folder


def test_demo_leaves_out_what_brings_pictures_and_shows_them_when_asked_to(place: Place, gallery: Path) -> None:
    without = place.run("demo", "--once")
    assert without.returncode == 0, without.stdout + without.stderr
    assert "gallery" not in without.stdout

    done = place.run("demo", "--images", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│ size ")]
    shown = {cells[2].strip(): cells[3].strip() for cells in rows}
    assert shown['{"url": "dot.gif"}'] == "14"
    assert shown['{"url": "no-such.gif"}'].startswith("failed: invalid_payload")
    assert '{"url": "no-such.gif"} is wrong on purpose' in done.stdout
    assert "trace of gallery is not ready: load_tool() failed: FileNotFoundError: " in done.stdout
    assert "double" in done.stdout


def test_status_and_schemas_of_a_running_environment(place: Place, until: Until) -> None:
    with place.started("up"):
        until(lambda: place.ready("good"), 60)
        assert place.result(place.send("double", {"number": 4}))["result"] == 8
        status = place.run("status")
        assert status.returncode == 0, status.stderr
        assert "good" in status.stdout
        assert "double" in status.stdout
        with place.started("status", "--watch", "--json") as watching:
            until(lambda: place.log.count('{"gateway":') >= 2, 60)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 0
        for words, said in (("status --watch --json | head -1", ""), ("status >/dev/full", "No space left")):
            line = f"{sys.executable} -P -m worker {words}"
            cut = subprocess.run(["sh", "-c", line], env=place.environment, capture_output=True, text=True, timeout=60)
            assert "Traceback" not in cut.stderr
            assert said in cut.stderr
        # Its own Python is that of the environment that runs, whichever Python asks.
        python = json.loads((place.data / "environment.json").read_text())["runners"]["good"]["python"]
        asked = place.run("python", "good", "--", "-c", "import sys; print(sys.executable)")
        assert asked.stdout.strip() == python
        schemas = json.loads(place.run("schemas").stdout)
        assert schemas["double"]["input_schema"]["properties"]["number"]["type"] == "integer"


@pytest.mark.parametrize("words", [("status",), ("take-over", "double", "good")])
def test_commands_that_need_an_environment_say_so(place: Place, words: tuple[str, ...]) -> None:
    refused = place.run(*words)
    assert refused.returncode == 1
    assert "no environment runs in" in refused.stderr
    assert "worker up" in refused.stderr
    assert "Traceback" not in refused.stderr


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


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_reader_that_goes_away_ends_nothing_and_the_next_signal_stops_in_order(
    place: Place, until: Until, marked_processes: Callable[[Path], list[psutil.Process]], number: int
) -> None:
    ours, theirs = os.pipe()
    worker = subprocess.Popen(place.command("up"), env=place.environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as log:
        assert any(b"good is ready" in line for line in log)
    next(p for p in marked_processes(place.data) if p.cmdline()[-1] == "worker.core").kill()
    until(lambda: _answers(place.gateway), 60)
    assert place.result(place.send("double", {"number": 5}))["result"] == 10
    worker.send_signal(number)
    assert worker.wait(60) == 0
    assert marked_processes(place.data) == []
    assert not (place.data / "environment.json").exists()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz/ready", timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("words", "code"), [("up --only nobody >&-", 1), ("up --only nobody >/dev/full", 1), ("--help >&-", 0)]
)
def test_output_that_is_closed_or_full_is_no_traceback(place: Place, words: str, code: int) -> None:
    line = f"exec {sys.executable} -P -m worker {words}"
    done = subprocess.run(["sh", "-c", line], env=place.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("no runner called 'nobody'" in done.stderr) is (code == 1)


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


def test_new_runner_joins_an_edit_takes_over_and_a_broken_one_changes_nothing(place: Place, until: Until) -> None:
    with place.started("up", "--scale", "good=2"):
        until(lambda: place.ready("good-1") and place.ready("good-2"), 60)
        before = place.status()
        assert [line["state"] for line in before["runners"]] == ["ready", "ready"]
        made = place.run("new", "runner", "shout")
        assert made.returncode == 0, made.stderr
        assert "takes it up by itself" in made.stdout
        until(lambda: place.ready("shout"), 60)
        assert place.result(place.send("shout", {"text": "hi"}))["result"] == "hi"

        adapter = place.runners / "shout" / "runner_adapter.py"
        as_made = adapter.read_text()
        adapter.write_text(as_made.replace("return text", "return text.upper()").replace("'hi'", "'HI'"))
        until(lambda: "shout is ready with its newest change" in place.log, 60)
        until(lambda: place.result(place.send("shout", {"text": "hi"}))["result"] == "HI")

        adapter.write_text(as_made.replace("text: str", "text"))
        until(lambda: "shout: its newest change is not taken" in place.log, 60)
        assert place.result(place.send("shout", {"text": "ho"}))["result"] == "HO"
        after = place.status()
        problems = [line["problem"] for line in after["runners"] if line["name"] == "shout"]
        assert "run_shout(): parameter 'text' has no type hint" in problems[0]
        good = [(line["pid"], line["ready_since"]) for line in before["runners"]]
        assert [(line["pid"], line["ready_since"]) for line in after["runners"] if line["name"] == "good"] == good
        assert "run_shout(): parameter 'text'" in place.run("status").stdout

        shutil.rmtree(adapter.parent)
        until(lambda: "shout: has left" in place.log, 60)
        place.send("shout", {"text": "later"})
        until(lambda: "shout: 1 waits: no runner offers it now" in place.run("status").stdout)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("up", "--scale", "goood=2"), "no runner called 'goood'; there are: good"),
        (("up", "--scale", "good"), "write it like nlp=2,text=3"),
        (("new", "runner", "double"), "the runner good offers the algorithm 'double' already"),
        (("new", "runner", "Good One"), "for example: good-one"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_a_sentence(
    place: Place, words: tuple[str, ...], sentence: str
) -> None:
    refused = place.run(*words)
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert [path.name for path in place.runners.iterdir()] == ["good"]


def test_commands_in_a_runner_s_own_python(place: Place) -> None:
    (place.runners / "good" / ".env").write_text("DEVICE=cuda:7\n")
    (place.runners / "good" / ".env").chmod(0o600)
    called = place.run("run", "good", "double", '{"number": 4}')
    assert (called.returncode, called.stdout.strip()) == (0, "8"), called.stderr
    checked = place.run("check", "good", "--self-test")
    assert (checked.returncode, "example of double: passed" in checked.stdout) == (0, True), checked.stderr
    code = "import os, sys; print(sys.prefix, os.getcwd(), os.environ['DEVICE']); sys.exit(7)"
    python = place.run("python", "good", "--", "-c", code)
    assert python.returncode == 7
    prefix, folder, device = python.stdout.split()
    assert Path(prefix).resolve().is_relative_to((place.data / "venvs").resolve())
    assert (Path(folder), device) == ((place.runners / "good").resolve(), "cuda:7")
    (place.runners / "mistaken").mkdir()
    (place.runners / "mistaken" / "runner_adapter.py").write_text(MISTAKEN)
    refused = place.run("check", "mistaken")
    assert (refused.returncode, "parameter 'number' has no type hint" in refused.stderr) == (1, True)


def test_several_only_and_the_version_and_the_help(place: Place) -> None:
    refused = place.run("up", "--only", "good", "--only", "goood")
    assert refused.returncode == 1
    assert "no runner called 'goood'; there are: good" in refused.stderr
    refused = place.run("up", "--only", "goood", "--only", "good")
    assert "no runner called 'goood'; there are: good" in refused.stderr
    assert place.run("--version").stdout.startswith("worker 0.")
    assert "`" not in place.run("--help").stdout


def test_new_runner_is_told_to_be_used_where_the_gateway_is(place: Place) -> None:
    made = place.run("new", "runner", "shout")
    assert f"GATEWAY_URL={place.gateway} producer send shout" in made.stdout


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
