"""Many tasks at once, and the owner of the task file killed over and over while they flow."""

import contextlib
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

pytestmark = [pytest.mark.slow, pytest.mark.sized, pytest.mark.timeout(1500)]

MEGABYTE = 1024 * 1024


@contextlib.contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        yield connection


def resident_bytes(process: psutil.Process) -> int:
    """Memory of a process and its children."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


def test_memory_stays_flat_while_tens_of_thousands_of_tasks_wait_and_run(
    environment: Any, until: Any, request: pytest.FixtureRequest
) -> None:
    count = int(request.config.getoption("--waiting-tasks"))
    environment.start("steady")
    watched = {s.name: psutil.Process(s.process.pid) for s in environment.services}
    environment.submit_many("square", [{"number": n} for n in range(2_000)])
    with reading(environment.folder / "tasks.sqlite") as database:

        def succeeded() -> int:
            return int(database.execute("SELECT count(*) FROM tasks WHERE state = 'succeeded'").fetchone()[0])

        until(lambda: succeeded() == 2_000, "the warm-up has run")
        before = {name: resident_bytes(process) for name, process in watched.items()}
        peak = dict(before)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                for name, process in watched.items():
                    peak[name] = max(peak[name], resident_bytes(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            ids = environment.submit_many("square", [{"number": n} for n in range(count)])
            until(lambda: succeeded() == 2_000 + count, "all have succeeded", 400)
        finally:
            over.set()
            watcher.join()
        assert len(set(ids)) == count
        rows = dict(database.execute("SELECT id, result FROM tasks"))
        assert all(int(rows[task_id]) == n * n for n, task_id in enumerate(ids))
        assert database.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
    grown = {name: round((peak[name] - before[name]) / MEGABYTE, 1) for name in before}
    print("memory before, MB:", {name: round(value / MEGABYTE, 1) for name, value in before.items()}, "grown:", grown)
    # a runner keeps the last outcomes for a minute, within 64 MiB, for a controller that may come back for them
    allowed = {"discovery": 5, "core": 40, "steady": 64 + 26}
    assert all(grown[name] < allowed[name] for name in allowed), grown


def test_every_confirmed_task_has_one_result_after_the_owner_was_killed_again_and_again(
    environment: Any, until: Any, kills: int
) -> None:
    environment.start("steady")
    confirmed: dict[str, int] = {}
    over = threading.Event()

    def send() -> None:
        number = 0
        while not over.is_set():
            part = [
                {"algorithm": "square", "payload": {"number": n}, "id": f"task-{n}"} for n in range(number, number + 20)
            ]
            try:
                answer = requests.post(f"{environment.core.url}/tasks/batch", json=part, timeout=5)
            except requests.RequestException:
                over.wait(0.02)  # the owner is down: the same ids are sent again
                continue
            if answer.status_code == 202:
                confirmed.update({entry["id"]: n for n, entry in enumerate(answer.json(), number)})
                number += 20

    sender = threading.Thread(target=send)
    sender.start()
    chance = random.Random(7)
    try:
        for _ in range(kills):
            over.wait(chance.uniform(0.0, 0.6))
            environment.core.kill()
            environment.core.start()
    finally:
        over.set()
        sender.join()
    with reading(environment.folder / "tasks.sqlite") as database:
        open_tasks = "SELECT count(*) FROM tasks WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
        until(lambda: database.execute(open_tasks).fetchone() == (0,), "nothing is stuck", 120)
        results = {row[0]: row[1:] for row in database.execute("SELECT id, state, result FROM tasks")}
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    print(f"{kills} kills, {len(confirmed)} confirmed tasks, {len(results)} rows")
    assert len(confirmed) > kills
    for task_id, number in confirmed.items():
        state, result = results[task_id]
        assert (state, int(result)) == ("succeeded", number * number), task_id
