"""kill -9 of the process that owns queue, store and controller."""

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from runnerlib.contract import TaskState
from taskqueue.connect import open_embedded

OWNER = Path(__file__).with_name("owner_process.py")


async def start_owner(file, runner, tasks=()):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(OWNER),
        str(file),
        f"http://127.0.0.1:{runner.port}",
        runner.boot,
        json.dumps(list(tasks)),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ, LOG_LEVEL="WARNING"),
    )


async def said(owner, text):
    async with asyncio.timeout(30):
        while line := await owner.stdout.readline():
            if text in line.decode():
                return
    raise AssertionError(f"the owner ended without saying {text!r}")


async def kill(owner):
    if owner.returncode is None:
        owner.kill()
    await owner.wait()


async def placement_of(file, task_id):
    """Read beside the owner: its file takes any number of readers."""
    async with asyncio.timeout(15):
        while True:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                found = connection.execute("SELECT placed_boot FROM tasks WHERE id = ?", [task_id]).fetchone()
            if found and found[0]:
                return found[0]
            await asyncio.sleep(0.05)


def test_task_that_runs_while_its_owner_is_killed_is_not_run_again(make_runner, go, tmp_path):
    async def scenario():
        runner, file = make_runner(), tmp_path / "tasks.sqlite"
        await runner.start()
        owner = await start_owner(file, runner, [("long", {"do": "hold"})])
        try:
            await said(owner, "confirmed")
            assert await placement_of(file, "long") == runner.boot
            await kill(owner)
            owner = await start_owner(file, runner)
            await said(owner, "confirmed")
            runner.let_go("long", "once")
            await said(owner, "all ended")
            await owner.wait()
            async with open_embedded(file) as (_, store):
                row = await store.get("long")
            assert (row.state, row.result, row.attempt, row.history) == (TaskState.SUCCEEDED, b'"once"', 1, ())
            assert runner.executions == [("long", 1)]
        finally:
            await kill(owner)
            await runner.kill()

    go(scenario())


def test_killing_the_owner_again_and_again_loses_no_task_and_repeats_no_run(make_runner, go, tmp_path):
    async def scenario():
        runner, file = make_runner(), tmp_path / "tasks.sqlite"
        await runner.start()
        tasks = [(f"t{n}", {"value": n}) for n in range(3000)]
        owner = await start_owner(file, runner, tasks)
        try:
            await said(owner, "confirmed")
            for done in (300, 1000, 1900):
                async with asyncio.timeout(30):
                    while len(runner.executions) < done:
                        await asyncio.sleep(0.005)
                await kill(owner)
                owner = await start_owner(file, runner)
            await said(owner, "all ended")
            await owner.wait()
            async with open_embedded(file) as (_, store):
                rows = await store.lookup([task_id for task_id, _ in tasks])
            assert [rows[task_id].result for task_id, _ in tasks] == [b"%d" % n for n in range(3000)]
            assert {row.attempt for row in rows.values()} == {1}
            # the runner keeps outcomes, so that what was not recorded is fetched and not run again
            assert len(runner.executions) == len(set(runner.executions)) == 3000
        finally:
            await kill(owner)
            await runner.kill()

    go(scenario())
