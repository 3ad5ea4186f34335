import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from servers import processes


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class DiscoveryProcess:
    """``python -m runner_discovery`` in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner_discovery"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "LOG_FORMAT": "json", **environment},
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def wait_line(self, part: str, seconds: float = 60) -> str:
        def found() -> str | None:
            return next((line for line in self.lines if part in line), None)

        with self._more:
            assert self._more.wait_for(found, seconds), f"no line with {part!r} in {self.lines}"
            return str(found())

    def wait(self, seconds: float = 60) -> int:
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def free_port() -> int:
    return processes.free_port()


@pytest.fixture
def discovery(tmp_path: Path) -> Iterator[Callable[..., DiscoveryProcess]]:
    """Starts the registry as a process; ``discovery(PORT="8010")``. It returns when it listens."""
    started: list[DiscoveryProcess] = []

    def start(wait: bool = True, **environment: str) -> DiscoveryProcess:
        started.append(DiscoveryProcess(tmp_path, environment))
        if wait:
            started[-1].wait_line("listens")
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def registration() -> Callable[..., dict[str, Any]]:
    """The body of ``PUT /runners/{id}``: ``registration("b1", upper=1)`` is boot b1 with version 1 of upper."""

    def make(
        boot: str = "b1",
        host: str = "http://127.0.0.1:9001",
        name: str = "text",
        keeps: Sequence[str] = (),
        **versions: int,
    ) -> dict[str, Any]:
        algorithms = [
            {"name": name, "input_schema": {"title": f"v{version}"}, "output_schema": {}}
            for name, version in versions.items()
        ]
        return {"name": name, "host": host, "boot": boot, "algorithms": algorithms, "keeps": list(keeps)}

    return make


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """``await eventually(condition)``: polls until it is true, at most `seconds`."""

    async def poll(condition: Callable[[], object], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.01)

    return poll
