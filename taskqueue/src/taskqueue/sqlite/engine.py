"""SQLite connections: the one that writes, and those that only read."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection as DriverConnection
from sqlite3 import Error as DriverError
from typing import Any

from sqlalchemy import ClauseElement, Connection, CursorResult, Engine, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from taskqueue.sql.database import WriterHooks

_log = logging.getLogger(__name__)

#: How long a transaction waits for another process (a backup, a shell) that has locked the file.
BUSY_SECONDS = 5.0
#: WAL pages (4 KiB) before a commit copies them into the database file.
CHECKPOINT_PAGES = 4000
#: KiB of page cache of the writer; the claim index and the end of the table stay in it.
_WRITER_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 2 * 1024


def writing_engine(path: Path, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """One connection; every transaction is BEGIN IMMEDIATE, so that it never has to give up half-way."""
    engine = _engine(
        path,
        busy_seconds,
        1,
        "journal_mode=WAL",
        "synchronous=FULL",
        f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        f"cache_size=-{_WRITER_CACHE_KIB}",
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path, size: int, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Connections that cannot write. Each statement is its own short transaction, so that no reader pins the WAL."""
    return _engine(path, busy_seconds, size, "query_only=1", f"cache_size=-{_READER_CACHE_KIB}")


class SqliteHooks(WriterHooks):
    """Sets how durable a commit is, and truncates the write-ahead log when idle."""

    def __init__(self, idle_seconds: float = 1.0, busy_seconds: float = BUSY_SECONDS) -> None:
        self.idle_seconds = idle_seconds
        self._busy_seconds = busy_seconds
        self._durable = True

    def before_group(self, connection: Connection, durable: bool) -> None:
        # NORMAL leaves the WAL unflushed; the next FULL commit flushes it in order. Claims need no more.
        if durable != self._durable:
            _driver(connection).execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def when_idle(self, connection: Connection) -> None:
        driver = _driver(connection)
        try:
            # If a reader is in the way, another time: the next write must not wait for it.
            driver.execute("PRAGMA busy_timeout=0")
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except DriverError as error:
            _log.warning("the write-ahead log could not be cut back: %s", error)
        finally:
            driver.execute(f"PRAGMA busy_timeout={int(self._busy_seconds * 1000)}")


def _driver(connection: Connection) -> DriverConnection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, DriverConnection)
    return driver


def _engine(path: Path, busy_seconds: float, size: int, *pragmas: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        # isolation_level None: the driver begins nothing by itself, we do
        connect_args={"isolation_level": None, "timeout": busy_seconds, "check_same_thread": False},
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None,
        # keeps payloads and results out of the logs
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(driver: DriverConnection, _record: Any) -> None:
        # a row that somebody inserted by hand may not be UTF-8; it must not make every read fail
        driver.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for pragma in pragmas:
            driver.execute(f"PRAGMA {pragma}")

    return engine


class DriverStatement:
    """A statement that goes to the driver as text.

    For one row SQLAlchemy's way of making parameters and rows takes longer than SQLite takes to find it. Values come as
    SQLite has them: a boolean as a number. The statement has no lists of values (`IN`).
    """

    def __init__(self, statement: ClauseElement) -> None:
        self.statement = statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self._text = str(compiled)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def execute(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        return connection.exec_driver_sql(self._text, {**self._constants, **values})


def padded(ids: Sequence[str]) -> list[str]:
    """The ids, the last one repeated up to a power of two: few different statements, so that all stay prepared."""
    size = 1
    while size < len(ids):
        size *= 2
    return [*ids, *[ids[-1]] * (size - len(ids))]
