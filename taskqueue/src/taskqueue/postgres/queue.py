"""Tasks that wait in PostgreSQL, for their group's turn or for their time, beside those that a broker has.

Any number of controllers claim them: each passes over rows that another is about to claim.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import Connection, bindparam, column, exists, func, select

from taskqueue.clock import Clock
from taskqueue.errors import StoreUnavailable
from taskqueue.feed import LeaseTable
from taskqueue.postgres.bulk import IdArray
from taskqueue.postgres.engine import Parameters
from taskqueue.postgres.notifications import ARRIVED, POLL_SECONDS, Listener
from taskqueue.sql.database import Database
from taskqueue.sql.groups import Claim
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.statements import IN_TURN
from taskqueue.sql.table_queue import LeaseTimes, TableQueue
from taskqueue.sql.tables import NO_GROUP, tasks
from taskqueue.tasks import NewTask, Published
from taskqueue.turns import Taken
from taskqueue.waiters import Waiters

#: The server's: controllers' clocks may differ, and leases must not.
TIME = select(func.extract("epoch", func.clock_timestamp()))
#: While it is held, nobody else counts what is out of the groups of this algorithm. It is never waited for: the same
#: transaction has the work of others, too.
TRY_LOCK_GROUPS = select(func.pg_try_advisory_xact_lock(func.hashtext(bindparam("the_algorithm"))))
#: When another holds it.
BUSY_SECONDS = 0.02
_name = func.unnest(bindparam("the_names", type_=IdArray())).table_valued(column("name"), name="names")
_of_name = (tasks.c.algorithm == _name.c.name) & tasks.c.task_group.is_not(None)
_now = func.extract("epoch", func.clock_timestamp())
#: Those of the algorithms that have tasks whose turn may have come.
WITH_TASKS = select(_name.c.name).where(
    exists().where(_of_name & (tasks.c.available_at == IN_TURN))
    | exists().where(_of_name & (tasks.c.available_at > 0) & (tasks.c.available_at <= _now))
)


class ClaimBesideOthers(Claim):
    """See `taskqueue.sql.groups.Claim`."""

    _is_busy = False

    def take(self, most: int, last: str) -> Taken[AnyRow]:
        if self._slots is not None and not self._connection.scalar(TRY_LOCK_GROUPS, self._where):
            self._is_busy = True
            return Taken(last=last, held_back=True)
        return super().take(most, last)

    def next_due_in(self) -> float | None:
        return BUSY_SECONDS if self._is_busy else super().next_due_in()


class PostgresQueue(TableQueue):
    """See `taskqueue.protocols.TaskQueue`. `PostgresStore.open_queue` makes it."""

    def __init__(
        self,
        database: Database,
        parameters: Parameters,
        admit: Callable[[Sequence[NewTask]], Awaitable[list[Published]]],
        *,
        clock: Clock,
        leases: LeaseTable,
        waiters: Waiters,
        times: LeaseTimes,
    ) -> None:
        super().__init__(database, clock=clock, leases=leases, waiters=waiters, times=times)
        self._admit = admit
        self._listener = Listener(parameters, ARRIVED, self.arrived, self._look)
        self._listener.start()
        self._looking = asyncio.create_task(self._look_around(), name="look for tasks in turn")

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        return await self._admit([replace(task, group=task.group or NO_GROUP) for task in tasks])

    async def flush(self) -> None:
        """Does nothing: what is committed here is durable."""

    async def close(self) -> None:
        await self._listener.close()
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        await super().close()

    def takes_turns(self, algorithm: str) -> bool:
        """Always: only tasks that take turns or are late are here."""
        return True

    def _time(self, connection: Connection) -> float:
        return float(connection.scalar(TIME) or 0.0)

    def _new_claim(self, connection: Connection, algorithm: str, token: int, slots: int | None) -> Claim:
        now = self._time(connection)
        return ClaimBesideOthers(connection, algorithm, now, self._lease(token, now), slots)

    async def _look_around(self) -> None:
        """For ever: notifications may be lost, and what is late tells nobody when its time comes elsewhere."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        names = list(self._feeds)
        if names:
            with suppress(StoreUnavailable):
                self.arrived(
                    await self._database.read(
                        lambda connection: list(connection.scalars(WITH_TASKS, {"the_names": names}))
                    )
                )
