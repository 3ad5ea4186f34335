"""The part of a task store that is the same on both databases: lists, dead letters, cancelling, waiting, retention."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, delete, select

from runnerlib.contract import TaskState
from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable
from taskqueue.messages import clean
from taskqueue.replays import in_portions
from taskqueue.sql import audit, dead_letters, statements, tables
from taskqueue.sql.database import Database
from taskqueue.sql.pages import dead_letters_query, read_page, tasks_query
from taskqueue.sql.statements import IdStatements, execute
from taskqueue.sql.tokens import SqlTokenStore
from taskqueue.tasks import (
    CancelAnswer,
    Counts,
    DeadAnswer,
    DeadFilter,
    DeadLetter,
    DeadSummary,
    Delivery,
    Page,
    Pause,
    TaskFilter,
    TaskRow,
    TaskSummary,
    notes_valid_since,
)
from taskqueue.tokens import EVERYTHING, AuditNote, Reach, fits
from taskqueue.waiters import Waiters

#: Dead letters that are discarded in one transaction.
_MAX_DISCARDED = 1000
_MAX_CANCEL_TRIES = 10
#: A task that was new when the wait began is looked up after this long if its end was not announced.
NEW_SECONDS = 1.0


class SqlStore:
    """See `taskqueue.protocols.TaskStore`."""

    #: whether only this process ends tasks, so that no end of a new task can be missed before somebody waits for it
    _sees_every_end = False

    def __init__(self, database: Database, by_ids: IdStatements, clock: Clock, waiters: Waiters) -> None:
        self._database = database
        self._by_ids = by_ids
        self._clock = clock
        self._waiters = waiters
        self.tokens = SqlTokenStore(database, clock)

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        return await self._database.read(lambda connection: self._by_ids.read_tasks(connection, ids)) if ids else {}

    async def rows_that_forbid_start(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        raise NotImplementedError

    async def get(self, task_id: str) -> TaskRow | None:
        raise NotImplementedError

    async def wait_finished(self, task_id: str, timeout_seconds: float, *, is_new: bool = False) -> TaskRow | None:
        with self._waiters.waiting(task_id) as ended:
            if is_new and self._sees_every_end:
                soon = min(timeout_seconds, NEW_SECONDS)
                if await _is_set_within(ended, soon):
                    return ended.row or await self.get(task_id)
                timeout_seconds -= soon
            row = await self.get(task_id)
            if timeout_seconds <= 0 or (row is not None and row.state.is_terminal):
                return row
            self._listen()
            await _is_set_within(ended, timeout_seconds)
        return ended.row or await self.get(task_id)

    async def cancel(self, task_id: str, *, reach: Reach = EVERYTHING, note: AuditNote | None = None) -> CancelAnswer:
        def write(connection: Connection) -> CancelAnswer:
            now = self._clock.wall()
            answer = _cancel(connection, task_id, now, reach)
            if answer in (CancelAnswer.CANCELLED, CancelAnswer.REQUESTED):
                audit.write(connection, note, [task_id], now)
            if answer is CancelAnswer.CANCELLED:
                self._announce([task_id])
            return answer

        def then(answer: CancelAnswer) -> None:
            if answer is CancelAnswer.CANCELLED:
                self._waiters.ended([task_id])

        return await self._database.write(write, then=then)

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        wanted = list(ids)
        if not wanted:
            return set()
        return await self._database.read(lambda connection: self._by_ids.read_marked(connection, wanted))

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        if not updates:
            return
        now = self._clock.wall()
        values = [
            {
                "the_id": task_id,
                "the_attempt": attempt,
                "new_fraction": fraction,
                "new_message": clean(message),
                "new_now": now,
            }
            for task_id, attempt, fraction, message in sorted(updates)
        ]
        await self._database.write(lambda connection: connection.execute(statements.PROGRESS, values), durable=False)

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        now = self._clock.wall()
        await self._database.write(lambda connection: _note_waiting(connection, reasons, over, now), durable=False)

    async def pause(self, algorithm: str, by: str, *, note: AuditNote | None = None) -> Pause:
        def write(connection: Connection) -> Pause:
            now = self._clock.wall()
            values = {"algorithm": algorithm, "paused_by": clean(by), "paused_at": now}
            if execute(connection, statements.PAUSE, values):
                audit.write(connection, note, [algorithm], now)
            return _paused(connection)[algorithm]

        return await self._database.write(write)

    async def resume(self, algorithm: str, *, note: AuditNote | None = None) -> None:
        pauses = tables.paused_algorithms

        def write(connection: Connection) -> None:
            if execute(connection, delete(pauses).where(pauses.c.algorithm == algorithm), {}):
                audit.write(connection, note, [algorithm], self._clock.wall())

        await self._database.write(write)

    async def paused(self) -> dict[str, Pause]:
        return await self._database.read(_paused)

    async def counts(self, reach: Reach = EVERYTHING) -> list[Counts]:
        return await self._database.read(lambda connection: _counts(connection, reach))

    async def count_waiting(self, most: int, *, algorithm: str | None = None, submitted_by: str | None = None) -> int:
        statement = statements.WAITING_OF_ALGORITHM if submitted_by is None else statements.WAITING_OF_TOKEN
        values = {"the_one": algorithm if submitted_by is None else submitted_by, "the_most": most}
        return await self._database.read(lambda connection: connection.scalar(statement, values) or 0)

    async def list_tasks(self, wanted: TaskFilter, *, limit: int = 100, before: int | None = None) -> Page[TaskSummary]:
        return await read_page(self._database.read, tasks_query(wanted), limit, before)

    async def dead_letters(
        self, wanted: DeadFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[DeadSummary]:
        return await read_page(self._database.read, dead_letters_query(wanted or DeadFilter()), limit, before)

    async def dead_letter(self, dead_id: int) -> DeadLetter | None:
        return await self._database.read(lambda connection: dead_letters.read_one(connection, dead_id))

    async def discard(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[DeadAnswer]:
        async def discard(portion: Sequence[int]) -> dict[int, DeadAnswer]:
            return await self._database.write(
                lambda connection: dead_letters.discard(connection, portion, self._clock.wall(), reach, note)
            )

        return await in_portions(dead_ids, _MAX_DISCARDED, discard)

    async def check_writing(self) -> None:
        await self._database.write(write_something)

    async def purge(self, finished_before: float, limit: int) -> int:
        return await self._database.write(lambda connection: _purge(connection, finished_before, limit), durable=False)

    def _listen(self) -> None:
        """Called when a caller begins to wait for a task that another process may end."""

    def _announce(self, ids: Sequence[str]) -> None:
        """Called inside a transaction that ends these tasks: other processes may wait for them."""


def write_something(connection: Connection) -> None:
    """Changes nothing, and has to be written all the same."""
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _cancel(connection: Connection, task_id: str, now: float, reach: Reach) -> CancelAnswer:
    this = {"the_id": task_id, "new_now": now}
    for _ in range(_MAX_CANCEL_TRIES):
        row = connection.execute(statements.LOCK_TO_CANCEL, {"the_id": task_id}).first()
        if row is None:
            tombstone = _tombstone(task_id, now, reach.owner)
            if connection.execute(statements.INSERT_ONE[connection.dialect.name], tombstone).first():
                return CancelAnswer.CANCELLED
            continue  # another process has just inserted the row: look again
        if not reach.includes(row.submitted_by, row.algorithm):
            return CancelAnswer.UNKNOWN
        if row.finished_at is not None:
            return CancelAnswer.FINISHED
        if execute(connection, statements.CANCEL_WAITING, this):
            return CancelAnswer.CANCELLED
        execute(connection, statements.CANCEL_RUNNING, this)
        return CancelAnswer.REQUESTED
    raise StoreUnavailable(f"the task {task_id!r} comes and goes too fast to be cancelled; try again")


def _tombstone(task_id: str, now: float, submitted_by: str | None) -> dict[str, Any]:
    """The row of a task that is cancelled before it arrives. It belongs to who cancelled it."""
    return {
        "id": task_id,
        "algorithm": "",
        "payload": b"null",
        "digest": "",
        "state": TaskState.CANCELLED.value,
        "attempt": 1,
        "created_at": now,
        "updated_at": now,
        "finished_at": now,
        "submitted_by": submitted_by,
    }


def _note_waiting(connection: Connection, reasons: Mapping[str, str], over: Collection[str], now: float) -> None:
    notes = tables.waiting_notes
    for name in over:
        connection.execute(delete(notes).where(notes.c.algorithm == name))
    connection.execute(delete(notes).where(notes.c.noted_at < notes_valid_since(now)))
    if reasons:
        rows = [{"algorithm": name, "note": clean(note), "noted_at": now} for name, note in sorted(reasons.items())]
        connection.execute(statements.NOTE, rows)


def _paused(connection: Connection) -> dict[str, Pause]:
    return {algorithm: Pause(by, at) for algorithm, by, at in connection.execute(statements.PAUSED).all()}


def _counts(connection: Connection, reach: Reach) -> list[Counts]:
    by_algorithm: dict[str, dict[TaskState, int]] = {}
    queries = (statements.COUNT_WAITING, statements.COUNT_FINISHED) if reach.others else (statements.COUNT_OWN,)
    values = {} if reach.others else {"the_owner": reach.owner}
    for query in queries:
        for algorithm, state, count in connection.execute(query, values).all():
            # a tombstone has no algorithm
            if algorithm and (not reach.others or fits(algorithm, reach.algorithms)):
                by_algorithm.setdefault(algorithm, {})[TaskState(state)] = count
    return [
        Counts(
            name,
            by_state,
            # for one token's tasks it passes over those of others
            _oldest_waiting(connection, reach, {"the_algorithm": name, **values})
            if reach.others or TaskState.QUEUED in by_state
            else None,
        )
        for name, by_state in sorted(by_algorithm.items())
    ]


def _oldest_waiting(connection: Connection, reach: Reach, values: dict[str, Any]) -> float | None:
    statement = statements.OLDEST_WAITING if reach.others else statements.OLDEST_OWN_WAITING
    kinds = (statements.NOW_CLAIMABLE, statements.IN_TURN)
    oldest = [connection.scalar(statement, {"the_kind": kind, **values}) for kind in kinds]
    return min((at for at in oldest if at is not None), default=None)


def _purge(connection: Connection, finished_before: float, limit: int) -> int:
    """Rows of tasks first, then dead letters that were replayed or discarded."""
    letters = tables.dead_letters
    dropped = _drop(connection, tables.tasks, tables.tasks.c.finished_at, finished_before, limit)
    for decided_at in (letters.c.replayed_at, letters.c.discarded_at):
        dropped += _drop(connection, letters, decided_at, finished_before, limit - dropped)
    return dropped


def _drop(connection: Connection, table: Table, over_at: Column[Any], before: float, limit: int) -> int:
    """Drops the rows that were over before that time, oldest first."""
    (key,) = table.primary_key
    # where rows can be locked, what another process is just purging is left to it
    old = select(key).where(over_at < before).order_by(over_at).limit(limit).with_for_update(skip_locked=True)
    return execute(connection, delete(table).where(key.in_(old)), {}) if limit > 0 else 0
