"""Opens queue and task store over one SQLite file."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable, UnsuitableFile
from taskqueue.feed import LeaseTable
from taskqueue.sql.database import READERS, Database
from taskqueue.sql.errors import translate_errors
from taskqueue.sql.migrate import current_revision, is_usable, migrate
from taskqueue.sql.table_queue import LeaseTimes
from taskqueue.sqlite.engine import BUSY_SECONDS, SqliteHooks, reading_engine, writing_engine
from taskqueue.sqlite.file import back_up, owned_file
from taskqueue.sqlite.queue import SqliteQueue
from taskqueue.sqlite.queue_statements import CAP_DELAYS, KEEP_DELAYS, VOID_LEASES, grouped_algorithms
from taskqueue.sqlite.store import SqliteStore
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)

#: The longest delay between two attempts that is honoured across a restart.
_MAX_DELAY_SECONDS = 3600.0


@asynccontextmanager
async def open_embedded(
    path: Path | str,
    *,
    leases: LeaseTimes | None = None,
    clock: Clock | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> AsyncIterator[tuple[SqliteQueue, SqliteStore]]:
    """Queue and store over one SQLite file, which this process owns until the end of the block.

    Creates the file (mode 0600) and its folder (0700), upgrades it, and makes every task that the previous owner was
    running claimable at once.

    Parameters:
        leases: how long claims last; for tests.
        busy_seconds: how long to wait for another program (a backup, a shell) that has locked the file.

    Raises OwnedElsewhere, UnsuitableFile or StoreUnavailable, each with a sentence.
    """
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        with translate_errors(StoreUnavailable):
            file = stack.enter_context(owned_file(path))
            connection, grouped = await asyncio.to_thread(_open, file, clock, busy_seconds)
        hooks = SqliteHooks(busy_seconds=busy_seconds)
        database = Database(connection, hooks, reading_engine(file, READERS, busy_seconds))
        stack.push_async_callback(database.close)
        table, waiters = LeaseTable(), Waiters()
        times = leases or LeaseTimes()
        queue = SqliteQueue(database, clock=clock, leases=table, waiters=waiters, times=times, grouped=grouped)
        stack.push_async_callback(queue.close)
        yield queue, SqliteStore(database, clock=clock, leases=table, waiters=waiters, arrived=queue.arrived)


def _open(path: Path, clock: Clock, busy_seconds: float) -> tuple[Connection, set[str]]:
    """The writing connection, with the file upgraded and without leases; the algorithms whose groups take turns."""
    connection = writing_engine(path, busy_seconds).connect()
    try:
        if _is_foreign(connection):
            raise UnsuitableFile(
                f"{path} is the SQLite database of another program; name a file of its own in DATABASE_URL"
            )
        before = current_revision(connection)
        if before is not None and not is_usable(connection):
            _log.warning("%s is of an older version; it is copied before it is upgraded", path)
            _log.warning("the copy is there, delete it when all works: %s", back_up(path, before))
        migrate(connection)
        with connection.begin():
            connection.execute(VOID_LEASES)
            connection.execute(CAP_DELAYS, {"the_latest": clock.steady() + _MAX_DELAY_SECONDS})
            connection.execute(KEEP_DELAYS)
            return connection, grouped_algorithms(connection)
    except BaseException:
        connection.close()
        raise


def _is_foreign(connection: Connection) -> bool:
    """Whether the file has tables, and no revision of ours."""
    if current_revision(connection) is not None:
        return False
    with connection.begin():
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars()
        return any(not name.startswith(("sqlite_", "alembic_")) for name in names)
