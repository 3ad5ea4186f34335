"""Well-behaved algorithms for tests of the whole environment. Each run leaves a line in a log file."""

import os
import time
from pathlib import Path
from typing import Any

OPTIONS = {
    "slow": {"slots": 2, "timeout_seconds": 120},
    "nap": {"slots": 1},
}


def _note(log: str, text: str) -> None:
    """One append, one write: the line survives a kill -9 of the writer."""
    descriptor = os.open(Path(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def run_square(number: int) -> int:
    return number * number


def run_noted(number: int, log: str, seconds: float = 0.0, *, task: Any) -> int:
    """Squares a number, takes its time, and notes that it ran."""
    time.sleep(seconds)
    _note(log, f"{task.id} {task.attempt} {os.getpid()}")
    return number * number


def run_nap(seconds: float, log: str, *, task: Any) -> str:
    """Sleeps, then notes that it ran."""
    time.sleep(seconds)
    _note(log, f"{task.id} {task.attempt} {os.getpid()}")
    return "rested"


def run_slow(seconds: float, log: str, *, task: Any) -> str:
    """Notes its start, reports progress ten times a second, and honours a cancel."""
    _note(log, f"{task.id} {task.attempt} {os.getpid()}")
    steps = max(1, round(seconds * 10))
    for _ in task.track(range(steps)):
        time.sleep(0.1)
    return "done"
