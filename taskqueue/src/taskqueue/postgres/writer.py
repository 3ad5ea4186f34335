"""PostgreSQL's part of the writer: which transactions are tried again, and announcing tasks that have ended."""

import logging
import random
from collections.abc import Iterable

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from taskqueue.postgres.engine import has_been_cut
from taskqueue.postgres.notifications import ARRIVED, ENDED, NOTIFY, payloads
from taskqueue.sql.database import Stage, WriterHooks
from taskqueue.sql.errors import ROLLED_BACK, sqlstate

_log = logging.getLogger(__name__)

#: Tries of a transaction that is rolled back because of others (deadlocks).
_MAX_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.02


class PostgresHooks(WriterHooks):
    """Repeats transactions that others made fail, and announces tasks that have ended.

    A NOTIFY inside a transaction makes all such transactions of the whole server commit one after the other, each
    with its flush to the disk. So it is sent after the commit, by a statement of its own that waits for no disk. If it
    is lost, waiters find out by their next query.
    """

    def __init__(self) -> None:
        self._ended: list[str] = []
        self._arrived: set[str] = set()

    def ended(self, ids: Iterable[str]) -> None:
        """Announces these after the commit. One too many is harmless: a waiter looks at the row."""
        self._ended.extend(ids)

    def arrived(self, algorithms: Iterable[str]) -> None:
        """Announces after the commit that tasks of these have come, which wait for their turn. As harmless."""
        self._arrived.update(algorithms)

    def after_group(self, connection: Connection) -> None:
        if not (self._ended or self._arrived):
            return
        words = {ENDED: self._ended, ARRIVED: sorted(self._arrived)}
        self._ended, self._arrived = [], set()
        try:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.autocommit = True
            try:
                for channel, payload in ((name, each) for name in words for each in payloads(words[name])):
                    driver.execute(NOTIFY, (channel, payload))
            finally:
                if not driver.closed:
                    driver.autocommit = False
        except (psycopg.Error, DBAPIError) as error:
            _log.warning("what was written could not be announced; others see it a second later")
            connection.invalidate(error)

    def repeat_after(self, error: BaseException, stage: Stage, times: int) -> float | None:
        if not isinstance(error, DBAPIError):
            return None
        if sqlstate(error.orig) in ROLLED_BACK and times < _MAX_TRIES:
            return random.uniform(0.0, _FIRST_PAUSE_SECONDS * 2**times)  # noqa: S311
        # A connection that was cut before the commit: nothing was written, and the server may well be there.
        return 0.0 if has_been_cut(error) and stage is Stage.INSIDE and times == 1 else None

    def is_away(self, error: BaseException, stage: Stage) -> bool:
        return isinstance(error, DBAPIError) and (error.connection_invalidated or stage is Stage.BEGINNING)
