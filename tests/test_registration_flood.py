"""Somebody registers without end: thousands of names, megabytes of descriptions, a billion slots.

Honest tasks go on meanwhile, and afterwards everything is as before, without a restart. ``--flood full`` is the whole
of it (minutes, on a machine that does nothing else) and compares their times; in CI there is less of it, and they
need only end in time.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

pytestmark = [pytest.mark.timeout(600), pytest.mark.sized]

#: Long enough for an honest runner on a busy machine, short enough to wait until the flood's are over.
LEASE_SECONDS = 8
PAUSE_SECONDS = 0.02
#: An honest task ends by then on any machine.
PATIENCE_SECONDS = 30.0
#: Times of tasks that a percentile needs.
LEAST_MEASURED = 40


FLOOD = Path(__file__).parent / "lib" / "registration_flood.py"


@contextmanager
def flooding(discovery: str, form: str) -> Iterator[Counter[str]]:
    """Somebody floods discovery meanwhile, leaving the cores to others; gives the statuses of the answers."""
    command = ["nice", "-n", "19", sys.executable, str(FLOOD), discovery, form]
    statuses: Counter[str] = Counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        try:
            yield statuses
        finally:
            told, _ = sender.communicate(timeout=380)
            statuses.update(json.loads(told))


class Honest:
    """Sends one task after the other and waits for each."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._session = requests.Session()
        self.failed = False

    def seconds(self) -> float:
        began = time.monotonic()
        answer = self._session.post(
            f"{self._environment.core.url}/tasks",
            json={"algorithm": "square", "payload": {"number": 7}},
            headers={"Prefer": "wait=60"},
            timeout=90,
        )
        spent = time.monotonic() - began
        assert answer.status_code == 200 and answer.json()["result"] == 49, answer.text
        assert spent < PATIENCE_SECONDS
        return spent

    def p95(self, count: int) -> float:
        """With the pauses of `meanwhile`: tasks one straight after the other are quicker."""
        measured = []
        for _ in range(count):
            time.sleep(PAUSE_SECONDS)
            measured.append(self.seconds())
        return percentile(measured)

    @contextmanager
    def meanwhile(self) -> Iterator[list[float]]:
        measured: list[float] = []
        over = threading.Event()

        def send() -> None:
            try:
                while not over.wait(PAUSE_SECONDS):
                    measured.append(self.seconds())
            except BaseException:
                self.failed = True
                raise

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield measured
        finally:
            over.set()
            sender.join()
        assert not self.failed, "a task failed, or did not end in time"


def percentile(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def test_honest_tasks_go_on_while_somebody_registers_without_end(
    environment: Any, until: Any, request: pytest.FixtureRequest
) -> None:
    form = str(request.config.getoption("--flood"))
    environment.discovery.settings["LEASE_SECONDS"] = str(LEASE_SECONDS)
    environment.start("steady")
    honest = Honest(environment)
    honest.p95(20)
    idle = honest.p95(100)
    began = time.monotonic()
    with honest.meanwhile() as measured, flooding(environment.discovery.url, form) as statuses:
        until(lambda: len(measured) >= LEAST_MEASURED or honest.failed, "honest tasks are answered meanwhile")
    spent = time.monotonic() - began
    during = percentile(measured)
    memory = {
        each.name: psutil.Process(each.process.pid).memory_info().rss / 2**20
        for each in (environment.discovery, environment.core)
    }
    known = requests.get(f"{environment.discovery.url}/catalogue", timeout=30).content
    print(
        f"flood of {sum(statuses.values())} in {spent:.1f} s: {dict(statuses)}; p95 idle {idle * 1000:.1f} ms, "
        f"meanwhile {during * 1000:.1f} ms of {len(measured)}; catalogue {len(known) / 2**20:.1f} MiB; MiB {memory}"
    )
    assert set(statuses) <= {"200", "422", "507"}
    assert form == "short" or during <= 2 * idle
    assert len(known) < 20 * 2**20
    assert max(memory.values()) < 512

    def flood_is_over() -> bool:
        runners = requests.get(f"{environment.discovery.url}/runners", timeout=30).json()
        return [each["name"] for each in runners] == ["steady"]

    until(flood_is_over, "leases of the flood are over, the honest one is not")
    settled = honest.p95(100)
    print(f"afterwards p95 {settled * 1000:.1f} ms")
    assert form == "short" or settled <= 2 * idle
    environment.wait_offered(environment.runner("troublemaker").start())
    environment.discovery.stop()
    environment.discovery.start()
    honest.seconds()
