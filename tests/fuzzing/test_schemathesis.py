"""Whatever anybody sends to a service, with its token or without one: no 5xx, and every answer is documented."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import Environment, bearer

from runnerlib.contract.identity import run_token_of

pytestmark = [pytest.mark.slow, pytest.mark.sized, pytest.mark.timeout(900)]

RIGHT_ANSWERS = Path(__file__).parent / "what_no_schema_says.py"
#: Beyond the fuzzing itself: for the start, and for the last request.
MARGIN_SECONDS = 120
#: Of a paused algorithm every call that waits for a result takes its whole time, and little else would be tried.
LEFT_OUT = ["--exclude-path-regex", "/pause$"]
OPTIONS = ["--workers", "1", "--checks", "all", "--continue-on-failure", "--no-shrink", "--request-timeout", "30"]


KEY = "a-key-of-this-environment-that-nobody-guesses"


@pytest.fixture(params=["", KEY], ids=["open", "tokens"])
def fuzzed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    """An environment with algorithms of all kinds, and some dead letters to find."""
    environment = Environment(tmp_path, keys=request.param)
    try:
        environment.start("anything")
        for _ in range(20):
            environment.submit("nothing", {}, expires_seconds=1e-9)
        yield environment
    finally:
        environment.stop()


def begin(name: str, url: str, headers: dict[str, str], seconds: int, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-time", str(seconds)]
    command += [word for header in headers.items() for word in ("--header", ": ".join(header))]
    variables = {**os.environ, "SCHEMATHESIS_HOOKS": str(RIGHT_ANSWERS), "COLUMNS": "120"}
    with (folder / f"{name}.txt").open("wb") as report:
        return subprocess.Popen(
            [*command, *OPTIONS, *LEFT_OUT], cwd=folder, env=variables, stdout=report, stderr=report
        )


def test_no_request_gets_an_undocumented_answer(fuzzed: Environment, tmp_path: Path, fuzz_seconds: int) -> None:
    """Services and runner at the same time: each is fuzzed by a process of its own."""
    runner, token = fuzzed.services[-1], fuzzed.services[-1].settings.get("RUNNER_TOKEN")
    targets = {
        "gateway": (fuzzed.core.url, fuzzed.as_admin),
        "runner": (runner.url, bearer(run_token_of(token)) if token else {}),
    }
    if token:
        # As a service, which registers nothing: what can be registered, no schema says.
        targets["discovery"] = (fuzzed.discovery.url, fuzzed.as_service)
    running = {name: begin(name, *target, fuzz_seconds, tmp_path) for name, target in targets.items()}
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
