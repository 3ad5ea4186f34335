"""Whatever authors write: when `check` says yes, the runner registers and answers, and no payload wedges it.

``--generated-runners 40 --generated-seed S`` is the longer form; ``--full`` takes 40 runners, too.
"""

import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import until
from generated_algorithms import Generated, adapter_source, generate
from servers.processes import free_port

from runnerlib.testing import ServedRunner, serving

pytestmark = pytest.mark.sized

ALGORITHMS = 50
#: So many are written; some are refused, and of the others the first 50 are served.
WRITTEN = 120
PAYLOADS = 50
#: A payload takes one second at most, twice that where its batch was tried before it alone, and new processes.
PATIENCE_SECONDS = 90.0
CODES = {"invalid_payload", "handler_error", "bad_result", "timeout", "runner_lost"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        option = metafunc.config.getoption
        seeds = [f"{option('--generated-seed')}-{n}" for n in range(option("--generated-runners"))]
        metafunc.parametrize("seed", seeds)


@pytest.fixture
def discovery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("discovery"), free_port()
    variables = {"HOST": "127.0.0.1", "PORT": str(port), "SNAPSHOT_PATH": str(folder / "snapshot.json")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner_discovery"], env=variables, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: requests.get(f"{url}/healthz/ready", timeout=5).status_code == 200, "discovery is ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(300)
def test_what_check_accepts_is_registered_and_answers_every_payload(seed: str, discovery: str, tmp_path: Path) -> None:
    tag = re.sub(r"\W", "_", seed)
    draw = random.Random(seed)
    written = [generate(draw, f"g{tag}_{n}", n, PAYLOADS) for n in range(WRITTEN)]
    accepted = _accepted(written, tmp_path)[:ALGORITHMS]
    _write(accepted, tmp_path)
    variables = {"DISCOVERY_URL": discovery, "RUNNER_NAME": f"generated-{tag}", "CANCEL_GRACE_SECONDS": "0.5"}
    with serving(tmp_path, ready_seconds=120, environment=variables) as runner:
        _registered(discovery, accepted, runner)
        assert requests.get(f"{runner.url}/openapi.json", timeout=60).status_code == 200
        assert requests.get(f"{runner.url}/schemas", timeout=60).status_code == 200
        with ThreadPoolExecutor(4) as pool:
            outcomes = sum(pool.map(lambda one: _all_answered(runner, one), accepted), Counter())
    print(f"seed {seed}: {len(accepted)} of {WRITTEN} accepted; {dict(outcomes)}")
    assert outcomes.total() == len(accepted) * PAYLOADS


def _write(algorithms: list[Generated], folder: Path) -> None:
    (folder / "runner_adapter.py").write_text(adapter_source(algorithms))


def _accepted(written: list[Generated], folder: Path) -> list[Generated]:
    """Those that `check` has nothing to say against; each of the others is named in a sentence."""
    left = written
    for options in ([], [], [], ["--self-test"], ["--self-test"], ["--self-test"]):
        _write(left, folder)
        command = [sys.executable, "-P", "-m", "runnerlib", "check", *options, str(folder)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if checked.returncode == 0 and options:
            break
        assert "Traceback" not in checked.stderr, checked.stderr
        refused = set(re.findall(r"^(?:run|batch)_(\w+)\(", checked.stderr, re.MULTILINE))
        assert checked.returncode == 0 or refused, f"nobody is named: {checked.returncode} {checked.stderr[-2000:]}"
        left = [one for one in left if one.name not in refused]
    else:
        raise AssertionError(f"check still refuses {refused}: {checked.stderr[-2000:]}")
    assert len(left) > ALGORITHMS / 2
    return left


def _registered(discovery: str, accepted: list[Generated], runner: ServedRunner) -> None:
    """Waits until discovery lists them all with a runner."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at and "cannot register" not in (log := runner.log.read_text()):
        catalogue = requests.get(f"{discovery}/catalogue", timeout=60).json()
        missing = [one.name for one in accepted if not catalogue["algorithms"].get(one.name, {}).get("runners")]
        if not missing:
            return
        time.sleep(0.1)
    raise AssertionError(f"not registered:\n{log[-4000:]}")


def _all_answered(runner: ServedRunner, algorithm: Generated) -> Counter[str]:
    """Sends all payloads, and a good task for the same process behind them."""
    items = [
        {"id": f"{algorithm.name}-{at}", "attempt": 1, "payload": payload}
        for at, payload in enumerate(algorithm.payloads)
    ]
    steady = f"steady_{algorithm.options['process']}"
    behind = [{"id": f"{algorithm.name}-steady", "attempt": 1, "payload": {"number": 1}}]
    entries = _batch(runner, algorithm.name, items)
    (good,) = _batch(runner, steady, behind)
    assert good["state"] == "succeeded", (algorithm, good)
    found: Counter[str] = Counter()
    for entry, item in zip(entries, items, strict=True):
        assert entry["state"] in ("succeeded", "failed"), (algorithm.source, item, entry)
        code = entry["error"]["code"] if entry["state"] == "failed" else "succeeded"
        assert code in CODES | {"succeeded"}, (algorithm.source, item, entry)
        assert entry["state"] == "succeeded" or entry["error"]["message"], (algorithm.source, item, entry)
        found[code] += 1
    return found


def _batch(runner: ServedRunner, name: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at:
        answer = requests.post(
            f"{runner.url}/batch/{name}", json=items, headers={"Prefer": "wait=20"}, timeout=PATIENCE_SECONDS
        )
        if answer.status_code in (429, 503):
            time.sleep(0.05)
            continue
        assert answer.status_code == 200, (name, answer.text)
        entries: list[dict[str, Any]] = answer.json()
        if all(entry["state"] not in ("waiting", "running") for entry in entries):
            return entries
        items = [{"id": one["id"], "attempt": 1} for one in items]
    raise AssertionError(f"{name}: its payloads have not ended after {PATIENCE_SECONDS} s: {answer.text[-500:]}")
