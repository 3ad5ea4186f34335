"""The task store on PostgreSQL, shared by any number of controllers and gateways."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.clock import Clock
from taskqueue.sql import dead_letters, postgres_queries, postgres_recording, queries
from taskqueue.sql.access import Access
from taskqueue.sql.gathering import Gathering
from taskqueue.sql.listed import Listed
from taskqueue.sql.notices import Notices
from taskqueue.sql.postgres_engine import Parameters
from taskqueue.sql.postgres_writer import PostgresHooks
from taskqueue.sql.recording import Moment
from taskqueue.tasks import (
    CancelAnswer,
    Counts,
    Delivery,
    NewTask,
    Placement,
    Published,
    Record,
    Revived,
    TaskRow,
)
from taskqueue.waiters import Waiters

#: Of a message that a broker takes; the rest is for its algorithm and the words around.
_MOST_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - 256


class PostgresStore(Listed):
    """See `taskqueue.protocols`: TaskStore, and for a broker's tasks Ledger and Sweeper."""

    def __init__(self, access: Access, hooks: PostgresHooks, parameters: Parameters, clock: Clock) -> None:
        """`hooks` are those of the writer in `access`."""
        super().__init__(access, clock)
        self._hooks = hooks
        self._waiters = Waiters()
        self._gathering = Gathering(self.lookup)
        self._notices = Notices(parameters, self._waiters, self._find_ended)

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        if not ids:
            return {}
        return await self._access.read(lambda connection: postgres_queries.lookup(connection, ids))

    async def get(self, task_id: str) -> TaskRow | None:
        return await self._gathering.get(task_id)

    async def wait_finished(self, task_id: str, timeout_seconds: float) -> TaskRow | None:
        with self._waiters.waiting(task_id) as ended:
            row = await self.get(task_id)
            if timeout_seconds <= 0 or (row is not None and row.state.is_terminal):
                return row
            self._notices.needed()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await ended.wait()
            except TimeoutError:
                pass  # the row as it is now
        return await self.get(task_id)

    async def record(self, records: Sequence[Record]) -> list[bool]:
        if not records:
            return []

        def write(connection: Connection) -> list[bool]:
            now = Moment(wall=self._clock.wall(), steady=self._clock.steady())
            written = postgres_recording.write_records(connection, records, now)
            self._hooks.ended(postgres_recording.ended_ids(records, written))
            return written

        def then(written: list[bool]) -> None:
            self._waiters.ended(postgres_recording.ended_ids(records, written))

        return await self._access.write(write, then=then)

    async def admit(self, tasks: Sequence[NewTask]) -> list[Published]:
        if not tasks:
            return []
        return await self._access.write(
            lambda connection: postgres_recording.admit(connection, tasks, self._clock.wall())
        )

    async def revive(self, dead_ids: Sequence[int]) -> list[Revived]:
        if not dead_ids:
            return []

        def write(connection: Connection) -> dict[int, Revived]:
            now = self._clock.wall()
            return dead_letters.revive(connection, dead_ids, now, most_payload_bytes=_MOST_PAYLOAD_BYTES)

        revived = await self._access.write(write)
        return [revived[dead_id] for dead_id in dead_ids]

    async def mark_replayed(self, dead_ids: Sequence[int]) -> None:
        if dead_ids:
            await self._access.write(
                lambda connection: dead_letters.mark_replayed(connection, dead_ids, self._clock.wall())
            )

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        if placements:
            await self._access.write(
                lambda connection: postgres_recording.place_runs(connection, placements, self._clock.wall())
            )

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        if not updates:
            return
        now = self._clock.wall()
        await self._access.write(lambda connection: queries.write_progress(connection, updates, now), durable=False)

    async def cancel(self, task_id: str) -> CancelAnswer:
        def write(connection: Connection) -> CancelAnswer:
            answer = postgres_queries.cancel(connection, task_id, self._clock.wall())
            if answer is CancelAnswer.CANCELLED:
                self._hooks.ended([task_id])
            return answer

        def then(answer: CancelAnswer) -> None:
            if answer is CancelAnswer.CANCELLED:
                self._waiters.ended([task_id])

        return await self._access.write(write, then=then)

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        if not ids:
            return set()
        return await self._access.read(lambda connection: postgres_queries.marked(connection, ids))

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        now = self._clock.wall()
        await self._access.write(lambda connection: queries.note_waiting(connection, reasons, over, now), durable=False)

    async def counts(self) -> list[Counts]:
        return await self._access.read(queries.counts)

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        """Expired ones only, without receipts: the broker has the tasks, and its front door the unknown algorithms."""
        return await self._access.read(
            lambda connection: postgres_queries.expired(connection, self._clock.wall(), limit)
        )

    async def close(self) -> None:
        """Stops listening; waiters go on by themselves until their time is over. Idempotent."""
        await self._notices.close()

    async def _find_ended(self, ids: Sequence[str]) -> list[str]:
        return await self._access.read(lambda connection: postgres_queries.ended(connection, ids))
