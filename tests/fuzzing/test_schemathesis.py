"""Whatever anybody sends to the gateway or to a runner: no 5xx, and every answer is one that the document tells."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.sized, pytest.mark.timeout(900)]

RIGHT_ANSWERS = Path(__file__).parent / "what_no_schema_says.py"
#: Beyond the fuzzing itself: for the start, and for the last request.
MARGIN_SECONDS = 120
#: Of a paused algorithm every call that waits for a result takes its whole time, and little else would be tried.
LEFT_OUT = ["--exclude-path-regex", "/pause$"]
OPTIONS = ["--workers", "1", "--checks", "all", "--continue-on-failure", "--no-shrink", "--request-timeout", "30"]


@pytest.fixture
def fuzzed(environment: Any) -> Any:
    """An environment with algorithms of all kinds, and some dead letters to find."""
    environment.start("anything")
    for _ in range(20):
        environment.submit("nothing", {}, expires_seconds=1e-9)
    return environment


def begin(name: str, url: str, seconds: int, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-time", str(seconds)]
    variables = {**os.environ, "SCHEMATHESIS_HOOKS": str(RIGHT_ANSWERS), "COLUMNS": "120"}
    with (folder / f"{name}.txt").open("wb") as report:
        return subprocess.Popen(
            [*command, *OPTIONS, *LEFT_OUT], cwd=folder, env=variables, stdout=report, stderr=report
        )


def test_no_request_gets_an_undocumented_answer(fuzzed: Any, tmp_path: Path, fuzz_seconds: int) -> None:
    """Gateway and runner at the same time: each is fuzzed by a process of its own."""
    gateway, runner = fuzzed.core.url, fuzzed.services[-1].url
    running = {
        name: begin(name, url, fuzz_seconds, tmp_path) for name, url in (("gateway", gateway), ("runner", runner))
    }
    try:
        codes = {name: process.wait(fuzz_seconds + MARGIN_SECONDS) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    reports = {name: (tmp_path / f"{name}.txt").read_text(errors="replace") for name in running}
    for name, report in reports.items():
        print(name, *(line.strip() for line in report.splitlines() if "generated" in line))
    failed = [reports[name][-8000:] for name, code in codes.items() if code != 0]
    assert not failed, "\n".join(failed)
    for service in fuzzed.services:
        assert service.process.poll() is None, f"{service.name} ended"
        assert "internal_error" not in service.log.read_text()
        assert "Traceback" not in service.log.read_text(), service.log.read_text()[-3000:]
