"""The backups of docs/operating.md are whole, though taken while everything runs."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from documents import ROOT, blocks, commands
from servers.postgresql import find_binaries

from taskqueue.connect import open_embedded
from taskqueue.postgres import open_postgres
from taskqueue.tasks import NewTask

PAGE = ROOT / "docs" / "operating.md"
TAKEN, LATER = 50, 200


def test_a_copy_of_the_sqlite_file_holds_what_was_accepted_before(tmp_path: Path) -> None:
    [command] = [each for block in blocks(PAGE) for each in commands(block) if "VACUUM INTO" in each.text]
    _, *arguments = shlex.split(command.text)

    async def live() -> None:
        async with open_embedded(tmp_path / ".plugplay" / "tasks.sqlite") as (queue, _):
            await queue.publish([_task(n) for n in range(TAKEN)])
            copying = asyncio.create_task(
                asyncio.to_thread(subprocess.run, [sys.executable, *arguments], cwd=tmp_path, check=True, timeout=30)
            )
            for n in range(TAKEN, TAKEN + LATER):
                await queue.publish([_task(n)])
            await copying

    async def after_going_back() -> list[str]:
        async with open_embedded(tmp_path / "backup.sqlite") as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(TAKEN + LATER)
            found: list[str] = []
            while len(found) < TAKEN:
                found += [delivery.id for delivery in await feed.take(TAKEN - len(found))]
            return found

    asyncio.run(asyncio.wait_for(live(), 60))
    assert asyncio.run(asyncio.wait_for(after_going_back(), 60)) == [f"task-{n}" for n in range(TAKEN)]


def test_a_dump_of_postgresql_can_be_restored(postgres_server: Any, database_url: str, tmp_path: Path) -> None:
    told = re.search(r"`(pg_dump [^`]*)`[^`]*`(pg_restore [^`]*)`", PAGE.read_text(encoding="utf-8"))
    assert told is not None
    binaries = find_binaries()
    restored = postgres_server.create_database(f"{database_url.rpartition('/')[2]}_restored")

    async def admit() -> None:
        async with open_postgres(database_url) as store:
            await store.admit([_task(n) for n in range(TAKEN)])

    async def known() -> int:
        async with open_postgres(restored) as store:
            return len(await store.lookup([f"task-{n}" for n in range(TAKEN)]))

    try:
        asyncio.run(asyncio.wait_for(admit(), 60))
        for command, database in zip(told.groups(), (database_url, restored), strict=True):
            line = f"{binaries}/{command.replace('DATABASE', shlex.quote(database))}"
            subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, timeout=60)
        assert asyncio.run(asyncio.wait_for(known(), 60)) == TAKEN
    finally:
        postgres_server.drop_database(restored.rpartition("/")[2])


def _task(n: int) -> NewTask:
    return NewTask(f"task-{n}", "upper", b'{"text":"a"}', f"{n:064x}")
