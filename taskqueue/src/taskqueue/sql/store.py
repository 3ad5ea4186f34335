"""The task store on SQLite: writes through the one writer, reads in short transactions beside it."""

import asyncio
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import Connection

from runnerlib.contract.envelope import DEFAULT_MESSAGE_BYTES
from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable
from taskqueue.outstanding import Outstanding
from taskqueue.sql import queries, statements
from taskqueue.sql.access import Access
from taskqueue.sql.failures import DISK_FULL
from taskqueue.sql.listed import Listed
from taskqueue.sql.readers import Readers
from taskqueue.sql.recording import Moment, place_runs, write_records
from taskqueue.sql.rows import task_row
from taskqueue.sql.writer import Writer
from taskqueue.tasks import (
    CancelAnswer,
    Conflicting,
    Counts,
    Delivery,
    Placement,
    Record,
    Retrying,
    TaskRow,
)
from taskqueue.waiters import Waiters

#: Room on the disk that the store needs to be called well: that of one message.
ROOM_BYTES = DEFAULT_MESSAGE_BYTES


class SqlStore(Listed):
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
        super().__init__(Access(writer, readers), clock)
        self._outstanding = outstanding
        self._waiters = waiters
        self._arrived = arrived

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        if not ids:
            return {}

        def read(connection: Connection) -> dict[str, TaskRow]:
            rows = connection.execute(statements.TASKS_BY_IDS, {"the_ids": statements.padded(ids)}).all()
            return {row[0]: task_row(row) for row in rows}

        return await self._access.read(read)

    async def get(self, task_id: str) -> TaskRow | None:
        return await self._access.read(lambda connection: queries.get(connection, task_id))

    async def wait_finished(self, task_id: str, timeout_seconds: float) -> TaskRow | None:
        with self._waiters.waiting(task_id) as ended:
            row = await self.get(task_id)
            if timeout_seconds <= 0 or (row is not None and row.state.is_terminal):
                return row
            try:
                async with asyncio.timeout(timeout_seconds):
                    await ended.wait()
            except TimeoutError:
                pass  # the row as it is now
        return await self.get(task_id)

    async def check_writing(self) -> None:
        """Also asks for room: on a full disk a little may still be written where a task cannot."""
        await super().check_writing()
        await self._access.read(_require_room)

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

        return await self._access.write(write, then=then)

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        if placements:
            await self._access.write(lambda connection: place_runs(connection, placements, self._moment()))

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        if not updates:
            return
        now = self._clock.wall()
        await self._access.write(lambda connection: queries.write_progress(connection, updates, now), durable=False)

    async def cancel(self, task_id: str) -> CancelAnswer:
        def then(answer: CancelAnswer) -> None:
            if answer is CancelAnswer.CANCELLED:
                self._waiters.ended([task_id])

        return await self._access.write(
            lambda connection: queries.cancel(connection, task_id, self._clock.wall()), then=then
        )

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        if not ids:
            return set()

        return await self._access.read(lambda connection: queries.marked(connection, ids))

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        now = self._clock.wall()
        await self._access.write(lambda connection: queries.note_waiting(connection, reasons, over, now), durable=False)

    async def counts(self) -> list[Counts]:
        return await self._access.read(queries.counts)

    def _moment(self) -> Moment:
        return Moment(wall=self._clock.wall(), steady=self._clock.steady())


def _require_room(connection: Connection) -> None:
    for _, name, file in connection.exec_driver_sql("PRAGMA database_list"):
        if name == "main" and file and shutil.disk_usage(file).free < ROOM_BYTES:
            raise StoreUnavailable(DISK_FULL)
