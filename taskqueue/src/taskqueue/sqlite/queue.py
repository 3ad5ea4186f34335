"""The queue on SQLite: the task's row is the queue entry."""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.feed import LeaseTable, PullFeed, Receipt
from taskqueue.replays import MAX_REPLAYS, in_portions
from taskqueue.sql.database import Database
from taskqueue.sql.dead_letters import mark_replayed, revive
from taskqueue.sql.groups import Claim, oldest_first
from taskqueue.sql.leases import deliveries
from taskqueue.sql.store import write_something
from taskqueue.sql.table_queue import LeaseTimes, TableQueue, new_token
from taskqueue.sqlite import queue_statements as statements
from taskqueue.sqlite.claims import ClaimInOrder, ClaimInTurn
from taskqueue.tasks import DeadAnswer, Delivery, NewTask, Published, Revived
from taskqueue.tokens import EVERYTHING, AuditNote, Reach
from taskqueue.waiters import Waiters


class SqliteQueue(TableQueue):
    """See `taskqueue.protocols.TaskQueue`, `Sweeper` and `Replayer`."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        leases: LeaseTable,
        waiters: Waiters,
        times: LeaseTimes,
        grouped: Iterable[str] = (),
    ) -> None:
        """`grouped`: the algorithms that have tasks of groups."""
        super().__init__(database, clock=clock, leases=leases, waiters=waiters, times=times)
        # No other has tasks of groups that have not ended: all others are claimed in the order of their arrival.
        self._grouped.update(grouped)
        self._in_turn.update(grouped)
        #: until then, feeds may still claim what a dead owner left running
        self._abandoned_at = clock.steady() + times.seconds

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        if not tasks:
            return []
        if len(tasks) == 1 and not tasks[0].waits_in_store:
            for feed in self._feeds.get(tasks[0].algorithm, ()):
                if feed.is_hungry:
                    return [await self._publish_to(feed, tasks[0], durable)]
        algorithms, token = {task.algorithm for task in tasks}, new_token()

        def then(_: list[Published]) -> None:
            self._note_groups(tasks)
            self.arrived(algorithms)

        return await self._write(
            lambda connection: statements.publish(connection, tasks, token, self._clock.now()),
            then=then,
            durable=durable,
        )

    async def flush(self) -> None:
        await self._write(write_something)

    async def _publish_to(self, feed: PullFeed, task: NewTask, durable: bool) -> Published:
        """Publishes and claims with one transaction."""
        token = new_token()

        def write(connection: Connection) -> tuple[Published, int | None]:
            now = self._clock.now()
            until = now.steady + self._times.seconds
            seq = statements.publish_claimed(connection, task, token, now.wall, until)
            if seq is not None:
                return Published.ACCEPTED, seq
            return statements.publish(connection, [task], token, now)[0], None

        def then(outcome: tuple[Published, int | None]) -> None:
            _, seq = outcome
            if seq is None:
                self.arrived([task.algorithm])
                return
            delivery = _new_delivery(task, Receipt(seq, token))
            # If the feed is closed by now, the task comes back when its lease ends.
            if feed.hand_over(delivery):
                self._leases.add([delivery], feed)

        with feed.expecting():
            published, _ = await self._write(write, then=then, durable=durable)
        return published

    async def replay(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[DeadAnswer]:
        return await in_portions(dead_ids, MAX_REPLAYS, lambda portion: self._replay(portion, reach, note))

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        known_names = frozenset(known)

        def write(connection: Connection) -> list[Delivery]:
            now, wall = self._clock.steady(), self._clock.wall()
            found = statements.find_unwanted(
                connection,
                known_names,
                unknown_before,
                limit,
                now=now,
                wall=wall,
                abandoned_too=now >= self._abandoned_at,
            )
            if not found:
                return []
            claim = {"the_seqs": found, **self._lease(token := new_token(), now)}
            return deliveries(oldest_first(connection.execute(statements.CLAIM_THESE, claim).all()), token)

        return await self._write(write, then=lambda found: self._leases.add(found, None), durable=False)

    def _time(self, connection: Connection) -> float:
        return self._clock.steady()

    def _new_claim(self, connection: Connection, algorithm: str, token: int, slots: int | None) -> Claim:
        now = self._clock.steady()
        kind = ClaimInTurn if algorithm in self._grouped else ClaimInOrder
        return kind(connection, algorithm, now, self._lease(token, now), slots)

    def _note_groups(self, tasks: Iterable[NewTask]) -> None:
        algorithms = {task.algorithm for task in tasks if task.group is not None}
        self._grouped |= algorithms
        self._in_turn |= algorithms

    async def _replay(self, dead_ids: Sequence[int], reach: Reach, note: AuditNote | None) -> dict[int, DeadAnswer]:
        def write(connection: Connection) -> dict[int, Revived]:
            now = self._clock.wall()
            revived = revive(connection, dead_ids, now, reach, note)
            mark_replayed(connection, [dead_id for dead_id, each in revived.items() if each.task is not None], now)
            return revived

        def then(revived: dict[int, Revived]) -> None:
            tasks = [each.task for each in revived.values() if each.task is not None]
            self._note_groups(tasks)
            self.arrived({task.algorithm for task in tasks})

        revived = await self._write(write, then=then)
        return {dead_id: each.answer for dead_id, each in revived.items()}


def _new_delivery(task: NewTask, receipt: Receipt) -> Delivery:
    """The delivery of a task that was published this moment."""
    return Delivery(
        id=task.id,
        algorithm=task.algorithm,
        payload=task.payload,
        digest=task.digest,
        attempt=task.attempt,
        receipt=receipt,
        delivery_count=0,
        expires_at=task.expires_at,
        reply_to=task.reply_to,
        correlation_id=task.correlation_id,
        is_clear_to_start=task.attempt == 1,
    )
