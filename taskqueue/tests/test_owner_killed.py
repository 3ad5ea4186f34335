"""kill -9 of the process that owns the file, at random moments of publishing, claiming and recording."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runnerlib.contract import TaskState, strict_json
from taskqueue.connect import open_embedded
from taskqueue.tasks import Succeeded

OWNER = Path(__file__).parent / "programs" / "owner.py"
START_SECONDS = 30.0


def notes(log: Path, what: str) -> list[str]:
    """Ids of all lines of this kind that were written wholly."""
    text = log.read_text() if log.exists() else ""
    lines = [line.split(" ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [word.strip() for line in lines if line[0] == what for word in line[1:]]


def run_and_kill(path: Path, log: Path, prefix: str, seconds: float) -> None:
    owner = subprocess.Popen([sys.executable, str(OWNER), str(path), str(log), prefix])
    try:
        deadline = time.monotonic() + START_SECONDS
        tick = threading.Event()
        while prefix not in notes(log, "started"):
            assert owner.poll() is None, "the owner ended by itself"
            assert time.monotonic() < deadline, "the owner did not start"
            tick.wait(0.02)
        tick.wait(seconds)
        assert owner.poll() is None, "the owner ended by itself"
    finally:
        owner.kill()
        owner.wait(10)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_owner_loses_no_confirmed_task(run, tmp_path, kills):
    path, log = tmp_path / "tasks.db", tmp_path / "log"
    chance = random.Random(kills)
    for number in range(kills):
        run_and_kill(path, log, f"r{number}", chance.uniform(0.0, 0.2))

    async def scenario():
        async with open_embedded(path) as (queue, store):
            feed = await queue.feed("upper")
            await feed.set_prefetch(512)
            while True:
                try:
                    async with asyncio.timeout(1.0):
                        taken = await feed.take(256)
                except TimeoutError:
                    break
                await store.record([Succeeded(d, strict_json.dumps({"done": d.id})) for d in taken])
                await queue.ack(taken)
            confirmed = notes(log, "published")
            assert len(confirmed) > kills
            for start in range(0, len(confirmed), 1000):
                some = confirmed[start : start + 1000]
                rows = await store.lookup(some)
                assert set(rows) == set(some), "a confirmed task is gone"
                assert {row.state for row in rows.values()} == {TaskState.SUCCEEDED}
                assert all(row.result == strict_json.dumps({"done": row.id}) for row in rows.values())
            counts = {state: n for count in await store.counts() for state, n in count.by_state.items()}
            assert set(counts) == {TaskState.SUCCEEDED}

    run(scenario())
    recorded = notes(log, "recorded")
    assert len(recorded) == len(set(recorded)), "two owners were told that their result of one task was recorded"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    connection.close()
