"""Handlers that fork: what the copies of the worker process say is not taken for its own."""

from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = """
import os
import signal


def run_spread(children: int, *, task) -> list[int]:
    task.progress(0.1)
    task.progress(0.2, "the parent's")
    pids = []
    for _ in range(children):
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            for step in range(200):
                task.progress(step / 200, "a child's" * 100)
            os._exit(0)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]


def run_leaves(text: str) -> str:
    pid = os.fork()
    if not pid:
        return "from the child"
    os.waitpid(pid, 0)
    return text
"""


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER)


def test_progress_of_forked_processes_neither_hangs_nor_is_taken_for_the_handler_s(runner: Any) -> None:
    for _ in range(5):
        assert runner.run("spread", {"children": 4}).json() == {"result": [0] * 4}


def test_result_of_a_forked_process_that_returns_from_the_handler_is_not_the_task_s(runner: Any) -> None:
    for _ in range(5):
        assert runner.run("leaves", {"text": "from the parent"}).json() == {"result": "from the parent"}
