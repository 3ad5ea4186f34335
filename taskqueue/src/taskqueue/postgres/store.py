"""The task store on PostgreSQL, shared by any number of controllers and gateways.

An outcome is one statement for all records of a call, in the order of their ids, so that two processes never wait for
one another: whichever comes second finds the fence closed.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from runnerlib.contract import TaskState
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.clock import Clock, Now
from taskqueue.feed import LeaseTable
from taskqueue.messages import clean, clean_or_none
from taskqueue.postgres.batch_loader import BatchLoader
from taskqueue.postgres.bulk import (
    ADMIT,
    ADMIT_IN_TURN,
    INSERT_DEAD_LETTERS,
    PLACE,
    RECORD,
    UNUSUAL,
    IdArray,
)
from taskqueue.postgres.engine import Parameters
from taskqueue.postgres.notifications import EndListener
from taskqueue.postgres.queue import PostgresQueue
from taskqueue.postgres.writer import PostgresHooks
from taskqueue.sql import dead_letters
from taskqueue.sql.database import Database
from taskqueue.sql.recording import (
    Outcome,
    dead_letter_values,
    ended_ids,
    explain_retry,
    outcome_values,
    with_history,
    without_repetition,
)
from taskqueue.sql.rows import group_name
from taskqueue.sql.statements import EXPLAIN, WAITS_SINCE, IdStatements, fill_tombstones
from taskqueue.sql.store import SqlStore
from taskqueue.sql.table_queue import LeaseTimes
from taskqueue.sql.tables import NO_GROUP, tasks
from taskqueue.tasks import (
    Conflicting,
    Delivery,
    Failed,
    Identity,
    NewTask,
    Placement,
    Published,
    Record,
    Retrying,
    Revived,
    TaskRow,
    publish_results,
)
from taskqueue.tokens import EVERYTHING, AuditNote, OwnerSeal, Reach
from taskqueue.waiters import Waiters

#: Of a message that a broker accepts; the rest is for its algorithm and the JSON around it.
_MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - 256
#: Of the column; a message of an unknown sender may name an algorithm that cannot exist.
_MAX_ALGORITHM_CHARACTERS = 63
#: A run that began in time is placed within so many seconds; until then its task does not count as expired.
EXPIRED_SINCE_SECONDS = 5.0

_these = tasks.c.id == func.any(bindparam("the_ids", type_=IdArray()))
BY_IDS = IdStatements(_these, list)
_waits_in_turn = tasks.c.task_group.is_not(None) & tasks.c.available_at.is_not(None)
ENDED = select(tasks.c.id).where(_these & tasks.c.finished_at.is_not(None))
IDENTITIES = select(tasks.c.id, tasks.c.digest, tasks.c.submitted_by).where(_these)
#: Waiting, and expired for a while.
_SWEPT = (
    tasks.c.id,
    tasks.c.algorithm,
    tasks.c.payload,
    tasks.c.digest,
    tasks.c.attempt,
    tasks.c.expires_at,
    tasks.c.reply_to,
    tasks.c.correlation_id,
    tasks.c.task_group,
)
EXPIRED = (
    select(*_SWEPT)
    .where(
        (tasks.c.expires_at < bindparam("the_wall"))
        & tasks.c.available_at.is_not(None)
        & tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value))
    )
    .order_by(tasks.c.expires_at)
    .limit(bindparam("the_most"))
)
#: Of an algorithm that nobody offers; what a broker has is looked after by its ingress.
#: Looks at the oldest few only: if these came too lately, so did all behind them.
_oldest = (
    select(tasks.c.seq)
    .where(_waits_in_turn & (tasks.c.algorithm == bindparam("the_algorithm")))
    .order_by(tasks.c.available_at, tasks.c.task_group, tasks.c.seq)
    .limit(bindparam("the_most"))
)
UNCLAIMED = select(*_SWEPT).where(
    tasks.c.seq.in_(_oldest) & (bindparam("the_waiting_before") > WAITS_SINCE) & (tasks.c.delivery_count == 0)
)
#: One step of a walk over the algorithms that have tasks here that wait for their turn.
NEXT_IN_TURN = select(func.min(tasks.c.algorithm)).where(
    _waits_in_turn & (tasks.c.algorithm > bindparam("the_algorithm"))
)


class PostgresStore(SqlStore):
    """See `taskqueue.protocols`: TaskStore, and for a broker's tasks Ledger and Sweeper."""

    def __init__(
        self, database: Database, hooks: PostgresHooks, parameters: Parameters, clock: Clock, seals: OwnerSeal
    ) -> None:
        """`hooks` are those of the writer of `database`."""
        super().__init__(database, BY_IDS, clock, Waiters())
        #: what the queue that claims rows here has claimed
        self._leases = LeaseTable()
        self._hooks = hooks
        self._parameters = parameters
        self._seals = seals
        self._loader = BatchLoader(self.lookup)
        self._listener = EndListener(parameters, self._waiters, self._find_ended)

    async def get(self, task_id: str) -> TaskRow | None:
        return await self._loader.get(task_id)

    async def rows_that_forbid_start(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        if not deliveries:
            return {}
        rows = [(each.id, each.attempt, each.digest) for each in deliveries]

        def read(connection: Connection) -> dict[str, TaskRow]:
            found = UNUSUAL.execute(connection, rows)
            return BY_IDS.read_tasks(connection, list(found)) if found else {}

        return await self._database.read(read)

    async def record(self, records: Sequence[Record]) -> list[bool]:
        if not records:
            return []
        if any(each.delivery.seal is not None for each in records):
            records = [replace(each, delivery=self._with_owner(each.delivery)) for each in records]

        def write(connection: Connection) -> list[bool]:
            written = _write_records(connection, records, self._clock.now())
            self._announce(ended_ids(records, written))
            return written

        def then(written: list[bool]) -> None:
            if self._leases:
                self._leases.mark_over(each.delivery for each, done in zip(records, written, strict=True) if done)
            self._waiters.ended(ended_ids(records, written))

        return await self._database.write(write, then=then)

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        if placements:
            owned = [(self._with_owner(delivery), placement) for delivery, placement in placements]
            await self._database.write(lambda connection: _place(connection, owned, self._clock.wall()))

    async def admit(self, tasks: Sequence[NewTask]) -> list[Published]:
        if not tasks:
            return []

        def write(connection: Connection) -> list[Published]:
            published = _admit(connection, tasks, self._clock.wall())
            self._hooks.arrived(task.algorithm for task in tasks if task.waits_in_store)
            return published

        return await self._database.write(write)

    def sealed(self, task: NewTask) -> NewTask:
        owner = task.submitted_by
        return task if owner is None else replace(task, seal=self._seals.make(task.id, task.digest, owner))

    def _with_owner(self, delivery: Delivery) -> Delivery:
        """With the owner that its seal proves; the store alone can tell."""
        if delivery.seal is None:
            return delivery
        return replace(delivery, submitted_by=self._seals.owner(delivery.seal, delivery.id, delivery.digest))

    async def revive(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[Revived]:
        if not dead_ids:
            return []

        def write(connection: Connection) -> dict[int, Revived]:
            now = self._clock.wall()
            limit = _MAX_PAYLOAD_BYTES
            revived = dead_letters.revive(connection, dead_ids, now, reach, note, max_payload_bytes=limit)
            tasks = [each.task for each in revived.values() if each.task is not None]
            self._hooks.arrived(task.algorithm for task in tasks if task.waits_in_store)
            return revived

        revived = await self._database.write(write)
        return [revived[dead_id] for dead_id in dead_ids]

    async def mark_replayed(self, dead_ids: Sequence[int]) -> None:
        if dead_ids:
            await self._database.write(
                lambda connection: dead_letters.mark_replayed(connection, dead_ids, self._clock.wall())
            )

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        """Without receipts: nobody has claimed them, or the broker has their messages.

        Of those that the broker has only the expired ones: its ingress looks after unknown algorithms.
        """

        def read(connection: Connection) -> list[Delivery]:
            where = {"the_wall": self._clock.wall() - EXPIRED_SINCE_SECONDS, "the_most": limit}
            found = list(connection.execute(EXPIRED, where).mappings())
            ids = {row["id"] for row in found}
            for name in _algorithms_in_turn(connection):
                if name not in known and len(found) < limit:
                    of = {"the_algorithm": name, "the_waiting_before": unknown_before, "the_most": limit}
                    found += [row for row in connection.execute(UNCLAIMED, of).mappings() if row["id"] not in ids]
            return [_swept(row) for row in found[:limit]]

        return await self._database.read(read)

    @asynccontextmanager
    async def open_queue(self, times: LeaseTimes | None = None) -> AsyncIterator[PostgresQueue]:
        """The queue of the tasks that wait here until the end of the block; at most one of a store."""
        queue = PostgresQueue(
            self._database,
            self._parameters,
            self.admit,
            clock=self._clock,
            leases=self._leases,
            waiters=self._waiters,
            times=times or LeaseTimes(),
        )
        try:
            yield queue
        finally:
            await queue.close()

    async def close(self) -> None:
        """Stops listening; waiters wait until their time is over. Idempotent."""
        await self._listener.close()

    def _listen(self) -> None:
        self._listener.start()

    def _announce(self, ids: Sequence[str]) -> None:
        self._hooks.ended(ids)

    async def _find_ended(self, ids: Sequence[str]) -> list[str]:
        return await self._database.read(lambda connection: list(connection.scalars(ENDED, {"the_ids": ids})))


def _write_records(connection: Connection, records: Sequence[Record], now: Now) -> list[bool]:
    """True for each record that was written."""
    results: list[bool] = []
    for group in without_repetition(records):
        outcomes = [each for each in group if not isinstance(each, Conflicting)]
        written = _write_outcomes(connection, outcomes, now) if outcomes else {}
        letters: list[Failed | Conflicting] = [each for each in written.values() if isinstance(each, Failed)]
        letters += [each for each in group if isinstance(each, Conflicting)]
        if letters:
            rows = [_dead_letter_row(each, now) for each in letters]
            INSERT_DEAD_LETTERS.execute(connection, rows)
        results.extend(isinstance(each, Conflicting) or each.delivery.id in written for each in group)
    return results


def _write_outcomes(connection: Connection, records: Sequence[Outcome], now: Now) -> dict[str, Outcome]:
    """Those that the fence let through, by id, with their histories."""
    if any(isinstance(each, Failed | Retrying) and not each.history for each in records):
        known = BY_IDS.lock_known(connection, [record.delivery.id for record in records])
        records = [with_history(each, known.get(each.delivery.id), now) for each in records]
    records = sorted(records, key=lambda record: record.delivery.id)
    rows = [_task_values(each.delivery) + outcome_values(each, lambda at: max(now.wall, at)) for each in records]
    done = RECORD.execute(connection, rows, now=now.wall)
    written = {record.delivery.id: record for record in records if record.delivery.id in done}
    late = [each for each in records if isinstance(each, Retrying) and each.delivery.id not in done]
    return written | _explain(connection, late, now)


def _explain(connection: Connection, late: Sequence[Retrying], now: Now) -> dict[str, Outcome]:
    """Writes the reasons of retries whose next attempt the row has reached already."""
    explained: dict[str, Outcome] = {}
    if late:
        known = BY_IDS.lock_known(connection, [record.delivery.id for record in late])
        for record in late:
            row = known.get(record.delivery.id)
            explanation = None if row is None else explain_retry(record, row, now)
            if explanation is not None:
                connection.execute(EXPLAIN, explanation)
                explained[record.delivery.id] = record
    return explained


def _place(connection: Connection, placements: Sequence[tuple[Delivery, Placement]], now: float) -> None:
    """Marks runs as running; inserts the rows that are missing."""
    latest = {placement.id: (delivery, placement) for delivery, placement in placements}
    rows = [
        (*_task_values(delivery), placement.attempt, clean(placement.runner), clean(placement.boot))
        for _, (delivery, placement) in sorted(latest.items(), key=itemgetter(0))
    ]
    PLACE.execute(connection, rows, now=now)


def _admit(connection: Connection, new: Sequence[NewTask], now: float) -> list[Published]:
    first = {task.id: task for task in reversed(new)}
    in_order = [task for _, task in sorted(first.items(), key=itemgetter(0))]
    rows = [_task_values(task) for task in in_order if not task.waits_in_store]
    inserted = ADMIT.execute(connection, rows, now=now)
    rows = [(*_task_values(task), task.group or NO_GROUP, task.not_before) for task in in_order if task.waits_in_store]
    inserted |= ADMIT_IN_TURN.execute(connection, rows, now=now)
    known = {task_id: task.identity for task_id, task in first.items()}
    if len(inserted) < len(first):
        known |= _known_identities(connection, [task for task in first.values() if task.id not in inserted], now)
    return publish_results(new, known, inserted)


def _known_identities(connection: Connection, arrived: Sequence[NewTask], now: float) -> dict[str, Identity]:
    """By id; a tombstone is given the content of its task first."""
    found = connection.execute(IDENTITIES, {"the_ids": [task.id for task in arrived]})
    known: dict[str, Identity] = {task_id: (digest, submitted_by) for task_id, digest, submitted_by in found}
    fill_tombstones(connection, arrived, known, now)
    return known


def _swept(row: RowMapping) -> Delivery:
    values = dict(row)
    group = group_name(values.pop("task_group"))
    return Delivery(**values, group=group, receipt=None)


def _algorithms_in_turn(connection: Connection) -> Iterator[str]:
    algorithm = ""
    while (name := connection.scalar(NEXT_IN_TURN, {"the_algorithm": algorithm})) is not None:
        algorithm = name
        yield name


def _task_values(task: NewTask | Delivery) -> tuple[Any, ...]:
    """The columns of a task with which each statement of `bulk` begins."""
    return (
        task.id,
        clean(task.algorithm)[:_MAX_ALGORITHM_CHARACTERS],
        task.payload,
        task.digest,
        task.expires_at,
        clean_or_none(task.reply_to),
        clean_or_none(task.correlation_id),
        task.submitted_by,
    )


def _dead_letter_row(record: Failed | Conflicting, now: Now) -> tuple[Any, ...]:
    values = dead_letter_values(record, now)
    values["algorithm"] = clean(values["algorithm"])[:_MAX_ALGORITHM_CHARACTERS]
    values["digest"] = record.delivery.digest
    return tuple(values[name] for name in INSERT_DEAD_LETTERS.columns)
