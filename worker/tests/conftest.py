"""What the worker's tests share: a captured terminal, small runners, a service that answers like ours."""

import asyncio
import fcntl
import io
import os
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import processes

from worker.environments import EnvironmentBuilder, find_runnerlib
from worker.errors import EnvironmentBroken
from worker.output import Output, Report
from worker.plan import MARK, Layout, ProcessPlan
from worker.runners import RunnerFolder
from worker.settings import WorkerSettings

#: Answers /healthz/ready like a service of ours, stops on SIGTERM, and does what its arguments say; as a runner, what
#: words in its adapter say: "broken" fails the check, "fatal" the start, "unready" cannot load, "slow" stops late.
SERVICE = """
import http.server, os, signal, subprocess, sys, time
mode = sys.argv[1] if len(sys.argv) > 1 else ""
adapter = open(os.environ["RUNNER_ADAPTER"]).read() if "RUNNER_ADAPTER" in os.environ else ""
if "check" in sys.argv:
    if "endless check" in adapter:
        time.sleep(600)
    print("runner_adapter.py, line 1: a mistake" if "broken" in adapter else "1 algorithm")
    sys.exit("broken" in adapter)
if "fatal" in adapter:
    print("run_x(): parameter 'y' has no type hint")
    sys.exit(3)
print("hello from", os.getpid(), flush=True)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)
if mode == "endless start":
    time.sleep(600)
if mode == "polite":
    seconds = 1 if "slow" in adapter else 0
    def stop(*_):
        time.sleep(seconds)
        print("goodbye", os.getpid(), flush=True)
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
if mode.startswith("exit"):
    sys.exit(int(mode[4:]))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if "unready" in adapter else 200)
        self.end_headers()
        self.wfile.write(b'{"reasons": {"worker processes": "load_model() failed"}}' if "unready" in adapter else b"{}")
    def log_message(self, *words):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class OurPython:
    """Saves the making of a virtual environment; knows one runner whose requirements are wrong."""

    async def ensure(self, runner: RunnerFolder, report: Report) -> Path:
        if runner.name == "wrong":
            raise EnvironmentBroken("requirements.txt could not be installed:\n    no such package")
        return Path(sys.executable)

    def path(self, runner: RunnerFolder) -> Path:
        return Path(sys.executable)

    def is_complete(self, runner: RunnerFolder) -> bool:
        return True

    def remove_older(self, name: str, pythons: list[Path]) -> None:
        return None


@dataclass(frozen=True)
class StandIns(Layout):
    """The real layout with small services in place of the real ones."""

    script: Path = Path()
    mode: str = "polite"
    core_mode: str = "polite"

    def discovery(self) -> ProcessPlan:
        return self._stand_in(super().discovery(), self.mode)

    def services(self) -> list[ProcessPlan]:
        plans = [self._stand_in(plan, self.core_mode) for plan in super().services()]
        return [replace(plan, first_delay_seconds=0.01) for plan in plans]

    def runner(self, *words: Any) -> ProcessPlan:
        return self._stand_in(super().runner(*words), self.mode)

    def _stand_in(self, plan: ProcessPlan, mode: str) -> ProcessPlan:
        return replace(plan, command=(sys.executable, str(self.script), mode))


@pytest.fixture
def our_python() -> OurPython:
    return OurPython()


@pytest.fixture
def terminal() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def output(terminal: io.StringIO) -> Output:
    return Output(terminal)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Not one of those for outgoing connections: the ports after it are taken, too."""
    return processes.free_port


@pytest.fixture
def until() -> Callable[..., object]:
    """Waits, with a bound, until a condition holds; in a test without an event loop of its own."""

    def wait(condition: Callable[[], object], seconds: float = 60) -> object:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)
        return value

    return wait


@pytest.fixture
def until_async() -> Callable[..., object]:
    async def wait(condition: Callable[[], object], seconds: float = 60) -> object:
        async with asyncio.timeout(seconds):
            while not (value := condition()):
                await asyncio.sleep(0.02)
        return value

    return wait


@pytest.fixture
def service_plan(tmp_path: Path, free_port: Callable[[], int]) -> Callable[..., ProcessPlan]:
    """Plans a small service; the first word is its mode."""
    script = tmp_path / "service.py"
    script.write_text(SERVICE)

    def plan(mode: str = "", **options: object) -> ProcessPlan:
        port = free_port()
        return ProcessPlan(
            name=str(options.pop("name", "service")),
            command=(sys.executable, str(script), mode),
            url=f"http://127.0.0.1:{port}",
            environment=dict(os.environ) | {"PORT": str(port), MARK: str(tmp_path)},
            **options,  # type: ignore[arg-type]
        )

    return plan


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[..., RunnerFolder]:
    """Writes a runner's folder below ``tmp_path/runners``."""

    def make(name: str, code: str = "", requirements: str | None = "", position: int = 0) -> RunnerFolder:
        folder = tmp_path / "runners" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runner_adapter.py").write_text(textwrap.dedent(code))
        if requirements is not None:
            (folder / "requirements.txt").write_text(requirements)
        return RunnerFolder(name, folder, position)

    return make


@pytest.fixture(scope="session")
def venvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the real environment of runners without requirements, made once for all processes of this test run."""
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "venvs"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        plain = RunnerFolder("plain", folder / "none", 0)
        plain.path.mkdir(exist_ok=True)
        asyncio.run(EnvironmentBuilder(folder, find_runnerlib()).ensure(plain, lambda what: None))
    return folder


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """An empty package as a wheel, so that pip needs no network."""

    def make(name: str, version: str, *needs: str) -> Path:
        info = f"{name}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        files = {
            f"{name}.py": "",
            f"{info}/METADATA": "\n".join(metadata) + "\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        wheel = tmp_path / "wheels" / f"{name}-{version}-py3-none-any.whl"
        wheel.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return wheel

    return make


@pytest.fixture
def marked_processes(tmp_path: Path) -> Iterator[Callable[[Path], list[psutil.Process]]]:
    """Lists the living processes that carry an environment's mark; what a test leaves is killed and fails it."""

    def find(data: Path) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    yield find
    left = [process for folder in (tmp_path, tmp_path / "data") for process in find(folder)]
    for process in left:
        process.kill()
    assert not left, f"left behind: {left}"


@pytest.fixture
def layout(
    tmp_path: Path, service_plan: Callable[..., ProcessPlan], free_port: Callable[[], int], marked_processes: object
) -> StandIns:
    settings = WorkerSettings(
        discovery_port=free_port(),
        gateway_port=free_port(),
        controller_port=free_port(),
        runner_ports_start=free_port(),
        grace_seconds=5,
    )
    script = Path(service_plan().command[1])
    return StandIns(settings, tmp_path / "data", "pretty", dict(os.environ), script=script)
