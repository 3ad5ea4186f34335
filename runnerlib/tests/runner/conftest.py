"""A real runner in a process of its own, with worker processes of its own, for tests that ask it over HTTP."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from servers import processes

#: Every wait of these tests ends by then.
PATIENCE_SECONDS = 60.0


def _until(condition: Callable[[], Any], what: str, within_seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + within_seconds
    pause = threading.Event()
    while True:
        try:
            if answer := condition():
                return answer
        except requests.RequestException:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds:.0f} s: {what}")
        pause.wait(0.02)


@dataclass
class Served:
    """One running runner."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path
    is_stopping: bool = False
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE_SECONDS)

    def ready(self) -> "Served":
        def answer() -> bool:
            assert self.process.poll() is None, f"it ended by itself:\n{self.log}"
            return self.get("/healthz/ready").status_code == 200

        try:
            _until(answer, "the runner is ready")
        except AssertionError:
            print(self.log)
            raise
        return self

    def run(
        self,
        algorithm: str,
        payload: Any,
        id: str | None = None,
        attempt: int | None = None,
        wait: float | None = None,
        deadline: float | None = None,
    ) -> requests.Response:
        headers = {
            "Task-Id": id,
            "Task-Attempt": None if attempt is None else str(attempt),
            "Prefer": None if wait is None else f"wait={wait}",
            "Task-Deadline": None if deadline is None else str(deadline),
        }
        return requests.post(
            f"{self.url}/run/{algorithm}",
            json=payload,
            headers={name: value for name, value in headers.items() if value is not None},
            timeout=PATIENCE_SECONDS,
        )

    def later(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> "Future[Any]":
        """The same call from another thread."""
        return self.pool.submit(call, *arguments, **named)

    def post_batch(self, algorithm: str, items: list[dict[str, Any]], wait: float = 20) -> requests.Response:
        return requests.post(
            f"{self.url}/batch/{algorithm}",
            json=items,
            headers={"Prefer": f"wait={wait}"},
            timeout=PATIENCE_SECONDS + wait,
        )

    def batch(self, algorithm: str, items: list[dict[str, Any]], wait: float = 20) -> list[dict[str, Any]]:
        answer = self.post_batch(algorithm, items, wait)
        assert answer.status_code == 200, answer.text
        entries: list[dict[str, Any]] = answer.json()
        return entries

    def state(self, id: str) -> str:
        answer = self.get(f"/tasks/{id}")
        return str(answer.json()["state"]) if answer.status_code == 200 else "unknown"

    def until_state(self, id: str, state: str) -> None:
        _until(lambda: self.state(id) == state, f"task {id} is {state}")

    def until_progress(self, id: str) -> None:
        """Until its handler is at work: `running` only says that a worker process was sent it."""
        _until(lambda: "progress" in self.get(f"/tasks/{id}").json(), f"task {id} reports progress")

    def cancel(self, id: str) -> requests.Response:
        return requests.delete(f"{self.url}/tasks/{id}", timeout=PATIENCE_SECONDS)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def terminate(self) -> None:
        """Asks it to stop, once: whoever asks twice does not want to wait."""
        if not self.is_stopping:
            self.is_stopping = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ends it in any case."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.pool.shutdown(wait=False)


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Waits for a true answer; fails with a sentence when there is none in time."""
    return _until


@pytest.fixture(scope="module")
def serve_adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts a runner from an adapter's source; upper-case keywords are its settings."""
    started: list[Served] = []

    def serve(source: str, *, ready: bool = True, **settings: str) -> Served:
        folder = tmp_path_factory.mktemp("runner")
        (folder / "runner_adapter.py").write_text(textwrap.dedent(source))
        port = processes.free_port()
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        environment |= {
            "RUNNER_NAME": "test",
            "PORT": str(port),
            "LOG_FORMAT": "json",
            "GRACE_SECONDS": "2",
            **settings,
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "runnerlib"], cwd=folder, env=environment, stdout=log, stderr=log
            )
        served = Served(process, port, folder)
        started.append(served)
        return served.ready() if ready else served

    yield serve
    for served in started:
        served.stop()


@pytest.fixture
def item() -> Callable[..., dict[str, Any]]:
    """One item of a batch."""

    def make(id: str, payload: Any = None, attempt: int = 1, **more: Any) -> dict[str, Any]:
        found = {"id": id, "attempt": attempt, **more}
        return found if payload is None else {**found, "payload": payload}

    return make
