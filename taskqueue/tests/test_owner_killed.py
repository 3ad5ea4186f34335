"""kill -9 of the process that owns the file, at random moments of publishing, claiming and recording."""

import asyncio
import importlib
import multiprocessing
import random
import sqlite3
from pathlib import Path

import pytest

from runnerlib.contract import TaskState, strict_json
from taskqueue.connect import open_embedded
from taskqueue.tasks import Succeeded

START_SECONDS = 30.0


def notes(log: Path, what: str) -> list[str]:
    """Ids of all lines of this kind that were written wholly."""
    text = log.read_text() if log.exists() else ""
    lines = [line.split(" ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [word.strip() for line in lines if line[0] == what for word in line[1:]]


@pytest.fixture
def run_and_kill(monkeypatch, tmp_path):
    """``run_and_kill(prefix, seconds)``: an owner runs for so long, and is killed.

    Owners are forked from a process that has imported what they need: that takes longer than all they do.
    """
    monkeypatch.syspath_prepend(Path(__file__).parent / "programs")
    main = importlib.import_module("owner").main
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["taskqueue.connect"])

    def call(prefix: str, seconds: float) -> None:
        started, told = context.Pipe(duplex=False)
        owner = context.Process(target=main, args=(tmp_path / "tasks.db", tmp_path / "log", prefix, told))
        owner.start()
        told.close()
        try:
            assert started.poll(START_SECONDS), "the owner did not start"
            started.recv()
            owner.join(seconds)
            assert owner.exitcode is None, "the owner ended by itself"
        finally:
            owner.kill()
            owner.join(10)

    return call


@pytest.mark.sized
@pytest.mark.timeout(1200)
def test_killed_owner_loses_no_confirmed_task(run, run_and_kill, tmp_path, kills):
    path, log = tmp_path / "tasks.db", tmp_path / "log"
    chance = random.Random(kills)
    for number in range(kills):
        run_and_kill(f"r{number}", chance.uniform(0.0, 0.2))

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
