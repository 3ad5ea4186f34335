"""Inputs that once had a wrong outcome, each given to a whole environment: `worker up` on a folder with all of them."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from environments import until
from servers.postgresql import PostgreSQL
from servers.processes import free_port
from servers.rabbitmq import RabbitMQ

from worker.ports import is_free

pytestmark = pytest.mark.timeout(300)

CASES = Path(__file__).parent / "cases"
UP_HERE = Path(__file__).parent / "lib" / "up_here.py"
#: Names of the standard library that the helpers of one runner have.
SHADOWED = ("queue", "json", "logging", "types", "random", "email", "calendar", "platform")
#: Processes of runners of one environment, at most.
MOST_RUNNERS = 30
ECHO = """
def run_echo(text: str) -> str:
    return text


def run_text(text: str) -> str:
    return text
"""


def _free_block() -> int:
    """The first of as many free ports as all runners together need, where no other test takes any."""
    while True:
        start = random.randrange(10_000, 19_900, MOST_RUNNERS)
        if all(is_free("127.0.0.1", port) for port in range(start, start + MOST_RUNNERS)):
            return start


@dataclass
class Up:
    """`worker up`, as somebody at a terminal has it."""

    folder: Path
    queue_url: str = ""
    database_url: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    port: int = field(default_factory=free_port)
    discovery_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def runners(self) -> Path:
        return self.folder / "runners"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        return kept | {
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_URL": self.url,
            "DISCOVERY_PORT": str(self.discovery_port),
            "CONTROLLER_PORT": str(free_port()),
            "RUNNER_PORTS_START": str(_free_block()),
            "QUEUE_URL": self.queue_url,
            "DATABASE_URL": self.database_url,
            "COLUMNS": "80",
        }

    def start(self) -> "Up":
        command = [sys.executable, "-P", str(UP_HERE), str(self.runners), str(self.folder / "data")]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, env=self.variables(), stdout=output, stderr=output)
        until(lambda: "everything is started" in self.log.read_text(encoding="utf-8"), f"it is started; see {self.log}")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def command(self, *words: str, given: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-P", "-m", *words]
        variables = self.variables() | {"RUNNERS_FOLDER": str(self.runners), "DATA_FOLDER": str(self.folder / "data")}
        return subprocess.run(command, env=variables, input=given, capture_output=True, timeout=60, check=False)

    def wait_offered(self, algorithm: str) -> None:
        def offered() -> bool:
            answer = requests.get(f"{self.url}/algorithms/{algorithm}", timeout=10)
            return answer.status_code == 200 and bool(answer.json()["runners"])

        until(offered, f"{algorithm} is offered; see {self.log}")

    def ended(self, algorithm: str, payload: Any) -> dict[str, Any]:
        """The task once it has ended."""
        (view,) = self.all_ended(algorithm, [payload])
        return view

    def all_ended(self, algorithm: str, payloads: list[Any]) -> list[dict[str, Any]]:
        """Sent together."""
        self.wait_offered(algorithm)
        messages = [{"algorithm": algorithm, "payload": payload} for payload in payloads]
        answer = requests.post(f"{self.url}/tasks/batch", json=messages, timeout=20)
        assert answer.status_code in (200, 202, 207), answer.text
        ids = [entry["id"] for entry in answer.json()]
        assert all(ids), answer.text
        return [self._ended(task_id) for task_id in ids]

    def _ended(self, task_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            view = requests.get(f"{self.url}/tasks/{task_id}", headers={"Prefer": "wait=20"}, timeout=40).json()
            return view if view["state"] in ("succeeded", "failed", "cancelled") else None

        view: dict[str, Any] = until(look, f"task {task_id} has ended")
        return view


def succeeded(view: dict[str, Any]) -> Any:
    assert view["state"] == "succeeded", view
    return view["result"]


def failed(view: dict[str, Any], code: str) -> str:
    assert (view["state"], view["error"]["code"]) == ("failed", code), view
    return str(view["error"]["message"])


def copy_case(name: str, runners: Path) -> None:
    shutil.copytree(CASES / name, runners / name, ignore=shutil.ignore_patterns("expected.md", "*.sh"))


def write_runner(runners: Path, name: str, source: str) -> None:
    (runners / name).mkdir(parents=True)
    (runners / name / "runner_adapter.py").write_text(source, encoding="utf-8")


def fill(folder: Path) -> None:
    """All cases that have an adapter, as an author would lay them out."""
    runners = folder / "runners"
    write_runner(runners, "echo", ECHO)
    for name in (
        "alias_keyerror",
        "async_exit_kills_neighbours",
        "gateway_refuses_what_runner_takes",
        "nan_silent_null",
        "validator_exception_wedges_algorithm",
    ):
        copy_case(name, runners)
    for name in ("literal_of_60000", "mixed_default_over_64_bits"):
        shutil.copytree(CASES / "registration_refused" / name, runners / name)
    shared = CASES / "shared_code_outside"
    shutil.copytree(shared / "common", folder / "common")
    for name in ("sibling", "sibdata"):
        shutil.copytree(shared / name, runners / name)
    functions = (f"def run_sh_{name}(text: str) -> str:\n    return text\n" for name in SHADOWED)
    write_runner(runners, "shadowed_stdlib", "\n\n".join(functions))
    for name in SHADOWED:
        (runners / "shadowed_stdlib" / f"{name}.py").write_text("# a helper of mine\n", encoding="utf-8")
    for name in ("nlp", "txt"):
        source = f'def run_from_{name}(text: str) -> str:\n    return "{name}"\n'
        write_runner(folder / "rel" / name, "current", source)
        (runners / f"{name}2").symlink_to(folder / "rel" / name / "current")


@pytest.fixture(scope="module")
def ups(
    tmp_path_factory: pytest.TempPathFactory,
    broker_servers: Callable[[str], RabbitMQ],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[str], Up]]:
    """The environment on "embedded" or "rabbitmq4", started when first asked for."""
    with ExitStack() as stack:
        made: dict[str, Up] = {}

        def get(kind: str) -> Up:
            if kind not in made:
                folder = tmp_path_factory.mktemp(kind)
                made[kind] = up = Up(folder)
                if kind != "embedded":
                    broker = broker_servers(kind.removeprefix("rabbitmq"))
                    postgres: PostgreSQL = request.getfixturevalue("postgres_server")
                    name = f"cases_{kind}_{os.getpid()}"
                    broker.add_vhost(name)
                    up.queue_url, up.database_url = broker.url_of(name), postgres.create_database(name)
                fill(folder)
                stack.callback(up.stop)
                up.start()
            return made[kind]

        yield get


@pytest.fixture(params=["embedded", "rabbitmq4"])
def up(request: pytest.FixtureRequest, ups: Callable[[str], Up]) -> Up:
    return ups(request.param)


def test_a_payload_whose_validator_raises_fails_alone(up: Up) -> None:
    money = [{"money": {"amount": 2.0, "currency": "XXX" if number == 5 else "EUR"}} for number in range(11)]
    for _ in range(4):
        views = up.all_ended("convert", money)
        assert "XXX" in failed(views.pop(5), "handler_error")
        assert [succeeded(view) for view in views] == [2.0] * 10
        assert {view["attempt"] for view in views} == {1}
    assert succeeded(up.ended("convert", money[0])) == 2.0


def test_an_async_run_that_exits_fails_alone(up: Up) -> None:
    payloads = [{"kind": "sleep", "seconds": 2.0}] * 5 + [{"kind": "exit", "seconds": 0.5}]
    views = up.all_ended("a_mixed", payloads)
    culprit = views.pop()
    assert culprit["state"] == "failed", culprit
    assert [succeeded(view) for view in views] == ["sleep"] * 5


@pytest.mark.parametrize(
    "algorithm", ["np_scalar", "np_array", "np_in_dict", "deque", "generator", "deque_without_hint", "plain"]
)
def test_a_result_with_nan_is_a_bad_result(up: Up, algorithm: str) -> None:
    message = failed(up.ended(algorithm, {"x": 1.0}), "bad_result")
    assert "nan" in message.lower() and "list of entries" not in message, message


@pytest.mark.parametrize(
    ("algorithm", "payload"),
    [
        ("rights", {"rights": 3}),
        ("nt", {"point": {"x": 1}}),
        ("nt", {"point": [1, 2]}),
        ("item", {"item": {"source": "a"}}),
        ("item", {"item": {"from": "a"}}),
        ("code", {"code": "de"}),
    ],
)
def test_what_the_runner_takes_is_not_refused_at_the_gateway(up: Up, algorithm: str, payload: Any) -> None:
    assert succeeded(up.ended(algorithm, payload)) is not None


def test_a_parameter_with_an_alias_works_or_is_told(up: Up) -> None:
    checked = up.command("runnerlib", "check", str(up.runners / "alias_keyerror"))
    told = (checked.stdout + checked.stderr).decode()
    assert "Traceback" not in told
    if checked.returncode == 0:
        assert succeeded(up.ended("alias", {"from": "a"})) == "a"
    else:
        assert "run_alias" in told and "alias" in told, told


@pytest.mark.parametrize(("offered", "left_out"), [("small", "biglit"), ("fine", "seeded")])
def test_what_cannot_be_registered_is_told_and_the_rest_is_offered(up: Up, offered: str, left_out: str) -> None:
    folder = {"small": "literal_of_60000", "fine": "mixed_default_over_64_bits"}[offered]
    checked = up.command("runnerlib", "check", str(up.runners / folder))
    told = (checked.stdout + checked.stderr).decode()
    assert checked.returncode != 0 and f"run_{left_out}" in told and "Traceback" not in told, told
    assert succeeded(up.ended(offered, {"text": "a"})) == "a"
    status = until(lambda: _status_naming(up, left_out), f"worker status tells of {left_out}")
    assert folder in status


def _status_naming(up: Up, word: str) -> str | None:
    told = up.command("worker", "status").stdout.decode()
    return told if word in told else None


@pytest.mark.parametrize("name", SHADOWED)
def test_a_helper_named_like_the_standard_library_harms_nobody(up: Up, name: str) -> None:
    assert succeeded(up.ended(f"sh_{name}", {"text": "a"})) == "a"


def test_code_and_data_beside_the_folder_of_runners_are_found(up: Up) -> None:
    assert succeeded(up.ended("sibling", {"text": "a"})) == "aa"
    assert succeeded(up.ended("sibdata", {"key": "a"})) == 1


def test_linked_runner_folders_are_runners_of_the_links_names(up: Up) -> None:
    assert succeeded(up.ended("from_nlp", {"text": "a"})) == "nlp"
    assert succeeded(up.ended("from_txt", {"text": "a"})) == "txt"
    runners = requests.get(f"http://127.0.0.1:{up.discovery_port}/runners", timeout=10).text
    assert "nlp2" in runners and "txt2" in runners and "current" not in runners


def test_a_runner_that_nobody_can_reach_leaves_its_tasks_queued_and_says_why(up: Up, tmp_path: Path) -> None:
    write_runner(tmp_path, "nat", "def run_nat(text: str) -> str:\n    return text\n")
    port = free_port()
    settings = {
        "DISCOVERY_URL": f"http://127.0.0.1:{up.discovery_port}",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADVERTISE_HOST": f"nat-runner.invalid:{port}",
        "NAME": "nat",
    }
    runner = subprocess.Popen(
        [sys.executable, "-P", "-m", "runnerlib"], cwd=tmp_path / "nat", env=up.variables() | settings
    )
    try:
        up.wait_offered("nat")
        body = {"algorithm": "nat", "payload": {"text": "a"}}
        task_id = requests.post(f"{up.url}/tasks", json=body, timeout=10).json()["id"]

        def told() -> dict[str, Any] | None:
            view: dict[str, Any] = requests.get(f"{up.url}/tasks/{task_id}", timeout=10).json()
            return view if "reach" in (view["waiting_for"] or "") else None

        view = until(told, "it is told why the task waits")
        assert view["state"] == "queued" and "nat-runner.invalid" in view["waiting_for"], view
        assert requests.delete(f"{up.url}/tasks/{task_id}", timeout=10).status_code in (200, 202)
        assert up._ended(task_id)["state"] == "cancelled"
    finally:
        runner.terminate()
        runner.wait(30)


def test_a_byte_order_mark_means_the_same_at_every_door(up: Up, tmp_path: Path) -> None:
    up.wait_offered("echo")
    file = CASES / "bom_send" / "bom.json"
    body = file.read_bytes()
    line = b'\xef\xbb\xbf{"algorithm": "echo", "payload": {"text": "bom"}}\n'
    (tmp_path / "tasks.ndjson").write_bytes(line)
    doors = [
        up.command("producer", "send", "echo", f"@{file}", "--wait"),
        up.command("producer", "send", "echo", "-", "--wait", given=body),
        up.command("producer", "send-many", str(tmp_path / "tasks.ndjson")),
    ]
    told = [(door.stdout + door.stderr).decode() for door in doors]
    assert [door.returncode for door in doors] == [0, 0, 0], told
    answer = requests.post(
        f"{up.url}/algorithms/echo/run", data=body, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.ok or "byte order mark" in answer.text, answer.text


def test_a_compressed_body_is_refused_as_such(up: Up) -> None:
    up.wait_offered("echo")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = requests.post(f"{up.url}/algorithms/echo/run", data=b"\x1f\x8b\x08", headers=headers, timeout=10)
    assert answer.status_code == 415 and "Content-Encoding" in answer.text


def test_every_service_answers_head(up: Up) -> None:
    view = requests.get(f"http://127.0.0.1:{up.discovery_port}/runners", timeout=10).json()
    runner = next(each["host"] for each in (view if isinstance(view, list) else view["runners"]))
    for base in (up.url, f"http://127.0.0.1:{up.discovery_port}", runner):
        for path in ("/healthz/live", "/metrics", "/docs"):
            answer = requests.head(base + path, timeout=10)
            assert (answer.status_code, answer.content) == (200, b""), (base, path)


def test_children_of_a_fork_get_their_own_results(up: Up) -> None:
    up.wait_offered("echo")
    script = CASES / "fork_http_wrong_result" / "fork_wrong.py"
    ran = subprocess.run([sys.executable, str(script), up.url, "15"], capture_output=True, timeout=200, check=False)
    assert ran.stdout.decode().splitlines()[-1] == "{'ok': 30, 'wrong': 0, 'hanging': 0, 'errors': 0}", ran


@pytest.mark.parametrize("up", ["rabbitmq4"], indirect=True)
def test_a_forked_child_sends_through_the_broker(up: Up) -> None:
    up.wait_offered("text")
    script = CASES / "fork_amqp_hangs" / "fork_amqp.py"
    ran = subprocess.run(
        [sys.executable, str(script), up.url, up.queue_url], capture_output=True, timeout=100, check=False
    )
    assert ran.stdout.decode().split("\n")[:-1] == [
        "parent: before",
        "child: child",
        "child ended with 0",
        "parent after: after",
    ], ran


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Up]:
    """An embedded environment for one case; its runners come first."""
    up = Up(tmp_path)
    up.runners.mkdir()
    try:
        yield up
    finally:
        up.stop()


def test_what_handlers_started_ends_with_the_environment(small: Up) -> None:
    copy_case("children_survive", small.runners)
    small.start()
    recycled = [succeeded(small.ended("bg_recycled", {"seconds": 600})) for _ in range(3)]
    until(lambda: not any(_runs(pid) for pid in recycled[:2]), "what a recycled process started has ended")
    kept = succeeded(small.ended("bg", {"seconds": 600}))
    assert _runs(kept)
    small.stop()
    still = [pid for pid in (*recycled, kept) if _runs(pid)]
    for pid in still:
        os.kill(pid, signal.SIGKILL)
    assert not still


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_change_behind_included_requirements_takes_effect(small: Up) -> None:
    copy_case("included_requirements", small.runners)
    small.start()
    assert succeeded(small.ended("rqi", {"x": 1})) == "1.16.0"
    (small.runners / "included_requirements" / "base.txt").write_text("six==1.17.0\n", encoding="utf-8")
    until(lambda: small.ended("rqi", {"x": 1})["result"] == "1.17.0", "the newer version answers")


def test_expectations_stand_beside_every_case() -> None:
    names = [folder.name for folder in CASES.iterdir() if folder.is_dir()]
    assert len(names) == 18
    assert all((CASES / name / "expected.md").is_file() for name in names)
