"""What the README promises of RabbitMQ and PostgreSQL, done as it stands there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from environments import until
from servers.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept from one version of the broker to the next, with the runner's virtual environment."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def gateway(data_folder: Path, tmp_path: Path, broker: Any, database_url: str) -> Iterator[str]:
    """`worker up` with the runner that detects languages; the gateway's URL."""
    ports = {name: str(free_port()) for name in ("GATEWAY_PORT", "DISCOVERY_PORT", "CONTROLLER_PORT")}
    settings = {**ports, "RUNNER_PORTS_START": str(free_port())}
    command = [
        *(sys.executable, "-P", "-m", "worker", "up", "--runners", str(ROOT / "runners"), "--only", "nlp"),
        *("--data", str(data_folder), "--queue-url", broker.url, "--database-url", database_url),
    ]
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{ports['GATEWAY_PORT']}"

    def is_offered() -> bool:
        assert process.poll() is None, log.read_text()
        return "language_detection" in requests.get(f"{url}/algorithms", timeout=2).text

    try:
        until(is_offered, "the runner has registered", 200)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_five_lines_of_pika_get_a_language_detected(gateway: str, broker: Any, database_url: str) -> None:
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    [lines] = [block.partition("```")[0] for block in blocks if "basic_publish" in block]
    program = lines.replace("amqp://guest:guest@127.0.0.1:5672/", broker.url)
    assert program != lines
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

    def result() -> Any:
        with psycopg.connect(database_url, connect_timeout=10) as connection:
            return connection.execute("SELECT id, state, result FROM tasks").fetchone()

    task_id, state, content = until(result, "the result is in the store", 30)
    assert state == "succeeded"
    assert b'"fr"' in content
    assert requests.get(f"{gateway}/tasks/{task_id}", timeout=10).json()["state"] == "succeeded"
