"""The task store on SQL: writes through the one writer, reads in short transactions beside it."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Connection, delete, desc, select

from runnerlib.contract import TaskState
from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable
from taskqueue.outstanding import Outstanding
from taskqueue.sql import statements
from taskqueue.sql.failures import translated
from taskqueue.sql.readers import Readers
from taskqueue.sql.recording import Moment, place_runs, write_records
from taskqueue.sql.rows import DEAD_LETTER_COLUMNS, clean, dead_letter, task_row
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.sql.writer import Value, Writer
from taskqueue.tasks import (
    CancelAnswer,
    Conflicting,
    Counts,
    DeadLetter,
    Delivery,
    Placement,
    Record,
    Retrying,
    TaskRow,
)
from taskqueue.waiters import Waiters


class SqlStore:
    """See `taskqueue.protocols.TaskStore`. `arrived` is told the algorithms for which a retry was scheduled here."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        *,
        clock: Clock,
        outstanding: Outstanding,
        waiters: Waiters,
        arrived: Callable[[Collection[str]], None],
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self._outstanding = outstanding
        self._waiters = waiters
        self._arrived = arrived

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        if not ids:
            return {}

        def read(connection: Connection) -> dict[str, TaskRow]:
            rows = connection.execute(statements.TASKS_BY_IDS, {"the_ids": statements.padded(ids)}).all()
            return {row[0]: task_row(row) for row in rows}

        return await self._read(read)

    async def get(self, task_id: str) -> TaskRow | None:
        def read(connection: Connection) -> TaskRow | None:
            row = connection.execute(statements.TASK_BY_ID, {"the_id": task_id}).first()
            return None if row is None else task_row(row)

        return await self._read(read)

    async def wait_finished(self, task_id: str, timeout_seconds: float) -> TaskRow | None:
        with self._waiters.waiting(task_id) as ended:
            row = await self.get(task_id)
            if row is None or row.state.is_terminal:
                return row
            try:
                async with asyncio.timeout(timeout_seconds):
                    await ended.wait()
            except TimeoutError:
                return row if timeout_seconds <= 0 else await self.get(task_id)
        return await self.get(task_id)

    async def record(self, records: Sequence[Record]) -> list[bool]:
        if not records:
            return []

        def write(connection: Connection) -> list[bool]:
            return write_records(connection, records, self._moment())

        def then(written: list[bool]) -> None:
            kept = [record for record, done in zip(records, written, strict=True) if done]
            self._outstanding.mark_over(record.delivery for record in kept)
            self._waiters.ended(record.delivery.id for record in kept if not isinstance(record, Retrying | Conflicting))
            again = {record.delivery.algorithm for record in kept if isinstance(record, Retrying)}
            if again:
                self._arrived(again)

        return await self._write(write, then=then)

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        if placements:
            await self._write(lambda connection: place_runs(connection, placements, self._moment()))

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
            for task_id, attempt, fraction, message in updates
        ]
        await self._write(lambda connection: _execute(connection, statements.PROGRESS, values), durable=False)

    async def cancel(self, task_id: str) -> CancelAnswer:
        def then(answer: CancelAnswer) -> None:
            if answer is CancelAnswer.CANCELLED:
                self._waiters.ended([task_id])

        return await self._write(lambda connection: _cancel(connection, task_id, self._clock.wall()), then=then)

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        if not ids:
            return set()

        def read(connection: Connection) -> set[str]:
            return set(connection.scalars(statements.MARKED, {"the_ids": statements.padded(list(ids))}).all())

        return await self._read(read)

    async def counts(self) -> list[Counts]:
        return await self._read(_counts)

    async def dead_letters(self, *, limit: int = 100, before: int | None = None) -> list[DeadLetter]:
        query = select(*DEAD_LETTER_COLUMNS).order_by(desc(dead_letters.c.dead_id)).limit(limit)
        if before is not None:
            query = query.where(dead_letters.c.dead_id < before)
        return await self._read(lambda connection: [dead_letter(row) for row in connection.execute(query).all()])

    async def purge(self, finished_before: float, limit: int) -> int:
        old = (
            select(tasks.c.seq).where(tasks.c.finished_at < finished_before).order_by(tasks.c.finished_at).limit(limit)
        )
        return await self._write(
            lambda connection: _execute(connection, delete(tasks).where(tasks.c.seq.in_(old)), {}), durable=False
        )

    def _moment(self) -> Moment:
        return Moment(wall=self._clock.wall(), steady=self._clock.steady())

    async def _read(self, function: Callable[[Connection], Value]) -> Value:
        with translated(StoreUnavailable):
            return await self._readers.run(function)

    async def _write(
        self,
        function: Callable[[Connection], Value],
        *,
        then: Callable[[Value], None] | None = None,
        durable: bool = True,
    ) -> Value:
        with translated(StoreUnavailable):
            return await self._writer.run(function, then=then, durable=durable)


def _execute(connection: Connection, statement: Any, values: Any) -> int:
    count: int = connection.execute(statement, values).rowcount
    return count


def _cancel(connection: Connection, task_id: str, now: float) -> CancelAnswer:
    this = {"the_id": task_id, "new_now": now}
    if _execute(connection, statements.CANCEL_WAITING, this):
        return CancelAnswer.CANCELLED
    if _execute(connection, statements.CANCEL_RUNNING, this):
        return CancelAnswer.REQUESTED
    tombstone = {
        "id": task_id,
        "algorithm": "",
        "payload": b"null",
        "digest": "",
        "state": TaskState.CANCELLED.value,
        "attempt": 1,
        "created_at": now,
        "updated_at": now,
        "finished_at": now,
    }
    inserted = _execute(connection, statements.INSERT_NEW[connection.dialect.name], [tombstone])
    return CancelAnswer.CANCELLED if inserted else CancelAnswer.FINISHED


def _counts(connection: Connection) -> list[Counts]:
    by_algorithm: dict[str, dict[TaskState, int]] = {}
    for query in (statements.COUNT_WAITING, statements.COUNT_FINISHED):
        for algorithm, state, count in connection.execute(query).all():
            if algorithm:  # a tombstone has none
                by_algorithm.setdefault(algorithm, {})[TaskState(state)] = count
    return [
        Counts(
            algorithm=algorithm,
            by_state=by_state,
            oldest_waiting_at=connection.scalar(statements.OLDEST_WAITING, {"the_algorithm": algorithm}),
        )
        for algorithm, by_state in sorted(by_algorithm.items())
    ]
