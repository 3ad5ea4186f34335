"""Opens a queue and a task store."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable, UnsuitableFile
from taskqueue.filesystem import NETWORK, SHARED, filesystem_type
from taskqueue.outstanding import Outstanding
from taskqueue.owner_lock import owner_lock
from taskqueue.sql import queue_statements
from taskqueue.sql.failures import translated
from taskqueue.sql.migrate import back_up, current_revision, is_foreign, migrate, needs_upgrade
from taskqueue.sql.readers import READERS, Readers
from taskqueue.sql.sqlite_engine import BUSY_SECONDS, SqliteHooks, reading_engine, writing_engine
from taskqueue.sql.store import SqlStore
from taskqueue.sql.writer import Writer
from taskqueue.sqlite_queue import Leases, SqliteQueue
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)

#: The longest delay between two attempts that is honoured across a restart.
_MAX_DELAY_SECONDS = 3600.0


@asynccontextmanager
async def open_embedded(
    path: Path | str,
    *,
    leases: Leases | None = None,
    clock: Clock | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> AsyncIterator[tuple[SqliteQueue, SqlStore]]:
    """Queue and store over one SQLite file, which this process owns until the end of the block.

    Creates the file (mode 0600) and its folder (0700), upgrades it, and makes every task that the previous owner was
    running claimable at once. Raises OwnedElsewhere, UnsuitableFile or StoreUnavailable, each with a sentence.
    """
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        with translated(StoreUnavailable):
            path, lost = _prepare_folder(path)
            stack.enter_context(owner_lock(path))
            if lost:
                raise UnsuitableFile(lost)
            connection = await asyncio.to_thread(_open, path, clock, busy_seconds)
        writer = Writer(connection, SqliteHooks(busy_seconds=busy_seconds))
        stack.push_async_callback(writer.close)
        readers = Readers(reading_engine(path, READERS, busy_seconds))
        stack.push_async_callback(readers.close)
        outstanding, waiters = Outstanding(), Waiters()
        queue = SqliteQueue(writer, clock=clock, outstanding=outstanding, waiters=waiters, leases=leases or Leases())
        stack.push_async_callback(queue.close)
        store = SqlStore(writer, readers, clock=clock, outstanding=outstanding, waiters=waiters, arrived=queue.arrived)
        yield queue, store


def _prepare_folder(given: Path | str) -> tuple[Path, str | None]:
    """The file, made if it is missing, and why it must not be used."""
    path = Path(given).absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = filesystem_type(path.parent)
        if kind in NETWORK:
            raise UnsuitableFile(
                f"{path} lies on a network filesystem ({kind}), where SQLite can lose data; name a file on a local "
                "disk in DATABASE_URL, or use PostgreSQL"
            )
        if kind in SHARED:
            _log.warning("%s lies on a folder shared with the host (%s); a local disk is safer and faster", path, kind)
        lost = _lost(path)
        if lost is None:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return path, lost
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be opened: {error.strerror}; check its folder's owner and mode"
        ) from error


def _lost(path: Path) -> str | None:
    """Why the file must not become a new one without a word: it held tasks, and is empty, or gone beside its log.

    An owner writes its lock before it writes the file, so an empty file with a lock was in use.
    """
    size = path.stat().st_size if path.exists() else None
    log, lock = (path.with_name(path.name + ending) for ending in ("-wal", ".lock"))
    left = [each.name for each in (log, lock) if each.exists() and each.stat().st_size]
    if size == 0 and left:
        return (
            f"{path} is empty (0 bytes), but {' and '.join(left)} beside it say that it was in use: a full or damaged "
            "disk leaves it so; restore it from a backup, or delete it and the files that begin with its name to start "
            "with no tasks"
        )
    if size is None and log.name in left:
        return (
            f"{path} is missing, but its log {log.name} is there and may hold tasks; put the file back, or delete the "
            "log to start with no tasks"
        )
    if size is None and left:
        _log.warning("%s is missing though it was in use before; a new one is made, with no tasks", path)
    return None


def _open(path: Path, clock: Clock, busy_seconds: float) -> Connection:
    """The writing connection, with the file upgraded and nobody's leases in it."""
    connection = writing_engine(path, busy_seconds).connect()
    try:
        if is_foreign(connection):
            raise UnsuitableFile(
                f"{path} is the SQLite database of another program; name a file of its own in DATABASE_URL"
            )
        if needs_upgrade(connection):
            before = current_revision(connection)
            _log.warning("%s is of an older version; it is copied before it is upgraded", path)
            _log.warning("the copy is there, delete it when all works: %s", back_up(path, before))
        migrate(connection)
        with connection.begin():
            connection.execute(queue_statements.VOID_LEASES)
            connection.execute(queue_statements.CAP_DELAYS, {"the_latest": clock.steady() + _MAX_DELAY_SECONDS})
    except BaseException:
        connection.close()
        raise
    return connection
