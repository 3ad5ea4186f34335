"""Opening a file: who may, where, and what is made."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from taskqueue.connect import open_embedded
from taskqueue.errors import OwnedElsewhere, StoreUnavailable, UnsuitableFile

OPEN_AND_REPORT = """
import asyncio, sys
from taskqueue.connect import open_embedded
from taskqueue.errors import OwnedElsewhere

async def main():
    try:
        async with open_embedded(sys.argv[1]):
            print("opened", flush=True)
            sys.stdin.read()
    except OwnedElsewhere as error:
        print(error, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def other_process(tmp_path):
    """Opens the file in another process; gives that process and the line it prints."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_REPORT, str(tmp_path / "tasks.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def test_file_and_folder_are_for_their_owner_only(run, tmp_path):
    path = tmp_path / "new" / "deep" / "tasks.db"

    async def scenario():
        async with open_embedded(path):
            for name in (path, path.with_name("tasks.db.lock"), path.with_name("tasks.db-wal")):
                assert stat.S_IMODE(name.stat().st_mode) == 0o600

    run(scenario())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["tasks.db", "tasks.db.lock"]


def test_second_owner_in_another_process_is_told_who_the_first_is(run, tmp_path, other_process):
    async def scenario():
        async with open_embedded(tmp_path / "tasks.db"):
            _, line = other_process()
            assert f"already in use by process {os.getpid()}" in line

    run(scenario())


def test_second_owner_in_this_process_is_refused(run, tmp_path, make_task):
    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (queue, _):
            with pytest.raises(OwnedElsewhere, match="already in use"):
                async with open_embedded(tmp_path / "tasks.db"):
                    pass
            await queue.publish([make_task("a")])
        async with open_embedded(tmp_path / "tasks.db"):
            pass

    run(scenario())


def test_killed_owner_leaves_no_lock_behind(run, tmp_path, other_process):
    process, line = other_process()
    assert line == "opened"
    process.kill()
    process.wait(10)

    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (_, store):
            assert await store.counts() == []

    run(scenario())


def test_damaged_file_is_refused_with_a_sentence_and_the_lock_is_free_again(run, tmp_path):
    path = tmp_path / "tasks.db"
    path.write_bytes(b"this is not a database, and it is long enough to be read as one" * 100)

    async def scenario():
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="not a SQLite database"):
                async with open_embedded(path):
                    pass

    run(scenario())


@pytest.mark.parametrize("lost", ["emptied", "removed"])
def test_file_that_lost_its_tasks_is_refused_with_a_sentence(run, tmp_path, lost):
    path = tmp_path / "tasks.db"

    async def opened():
        async with open_embedded(path):
            pass

    run(opened())
    if lost == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
        (tmp_path / "tasks.db-wal").write_bytes(b"tasks that are not in the file yet")
    for _ in range(2):
        with pytest.raises(UnsuitableFile, match=r"start with no tasks|to start"):
            run(opened())
    for each in tmp_path.iterdir():
        each.unlink()
    run(opened())


def test_empty_file_that_was_never_in_use_becomes_a_new_one(run, tmp_path):
    (tmp_path / "tasks.db").touch()

    async def scenario():
        async with open_embedded(tmp_path / "tasks.db") as (_, store):
            assert await store.counts() == []

    run(scenario())


def test_database_of_another_program_is_refused_and_left_as_it_is(run, tmp_path):
    path = tmp_path / "tasks.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")

    async def scenario():
        async with open_embedded(path):
            pass

    with pytest.raises(UnsuitableFile, match="another program"):
        run(scenario())
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


def test_folder_that_cannot_be_made_is_refused_with_a_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")

    async def scenario():
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            async with open_embedded(tmp_path / "file" / "tasks.db"):
                pass

    run(scenario())


def test_network_filesystem_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("taskqueue.sqlite.file.filesystem_type", lambda _path: "nfs4")

    async def scenario():
        with pytest.raises(UnsuitableFile, match="network filesystem"):
            async with open_embedded(tmp_path / "tasks.db"):
                pass

    run(scenario())
