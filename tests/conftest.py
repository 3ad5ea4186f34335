"""The whole environment in processes that a test can kill, each with its own ports and data folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import Environment, until


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    made = Environment(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def execution_log(tmp_path: Path) -> Path:
    """Where the steady runner's handlers note that they ran: one line `id attempt pid` for each execution."""
    log = tmp_path / "executions.log"
    log.touch()
    return log


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def environment_factory() -> Callable[[Path], Environment]:
    return Environment


@pytest.fixture
def delete() -> Callable[[Environment, str], int]:
    """Cancels a task; gives the status code."""

    def call(environment: Environment, task_id: str) -> int:
        return requests.delete(f"{environment.core.url}/tasks/{task_id}", timeout=10).status_code

    return call


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-seconds"))
