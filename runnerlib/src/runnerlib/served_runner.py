"""The real runner in a process of its own, for tests; see :func:`runnerlib.testing.serving`."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests

#: Variables that would make a runner under test join an environment that happens to run beside it.
_NOT_INHERITED = ("DISCOVERY_URL", "RUNNER_DISCOVERY_CONTAINER_NAME")
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000


class RunFailed(Exception):
    """The runner answered a call with a problem: `status` of HTTP and the problem's `code`."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code} ({status}): {detail}")
        self.status = status
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class ServedRunner:
    """A runner that is ready. `url` has its docs at ``/docs``."""

    url: str
    pid: int
    log: Path

    def run(self, algorithm: str, payload: Mapping[str, Any], timeout_seconds: float = 60) -> Any:
        """``POST /run/{algorithm}``: the result. Raises RunFailed."""
        answer = requests.post(f"{self.url}/run/{algorithm}", json=dict(payload), timeout=timeout_seconds)
        if answer.status_code == requests.codes.ok:
            return answer.json()["result"]
        try:
            problem = answer.json()
        except requests.JSONDecodeError:
            problem = {}
        code, detail = problem.get("code", "no_problem"), problem.get("detail", answer.text[:200])
        raise RunFailed(answer.status_code, code, detail)


@contextlib.contextmanager
def serving(
    path: str | Path, *, ready_seconds: float = 60, environment: Mapping[str, str] | None = None
) -> Iterator[ServedRunner]:
    """Starts ``python -m runnerlib`` for an adapter on a free port, without discovery; stops it at the end.

    Yields once it is ready. `environment` are more variables, e.g. ``{"OPTION_UPPER_SLOTS": "2"}``. Raises
    RuntimeError with the end of its log when it stops or is not ready within `ready_seconds`.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="runner-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as stream:
            process = _start(Path(path), port, environment or {}, stream)
            try:
                _wait_ready(process, url, log, ready_seconds)
                yield ServedRunner(url, process.pid, log)
            finally:
                _stop(process)


def _start(path: Path, port: int, environment: Mapping[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    # A child needs the whole environment (PATH, virtual environment), changed; so it is read here.
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in _NOT_INHERITED}
    variables = {
        "RUNNER_ADAPTER": str(path.resolve()),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "EXIT_WITH_PARENT": "true",
        **environment,
    }
    command = [sys.executable, "-m", "runnerlib", "serve"]
    return subprocess.Popen(command, env={**inherited, **variables}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _wait_ready(process: "subprocess.Popen[bytes]", url: str, log: Path, ready_seconds: float) -> None:
    ends_at = time.monotonic() + ready_seconds
    reason = "it does not listen yet"
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            raise RuntimeError(f"the runner stopped with exit code {process.returncode}:\n{_tail(log)}")
        try:
            answer = requests.get(f"{url}/healthz/ready", timeout=5)
        except requests.RequestException:
            time.sleep(_POLL_SECONDS)
            continue
        if answer.status_code == requests.codes.ok:
            return
        reason = answer.text
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the runner was not ready within {ready_seconds} s ({reason}):\n{_tail(log)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
