import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class ServiceProcess:
    """A script in a Python process of its own, with its log lines as they come."""

    def __init__(self, script: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def wait_line(self, part: str, seconds: float = 60) -> str:
        def found() -> str | None:
            return next((line for line in self.lines if part in line), None)

        with self._more:
            assert self._more.wait_for(found, seconds), f"no line with {part!r} in {self.lines}"
            line = found()
            assert line is not None
            return line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts `script` (source text) as a process; all are ended with the test."""
    started: list[ServiceProcess] = []

    def start_one(source: str, *arguments: str, **environment: str) -> ServiceProcess:
        script = tmp_path / f"service_{len(started)}.py"
        script.write_text(source)
        started.append(ServiceProcess(script, list(arguments), environment))
        return started[-1]

    yield start_one
    for each in started:
        each.close()


@pytest.fixture
def eventually() -> Callable[..., object]:
    """``await eventually(condition)``: polls until it is true, at most `seconds`."""

    async def poll(condition: Callable[[], object], seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.01)

    return poll
