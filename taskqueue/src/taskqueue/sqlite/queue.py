"""The queue on SQLite: the task's row is the queue entry."""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.feed import Claimed, LeaseHolder, LeaseTable, PullFeed, Receipt
from taskqueue.replays import MAX_REPLAYS, in_portions
from taskqueue.sql.database import Database, Value
from taskqueue.sql.dead_letters import mark_replayed, revive
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.statements import execute
from taskqueue.sql.store import write_something
from taskqueue.sqlite import queue_statements as statements
from taskqueue.tasks import DeadAnswer, Delivery, NewTask, Published, Reply, Revived
from taskqueue.tokens import EVERYTHING, AuditNote, Reach
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a claimed task stays claimed if its lease is not renewed, and how often leases are renewed."""

    seconds: float = 30.0
    renew_seconds: float = 10.0


class SqliteQueue:
    """See `taskqueue.protocols.TaskQueue`, `Sweeper` and `Replayer`.

    `ack` of a task that the store has not ended drops it: its row becomes `cancelled`, so that it neither comes again
    nor stays `running` for ever.
    """

    def __init__(
        self, database: Database, *, clock: Clock, leases: LeaseTable, waiters: Waiters, times: LeaseTimes
    ) -> None:
        self._database = database
        self._clock = clock
        self._leases = leases
        self._waiters = waiters
        self._times = times
        #: by algorithm: publishing wakes only the feeds concerned
        self._feeds: defaultdict[str, set[PullFeed]] = defaultdict(set)
        self._closed = False
        #: until then, feeds may still claim what a dead owner left running
        self._abandoned_at = clock.steady() + times.seconds
        self._renewer = asyncio.create_task(self._renew_leases(), name="renew leases")

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        if not tasks:
            return []
        if len(tasks) == 1:
            for feed in self._feeds.get(tasks[0].algorithm, ()):
                if feed.is_hungry:
                    return [await self._publish_to(feed, tasks[0], durable)]
        algorithms = {task.algorithm for task in tasks}
        token = _new_token()
        return await self._write(
            lambda connection: statements.publish(connection, tasks, token, self._clock.wall()),
            then=lambda _: self.arrived(algorithms),
            durable=durable,
        )

    async def flush(self) -> None:
        await self._write(write_something)

    async def _publish_to(self, feed: PullFeed, task: NewTask, durable: bool) -> Published:
        """Publishes and claims with one transaction."""
        token = _new_token()

        def write(connection: Connection) -> tuple[Published, int | None]:
            now, until = self._clock.wall(), self._clock.steady() + self._times.seconds
            seq = statements.publish_claimed(connection, task, token, now, until)
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

    async def feed(self, algorithm: str) -> PullFeed:
        if self._closed:
            raise QueueClosed("the queue is closed")
        feed = PullFeed(algorithm, self, self._forget)
        self._feeds[algorithm].add(feed)
        return feed

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        unfinished = [delivery for delivery in deliveries if not self._leases.is_over(delivery)]
        if unfinished:
            values = self._receipts(unfinished)
            dropped = await self._write(lambda connection: execute(connection, statements.DROP, values))
            if dropped:
                _log.warning("%d tasks were acknowledged without an outcome and are cancelled", dropped)
                self._waiters.ended(delivery.id for delivery in unfinished)
        self._leases.settle(deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        now = self._clock.steady()
        values = [
            {**value, "new_attempt": delivery.attempt + 1, "new_available_at": now + max(0.0, delay)}
            for value, delivery, delay in zip(self._receipts(deliveries), deliveries, delay_seconds, strict=True)
            if not self._leases.is_over(delivery)
        ]
        if not values:
            return

        def then(_: int) -> None:
            self._leases.mark_over(deliveries)
            self.arrived({delivery.algorithm for delivery in deliveries})

        await self._write(lambda connection: execute(connection, statements.RETRY, values), then=then)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        values = self._receipts(deliveries)
        if not values:
            return

        def then(_: int) -> None:
            self._leases.settle(deliveries)
            self.arrived({delivery.algorithm for delivery in deliveries})

        try:
            await self._write(
                lambda connection: execute(connection, statements.RELEASE, values), then=then, durable=False
            )
        except QueueUnavailable:
            # Not renewed any more: unless the caller tries again, they come back when their leases end.
            self._leases.settle(deliveries)
            raise

    async def reply(self, replies: Sequence[Reply]) -> None:
        """Drops them: there are no reply queues, and senders ask the gateway for their results."""

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
            claim = {"the_seqs": found, **self._lease(token := _new_token())}
            return _deliveries(connection.execute(statements.CLAIM_THESE, claim).all(), token)

        return await self._write(write, then=lambda found: self._leases.add(found, None), durable=False)

    async def claim(self, algorithm: str, most: int, holder: LeaseHolder) -> Claimed:
        """For this queue's feeds; see `taskqueue.feed.ClaimSource`."""

        def write(connection: Connection) -> Claimed:
            now = self._clock.steady()
            where = {"the_algorithm": algorithm, "the_now": now}
            claim = {**where, "the_most": most, **self._lease(token := _new_token())}
            deliveries = _deliveries(statements.CLAIM.execute(connection, claim).all(), token)
            if len(deliveries) == most:
                return Claimed(deliveries)
            next_at = statements.NEXT_AVAILABLE.execute(connection, where).scalar()
            return Claimed(deliveries, None if next_at is None else max(0.0, next_at - now))

        return await self._write(
            write, then=lambda claimed: self._leases.add(claimed.deliveries, holder), durable=False
        )

    def arrived(self, algorithms: Collection[str]) -> None:
        """Wakes the feeds of these algorithms."""
        for algorithm in algorithms:
            for feed in self._feeds.get(algorithm, ()):
                feed.arrived()

    async def close(self) -> None:
        """Closes the feeds; a waiting `take` raises QueueClosed. What was taken keeps its lease. Idempotent."""
        self._closed = True
        for feed in [feed for feeds in self._feeds.values() for feed in feeds]:
            await feed.close()
        self._renewer.cancel()
        await asyncio.gather(self._renewer, return_exceptions=True)

    def _forget(self, feed: PullFeed) -> None:
        feeds = self._feeds[feed.algorithm]
        feeds.discard(feed)
        if not feeds:
            del self._feeds[feed.algorithm]

    def _lease(self, token: int) -> dict[str, Any]:
        """What a claim writes."""
        return {
            "new_available_at": self._clock.steady() + self._times.seconds,
            "new_receipt": token,
            "new_now": self._clock.wall(),
        }

    async def _replay(self, dead_ids: Sequence[int], reach: Reach, note: AuditNote | None) -> dict[int, DeadAnswer]:
        def write(connection: Connection) -> dict[int, Revived]:
            now = self._clock.wall()
            revived = revive(connection, dead_ids, now, reach, note)
            mark_replayed(connection, [dead_id for dead_id, each in revived.items() if each.task is not None], now)
            return revived

        def then(revived: dict[int, Revived]) -> None:
            self.arrived({each.task.algorithm for each in revived.values() if each.task is not None})

        revived = await self._write(write, then=then)
        return {dead_id: each.answer for dead_id, each in revived.items()}

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._times.renew_seconds)
            until = self._clock.steady() + self._times.seconds
            values = [
                {"the_seq": receipt.seq, "the_receipt": receipt.token, "new_available_at": until}
                for receipt in self._leases.receipts()
            ]
            if not values:
                continue
            try:
                await self._renew(values)
            except QueueUnavailable as error:
                _log.warning("leases could not be renewed: %s", error)

    async def _renew(self, values: list[dict[str, Any]]) -> None:
        await self._write(lambda connection: execute(connection, statements.RENEW, values), durable=False)

    def _receipts(self, deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
        """What finds and fences the rows of these deliveries."""
        now = self._clock.wall()
        return [
            {"the_seq": delivery.receipt.seq, "the_receipt": delivery.receipt.token, "new_now": now}
            for delivery in deliveries
            if isinstance(delivery.receipt, Receipt)
        ]

    async def _write(
        self,
        function: Callable[[Connection], Value],
        *,
        then: Callable[[Value], None] | None = None,
        durable: bool = True,
    ) -> Value:
        return await self._database.write(function, then=then, durable=durable, unavailable=QueueUnavailable)


def _new_token() -> int:
    """A random number that fits a signed 64-bit column."""
    return secrets.randbits(62)


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


def _deliveries(rows: Iterable[AnyRow], token: int) -> list[Delivery]:
    """Oldest first."""
    return [_delivery(row, token) for row in sorted(rows, key=lambda row: row[0])]


def _delivery(row: AnyRow, token: int) -> Delivery:
    seq, task_id, algorithm, payload, digest, attempt, count, expires_at, reply_to, correlation_id, *others = row
    history, placed_attempt = others
    return Delivery(
        id=task_id,
        algorithm=algorithm,
        payload=payload,
        digest=digest,
        attempt=attempt,
        receipt=Receipt(seq, token),
        delivery_count=count - 1,
        expires_at=expires_at,
        reply_to=reply_to,
        correlation_id=correlation_id,
        # A later attempt may be claimed before the failure of the earlier one is recorded.
        is_clear_to_start=attempt == 1 and count == 1 and history is None and placed_attempt is None,
    )
