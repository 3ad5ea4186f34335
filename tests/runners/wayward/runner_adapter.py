"""Algorithms for the table of mistakes: typed payloads, results that cannot be sent, runs that are cancelled."""

import os
import time
from pathlib import Path
from typing import Any

# Those that answer at once share a process; those that take time have one each.
OPTIONS = {
    name: {"process": "quick"}
    for name in ("carry", "measure", "repeat", "noted", "no_json", "no_number", "no_text", "huge", "mendable")
}


def _note(log: str, text: str) -> None:
    """One append, one write: the line survives a kill -9 of the writer."""
    descriptor = os.open(Path(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def run_repeat(text: str, times: int = 1) -> str:
    return text * times


def run_carry(value: Any) -> Any:
    """Gives back what it was given."""
    return value


def run_measure(text: str) -> int:
    """How many characters it was given."""
    return len(text)


def run_noted(text: str, log: str, *, task: Any) -> str:
    _note(log, task.id)
    return text


def run_no_json() -> Any:
    return object()


def run_no_number() -> Any:
    return {"mean": float("nan")}


def run_no_text() -> Any:
    return {"name": "\ud800"}


def run_huge(megabytes: int) -> str:
    return "x" * (megabytes * 1_000_000)


def run_mendable(file: str, log: str = os.devnull, *, task: Any) -> str:
    """Fails until somebody has written the file."""
    _note(log, f"{task.id} {task.attempt}")
    if not Path(file).exists():
        raise ValueError(f"{Path(file).name} is missing")
    return Path(file).read_text()


def run_gentle(log: str, *, task: Any) -> str:
    """Reports progress for a minute, and stops when it is cancelled."""
    _note(log, task.id)
    for _ in task.track(range(1200), "counting"):
        time.sleep(0.05)
    return "counted"


def run_stubborn(log: str, *, task: Any) -> str:
    """Looks at nothing for a minute: only a kill ends it."""
    _note(log, task.id)
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        pass
    return "never stopped"
