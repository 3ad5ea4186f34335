"""The client as a sender installs it: from a checkout, into an environment of its own, as the page says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
ASKED_FOR = {"plugplay-producer", "requests", "rich", "typer"}
NOT_WANTED = {"plugplay-runnerlib", "plugplay-taskqueue", "fastapi", "sqlalchemy", "pika", "aiohttp", "jsonschema"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    found = folder / "bin" / "python"
    pip = [str(found), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, "./producer"], cwd=REPOSITORY, check=True)
    return found


def run(python: Path, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(python), *words], cwd="/", capture_output=True, text=True, check=False, **more)


def test_it_brings_a_handful_of_packages(python: Path) -> None:
    told = run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    installed = {package["name"].lower() for package in json.loads(told.stdout)} - {"pip", "setuptools"}
    assert installed >= ASKED_FOR
    assert not installed & NOT_WANTED
    assert len(installed) <= 20, sorted(installed)


def test_client_and_command_work_and_the_others_say_what_they_need(python: Path) -> None:
    producer = python.with_name("producer")
    assert subprocess.check_output([producer, "--version"], text=True).startswith("producer ")
    unreachable = run(python, "-m", "producer", "list", "--gateway", "http://127.0.0.1:9")
    assert (unreachable.returncode, "no gateway answers" in unreachable.stderr) == (4, True)
    worked = run(python, "-c", "from producer import GatewayClient, TaskClient; TaskClient('http://h').close()")
    assert (worked.returncode, worked.stderr) == (0, "")
    for program, extra in (
        ("from producer import AsyncTaskClient", "./producer[async]"),
        ("from producer import TaskClient; TaskClient(queue_url='amqp://h')", "./producer[broker]"),
        ("import producer.gateway", "./producer[gateway]"),
    ):
        failed = run(python, "-c", program)
        assert failed.stderr.splitlines()[-1].startswith("ImportError: ")
        assert "pip install " in failed.stderr and extra in failed.stderr
