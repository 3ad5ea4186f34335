"""For authors' tests: a task to hand in, a call as a sender makes it, and the real runner on a free port.

from runnerlib.testing import FakeFetch, FakeTask, assert_adapter_contract, call, serving

def test_countdown_reports():
    task = FakeTask()
    assert run_countdown(2, task=task) == "lift-off"      # a plain function; provided names are keywords
    assert task.reports[-1][0] == 1.0

def test_adapter():
    assert_adapter_contract("runner_adapter.py")          # hints, schemas, and the docstrings' examples
    assert call("runner_adapter.py", "upper", {"text": "a"}) == "A"

def test_size_of_a_picture():
    fetch = FakeFetch({"https://example.com/a.png": b"1234", "https://example.com/b.png": 404})
    assert run_size("https://example.com/a.png", fetch=fetch) == 4
"""

import contextlib
import mimetypes
import os
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests

from runnerlib.adapter.errors import AdapterError, did_you_mean, listed
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter, registration_problems
from runnerlib.adapter.provided import Task, TaskCancelled
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.adapter.values import BadResult, encode_result
from runnerlib.contract import strict_json
from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused, for_status
from runnerlib.fetching.fetch import Fetch
from runnerlib.fetching.urls import Fetched, FetchLimits, read_data_url, scheme_of
from runnerlib.leftovers import remove

__all__ = [
    "AdapterError",
    "BadResult",
    "FakeFetch",
    "FakeTask",
    "FetchFailed",
    "FetchRefused",
    "Fetched",
    "RunFailed",
    "ServedRunner",
    "TaskCancelled",
    "assert_adapter_contract",
    "call",
    "load",
    "serving",
]

#: Variables that would make a runner under test join an environment that happens to run beside it.
_NOT_INHERITED = ("DISCOVERY_URL", "RUNNER_DISCOVERY_CONTAINER_NAME")
_POLL_SECONDS = 0.05
_LOG_TAIL_BYTES = 4000


class FakeTask(Task):
    """A task that remembers what was reported.

    `cancel_after` cancels it after that many reports; :meth:`cancel` does so at once. Unlike the real one, its
    `deadline` does not count down, :meth:`track` reports each item, and its folder exists as long as this object does,
    so that a test can look into it.
    """

    track_every_seconds = 0.0
    deadline: float | None = None

    def __init__(
        self, id: str = "fake-task", attempt: int = 1, deadline: float | None = None, cancel_after: int | None = None
    ) -> None:
        super().__init__(id, attempt, report=self._remember)
        self.deadline = deadline
        self.reports: list[tuple[float, str]] = []
        self._cancel_after = cancel_after
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        enough = self._cancel_after is not None and len(self.reports) >= self._cancel_after
        return self._cancelled or enough

    def cancel(self) -> None:
        self._cancelled = True

    def _remember(self, fraction: float, message: str) -> None:
        self.reports.append((fraction, message))

    @property
    def folder(self) -> Path:
        is_new = self._folder is None
        folder = super().folder
        if is_new:
            weakref.finalize(self, remove, folder)
        return folder


class FakeFetch(Fetch):
    """A ``fetch`` without a network: `answers` by URL; `asked` lists the URLs that were fetched.

    An answer is the content (its type is guessed from the URL's ending), a Fetched, an HTTP status such as 404, or an
    exception to raise. ``data:`` URLs are read as the real one reads them. Any other URL raises AssertionError.
    """

    def __init__(self, answers: Mapping[str, bytes | int | Fetched | Exception] | None = None) -> None:
        super().__init__(FetchRules(), self._answer)
        self.asked: list[str] = []
        self._answers = dict(answers or {})

    def _answer(self, url: str, limits: FetchLimits) -> Fetched:
        self.asked.append(url)
        if scheme_of(url) == "data":
            return read_data_url(url, limits)
        if url not in self._answers:
            raise AssertionError(f"FakeFetch was not told what is at {url}; it knows {list(self._answers)}")
        answer = self._answers[url]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            raise for_status(url, answer)
        if isinstance(answer, bytes):
            answer = Fetched(answer, mimetypes.guess_type(url)[0] or "application/octet-stream", url)
        limits.check_type(url, answer.content_type)
        limits.check_size(url, len(answer.content))
        return answer


def load(path: str | Path) -> Adapter:
    """Reads an adapter; `path` is the file or its folder. Raises AdapterError with a sentence for each mistake."""
    return load_adapter(Path(path))


def call(adapter: Adapter | str | Path, algorithm: str, payload: Mapping[str, Any], **fakes: Any) -> Any:
    """One call as a sender makes it: validated, with provided names, its result as it would be read from JSON.

    `fakes` stand for provided names (``model=...``, ``task=FakeTask()``); what is not faked is loaded. Raises
    pydantic.ValidationError for a payload that does not fit, BadResult for a result that cannot be sent, LoadError,
    and whatever the handler raises.
    """
    known = adapter if isinstance(adapter, Adapter) else load(adapter)
    if algorithm not in known.algorithms:
        raise LookupError(f"there is no algorithm {algorithm!r}.{did_you_mean(algorithm, known.algorithms)}")
    described = known.algorithms[algorithm]
    provided = {*described.provided, *described.resources}
    for name in fakes:
        if name not in provided:
            asked = listed(sorted(provided)) or "nothing"
            raise TypeError(f"{described.function_name}() does not ask for {name!r}, but for {asked}")
    task = fakes.pop("task", None) or FakeTask()
    arguments = described.validate(strict_json.dumps(dict(payload)))
    with Session(known, [algorithm], replacements=fakes) as session:
        return strict_json.loads(encode_result(described, session.call_here(algorithm, arguments, task)))


def assert_adapter_contract(path: str | Path) -> None:
    """Everything the runner needs before it is ready: hints, schemas, loading, the docstrings' examples.

    Raises AssertionError with a sentence for each mistake.
    """
    try:
        adapter = load(path)
    except AdapterError as error:
        raise AssertionError("\n".join(error.problems)) from error
    failures = registration_problems(adapter)
    try:
        with Session(adapter) as session:
            for name in adapter.algorithms:
                try:
                    session.self_test(name)
                except SelfTestFailed as error:
                    failures.append(str(error))
    except LoadError as error:
        failures.append(str(error))
    assert not failures, "\n".join(failures)


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
            process = _start_runner(Path(path), port, environment or {}, stream)
            try:
                _wait_ready(process, url, log, ready_seconds)
                yield ServedRunner(url, process.pid, log)
            finally:
                _stop_process(process)


def _start_runner(path: Path, port: int, environment: Mapping[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
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


def _stop_process(process: "subprocess.Popen[bytes]") -> None:
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
