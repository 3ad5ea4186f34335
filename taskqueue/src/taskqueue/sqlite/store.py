"""The task store on SQLite: writes through the one writer, reads in short transactions beside it."""

import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Text, bindparam, case, func, insert, null, select, update

from runnerlib.contract import TaskState
from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES
from taskqueue.clock import Clock, Now
from taskqueue.errors import StoreUnavailable
from taskqueue.feed import LeaseTable
from taskqueue.messages import clean, clean_or_none
from taskqueue.sql.database import Database
from taskqueue.sql.errors import DISK_FULL
from taskqueue.sql.recording import (
    OUTCOME_COLUMNS,
    KnownRow,
    dead_letter_values,
    ended_ids,
    explain_retry,
    outcome_values,
    with_history,
    without_repetition,
)
from taskqueue.sql.rows import notes_valid_now, task_row
from taskqueue.sql.statements import EXPLAIN, FENCED, INSERT_NEW, NEXT_ATTEMPT, TASK_BY_ID, IdStatements
from taskqueue.sql.store import SqlStore
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.sqlite.engine import DriverStatement, padded
from taskqueue.tasks import CancelAnswer, Conflicting, Delivery, Failed, Placement, Record, Retrying, Succeeded, TaskRow
from taskqueue.tokens import EVERYTHING, AuditNote, Reach
from taskqueue.waiters import Waiters

#: Free disk space below which the store reports a full disk: that of one message.
MIN_FREE_BYTES = DEFAULT_MESSAGE_BYTES
#: Cancelled tasks that are remembered; more than are ever claimed at once.
MOST_CANCELLED = 100_000

_this = tasks.c.id == bindparam("the_id")
BY_IDS = IdStatements(tasks.c.id.in_(bindparam("the_ids", expanding=True)), padded)

_TASK_BY_ID = DriverStatement(TASK_BY_ID)
_OUTCOME = {
    **{name: bindparam(f"new_{name}") for name in OUTCOME_COLUMNS},
    "history": func.coalesce(bindparam("new_history"), tasks.c.history),
    "runner": func.coalesce(bindparam("new_runner"), tasks.c.runner),
    "receipt": null(),
    "updated_at": bindparam("new_now"),
}
#: A dead letter belongs to whom its task does; that of a conflict, which has another digest, to nobody.
_INSERT_DEAD_LETTERS = insert(dead_letters).values(
    submitted_by=select(tasks.c.submitted_by)
    .where((tasks.c.id == bindparam("the_id")) & (tasks.c.digest == bindparam("the_digest")))
    .scalar_subquery()
)
END = update(tasks).where(_this).values(**_OUTCOME, finished_at=bindparam("new_now"))
RETRY = update(tasks).where(_this).values(**{**NEXT_ATTEMPT, **_OUTCOME})

#: As text for the driver, which is several times as fast for many rows. `?1` is the attempt: the fence.
_SUCCEED = f"""
UPDATE tasks SET state = '{TaskState.SUCCEEDED.value}', attempt = ?1, available_at = NULL, receipt = NULL,
                 updated_at = ?2, finished_at = ?3, result = ?4, error_code = NULL, error_message = NULL,
                 runner = coalesce(?5, runner)
WHERE id = ?6 AND finished_at IS NULL AND attempt <= ?1
"""  # noqa: S608 - constants

#: An empty boot id: no controller can attach to the run. An empty runner: the run is over, and the task waits again.
_is_detached = bindparam("new_boot", type_=Text) == ""
_is_given_back = bindparam("new_runner", type_=Text) == ""
PLACE = (
    update(tasks)
    .where(FENCED)
    .values(
        state=case((_is_given_back, TaskState.QUEUED.value), else_=TaskState.RUNNING.value),
        attempt=bindparam("the_attempt"),
        placed_attempt=case((_is_detached, null()), else_=bindparam("the_attempt")),
        placed_runner=case((_is_detached, null()), else_=bindparam("new_runner")),
        placed_boot=case((_is_detached, null()), else_=bindparam("new_boot", type_=Text)),
        runner=func.nullif(bindparam("new_runner", type_=Text), ""),
        updated_at=bindparam("new_now"),
    )
)


class SqliteStore(SqlStore):
    """See `taskqueue.protocols.TaskStore`."""

    _sees_every_end = True

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        leases: LeaseTable,
        waiters: Waiters,
        arrived: Callable[[Collection[str]], None],
    ) -> None:
        """`arrived` is called with the algorithms for which a retry was scheduled."""
        super().__init__(database, BY_IDS, clock, waiters)
        self._leases = leases
        self._arrived = arrived
        #: the latest cancelled tasks; what was claimed before is not cancelled in its delivery
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    async def get(self, task_id: str) -> TaskRow | None:
        return await self._database.read(lambda connection: _task(connection, task_id))

    async def rows_that_forbid_start(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        """Only this process writes, so what a claim has read of a row holds until the task is cancelled."""
        doubtful = [each for each in deliveries if not each.is_clear_to_start or each.id in self._cancelled]
        return await self.lookup([each.id for each in doubtful]) if doubtful else {}

    async def cancel(self, task_id: str, *, reach: Reach = EVERYTHING, note: AuditNote | None = None) -> CancelAnswer:
        self._cancelled[task_id] = None
        if len(self._cancelled) > MOST_CANCELLED:
            self._cancelled.popitem(last=False)
        return await super().cancel(task_id, reach=reach, note=note)

    async def check_writing(self) -> None:
        """Also asks for room: on a full disk a little may still be written where a task cannot."""
        await super().check_writing()
        await self._database.read(_require_room)

    async def record(self, records: Sequence[Record]) -> list[bool]:
        if not records:
            return []
        waited_for = [record.delivery.id for record in records if record.delivery.id in self._waiters.ids()]

        def write(connection: Connection) -> tuple[list[bool], dict[str, TaskRow]]:
            written = _write_records(connection, records, self._clock.now())
            # A waiter that gets its row from here needs no transaction of its own.
            rows = {task_id: row for task_id in waited_for if (row := _task(connection, task_id)) is not None}
            return written, rows

        def then(outcome: tuple[list[bool], dict[str, TaskRow]]) -> None:
            written, rows = outcome
            kept = [record for record, done in zip(records, written, strict=True) if done]
            self._leases.mark_over(record.delivery for record in kept)
            self._waiters.ended(ended_ids(records, written), rows)
            retried = {record.delivery.algorithm for record in kept if isinstance(record, Retrying)}
            if retried:
                self._arrived(retried)

        written, _ = await self._database.write(write, then=then)
        return written

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        if placements:
            await self._database.write(lambda connection: _place(connection, placements, self._clock.now()))


@dataclass(slots=True)
class _Writes:
    """What the records of one group write, by statement."""

    ends: list[dict[str, Any]] = field(default_factory=list)
    retries: list[dict[str, Any]] = field(default_factory=list)
    explanations: list[dict[str, Any]] = field(default_factory=list)
    new: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: Record, row: KnownRow | None, now: Now) -> bool:
        """Decides what a record writes; False if the fence keeps it out."""
        if isinstance(record, Conflicting):
            self.add_dead_letter(record, now)
            return True
        if row is not None and row.ended:
            return False
        if row is not None and row.attempt > record.delivery.attempt:
            explanation = explain_retry(record, row, now)
            if explanation is not None:
                self.explanations.append(explanation)
            return explanation is not None
        record = with_history(record, row, now)
        values = outcome_values(record, lambda at: now.steady + max(0.0, at - now.wall))
        is_retry = isinstance(record, Retrying)
        if row is None:
            outcome = dict(zip(OUTCOME_COLUMNS, values, strict=True))
            self.new.append(_new_row(record.delivery, now) | outcome | {"finished_at": None if is_retry else now.wall})
        else:
            binds = {f"new_{name}": value for name, value in zip(OUTCOME_COLUMNS, values, strict=True)}
            (self.retries if is_retry else self.ends).append(
                {"the_id": record.delivery.id, "new_now": now.wall, **binds}
            )
        if isinstance(record, Failed):
            self.add_dead_letter(record, now)
        return True

    def add_dead_letter(self, record: Failed | Conflicting, now: Now) -> None:
        owner = {"the_id": record.delivery.id, "the_digest": record.delivery.digest}
        self.dead_letters.append(dead_letter_values(record, now) | owner)

    def execute(self, connection: Connection) -> None:
        for statement, values in (
            (END, self.ends),
            (RETRY, self.retries),
            (EXPLAIN, self.explanations),
            (INSERT_NEW["sqlite"], self.new),
            (_INSERT_DEAD_LETTERS, self.dead_letters),
        ):
            if values:
                connection.execute(statement, values)


def _task(connection: Connection, task_id: str) -> TaskRow | None:
    row = _TASK_BY_ID.execute(connection, {"the_id": task_id, **notes_valid_now()}).first()
    return None if row is None else task_row(row)


def _write_records(connection: Connection, records: Sequence[Record], now: Now) -> list[bool]:
    """True for each record that was written."""
    written: list[bool] = []
    for group in without_repetition(records):
        if _write_successes(connection, group, now):
            written += [True] * len(group)
            continue
        known = BY_IDS.lock_known(connection, [record.delivery.id for record in group])
        writes = _Writes()
        written.extend(writes.add(record, known.get(record.delivery.id), now) for record in group)
        writes.execute(connection)
    return written


def _write_successes(connection: Connection, records: Sequence[Record], now: Now) -> bool:
    """Writes records that are all successes, without reading their rows first; False if the fence keeps one out."""
    values = [
        (each.delivery.attempt, now.wall, now.wall, each.result, clean_or_none(each.runner), each.delivery.id)
        for each in records
        if isinstance(each, Succeeded)
    ]
    if len(values) < len(records):
        return False
    if len(values) == 1:
        return connection.exec_driver_sql(_SUCCEED, values[0]).rowcount == 1
    connection.exec_driver_sql("SAVEPOINT successes")
    is_done = connection.exec_driver_sql(_SUCCEED, values).rowcount == len(values)
    connection.exec_driver_sql("RELEASE successes" if is_done else "ROLLBACK TO successes")
    return is_done


def _new_row(delivery: Delivery, now: Now) -> dict[str, Any]:
    """The row of a task that the store meets for the first time; the caller adds what has become of it."""
    return {
        "id": delivery.id,
        "algorithm": delivery.algorithm,
        "payload": delivery.payload,
        "digest": delivery.digest,
        "created_at": now.wall,
        "updated_at": now.wall,
        "expires_at": delivery.expires_at,
        "reply_to": delivery.reply_to,
        "correlation_id": delivery.correlation_id,
    }


def _place(connection: Connection, placements: Sequence[tuple[Delivery, Placement]], now: Now) -> None:
    """Marks runs as running; inserts the rows that are missing."""
    known = BY_IDS.lock_known(connection, [delivery.id for delivery, _ in placements])
    new = [
        _new_row(delivery, now)
        | {"state": TaskState.RUNNING.value, "available_at": now.steady, "attempt": delivery.attempt}
        for delivery, _ in placements
        if delivery.id not in known
    ]
    if new:
        connection.execute(INSERT_NEW["sqlite"], new)
    values = [
        {
            "the_id": placement.id,
            "the_attempt": placement.attempt,
            "new_runner": clean(placement.runner),
            "new_boot": clean(placement.boot),
            "new_now": now.wall,
        }
        for _, placement in placements
    ]
    connection.execute(PLACE, values)


def _require_room(connection: Connection) -> None:
    for _, name, file in connection.exec_driver_sql("PRAGMA database_list"):
        if name == "main" and file and shutil.disk_usage(file).free < MIN_FREE_BYTES:
            raise StoreUnavailable(DISK_FULL)
