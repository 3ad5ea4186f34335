"""The task store on PostgreSQL: `open_postgres`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable
from taskqueue.postgres.engine import (
    BoundedConnection,
    Parameters,
    has_been_cut,
    parameters_from,
    reading_engine,
    writing_engine,
)
from taskqueue.postgres.store import PostgresStore
from taskqueue.postgres.writer import PostgresHooks
from taskqueue.sql.database import READERS, Database
from taskqueue.sql.errors import opening_error
from taskqueue.sql.migrate import is_usable, upgrade
from taskqueue.sql.tokens import seal_key
from taskqueue.tokens import OwnerSeal

#: The advisory lock of this database whose owner upgrades the tables. An arbitrary number.
_UPGRADE_LOCK = 7_205_759_403
_LOCK_SECONDS = 60.0
_LOCK_PAUSE_SECONDS = 0.1
#: A statement of an upgrade may take this long; all others are bounded by `engine.ANSWER_SECONDS`.
_UPGRADE_SECONDS = 3600.0


@asynccontextmanager
async def open_postgres(url: str, *, clock: Clock | None = None) -> AsyncIterator[PostgresStore]:
    """The store in this database until the end of the block; makes and upgrades its tables.

    Any number of processes may do so at the same time. Raises, each with a sentence: StoreUnavailable if the server is
    away (it may come), UnsuitableAddress if the URL, the password or the user's rights are wrong, UnsuitableFile if a
    newer, incompatible version has written the database.
    """
    parameters = parameters_from(url)
    async with AsyncExitStack() as stack:
        try:
            connection, key = await asyncio.to_thread(_open, parameters)
        except DBAPIError as error:
            raise opening_error(error) from None
        hooks = PostgresHooks()
        database = Database(connection, hooks, reading_engine(parameters, READERS), is_worth_repeating=has_been_cut)
        stack.push_async_callback(database.close)
        store = PostgresStore(database, hooks, parameters, clock or Clock(), OwnerSeal(key))
        stack.push_async_callback(store.close)
        yield store


def _open(parameters: Parameters) -> tuple[Connection, bytes]:
    """The writing connection, with the tables made and upgraded, and the key of owners' seals."""
    connection = writing_engine(parameters).connect()
    try:
        if not is_usable(connection):
            _upgrade_exclusively(connection)
        return connection, seal_key(connection)
    except BaseException:
        connection.close()
        raise


def _upgrade_exclusively(connection: Connection) -> None:
    """If several processes start at once, one upgrades and the others wait for it."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        with connection.begin():
            if connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_UPGRADE_LOCK})").scalar():
                _upgrade(connection)
                return
        time.sleep(_LOCK_PAUSE_SECONDS)
    raise StoreUnavailable("another process is upgrading the database; it is tried again when that is done")


def _upgrade(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, BoundedConnection)
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    usual = driver.answer_seconds
    driver.answer_seconds = _UPGRADE_SECONDS
    try:
        upgrade(connection)
    finally:
        driver.answer_seconds = usual
