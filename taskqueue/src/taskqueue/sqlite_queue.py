"""The queue on SQLite: the task's row is the queue entry. One process owns the file."""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from taskqueue.clock import Clock
from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.feed import Claimed, PullFeed
from taskqueue.outstanding import Holder, Outstanding, Receipt
from taskqueue.replays import MOST_REPLAYS_AT_ONCE, in_order, portions
from taskqueue.sql import dead_letters
from taskqueue.sql import queue_statements as statements
from taskqueue.sql.failures import translated
from taskqueue.sql.publishing import publish
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.sweeping import find_unwanted
from taskqueue.sql.writer import Value, Writer
from taskqueue.tasks import DeadAnswer, Delivery, NewTask, Published, Reply, Revived
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leases:
    """How long a claimed task stays claimed when nobody renews it, and how often that is done."""

    seconds: float = 30.0
    renew_seconds: float = 10.0


class SqliteQueue:
    """See `taskqueue.protocols.TaskQueue`.

    `ack` of a task that the store has not ended drops it: its row becomes `cancelled`, so that it neither comes again
    nor stays `running` for ever.
    """

    def __init__(
        self, writer: Writer, *, clock: Clock, outstanding: Outstanding, waiters: Waiters, leases: Leases
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._outstanding = outstanding
        self._waiters = waiters
        self._leases = leases
        #: algorithm → its feeds: whoever publishes wakes these alone
        self._feeds: defaultdict[str, set[PullFeed]] = defaultdict(set)
        self._closed = False
        #: until then, feeds may still take up what a dead owner left running
        self._settled_at = clock.steady() + leases.seconds
        self._renewer = asyncio.create_task(self._renew_leases(), name="renew leases")

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        if not tasks:
            return []
        algorithms = {task.algorithm for task in tasks}
        token = _token()
        return await self._write(
            lambda connection: publish(connection, tasks, token, self._clock.wall()),
            then=lambda _: self.arrived(algorithms),
        )

    async def replay(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        """See `taskqueue.protocols.Replayer`."""
        answers: dict[int, DeadAnswer] = {}
        for portion in portions(dead_ids, MOST_REPLAYS_AT_ONCE):
            revived = await self._replay(portion)
            answers |= {dead_id: each.answer for dead_id, each in revived.items()}
        return in_order(dead_ids, answers)

    async def feed(self, algorithm: str) -> PullFeed:
        if self._closed:
            raise QueueClosed("the queue is closed")
        feed = PullFeed(algorithm, self, self._forget)
        self._feeds[algorithm].add(feed)
        return feed

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        open_ones = [delivery for delivery in deliveries if not self._outstanding.is_over(delivery)]
        if open_ones:
            values = self._held(open_ones, new_now=self._clock.wall())
            dropped = await self._write(lambda connection: _execute(connection, statements.DROP, values))
            if dropped:
                _log.warning("%d tasks were acknowledged without an outcome and are cancelled", dropped)
                self._waiters.ended(delivery.id for delivery in open_ones)
        self._outstanding.settle(deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        now = self._clock.steady()
        values = [
            {
                **value,
                "new_attempt": delivery.attempt + 1,
                "new_available_at": now + max(0.0, delay),
            }
            for value, delivery, delay in zip(
                self._held(deliveries, new_now=self._clock.wall()), deliveries, delay_seconds, strict=True
            )
            if not self._outstanding.is_over(delivery)
        ]
        if not values:
            return

        def then(_: int) -> None:
            self._outstanding.mark_over(deliveries)
            self.arrived({delivery.algorithm for delivery in deliveries})

        await self._write(lambda connection: _execute(connection, statements.RETRY, values), then=then)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        values = self._held(deliveries, new_now=self._clock.wall())
        if not values:
            return

        def then(_: int) -> None:
            self._outstanding.settle(deliveries)
            self.arrived({delivery.algorithm for delivery in deliveries})

        try:
            await self._write(
                lambda connection: _execute(connection, statements.RELEASE, values), then=then, durable=False
            )
        except QueueUnavailable:
            # Not renewed any more: if nobody tries again, they come back when their leases end.
            self._outstanding.settle(deliveries)
            raise

    async def reply(self, replies: Sequence[Reply]) -> None:
        """Nobody can be answered from here; senders ask for their results."""

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        known_names = frozenset(known)

        def write(connection: Connection) -> list[Delivery]:
            now, wall = self._clock.steady(), self._clock.wall()
            abandoned = now >= self._settled_at
            found = find_unwanted(
                connection, known_names, unknown_before, limit, now=now, wall=wall, abandoned_too=abandoned
            )
            if not found:
                return []
            return self._claim(connection, statements.CLAIM_THESE, {"the_seqs": found})

        return await self._write(write, then=lambda found: self._outstanding.add(found, None), durable=False)

    async def claim(self, algorithm: str, most: int, holder: Holder) -> Claimed:
        """For this queue's feeds; see `taskqueue.feed.ClaimSource`."""

        def write(connection: Connection) -> Claimed:
            now = self._clock.steady()
            where = {"the_algorithm": algorithm, "the_now": now}
            deliveries = self._claim(connection, statements.CLAIM, {**where, "the_most": most})
            if len(deliveries) == most:
                return Claimed(deliveries)
            next_at = connection.scalar(statements.NEXT_AVAILABLE, where)
            return Claimed(deliveries, None if next_at is None else max(0.0, next_at - now))

        def then(claimed: Claimed) -> None:
            self._outstanding.add(claimed.deliveries, holder)

        return await self._write(write, then=then, durable=False)

    def arrived(self, algorithms: Collection[str]) -> None:
        """Wakes the feeds of these algorithms."""
        for algorithm in algorithms:
            for feed in self._feeds.get(algorithm, ()):
                feed.arrived()

    async def close(self) -> None:
        """Closes the feeds; whoever waits in `take` gets QueueClosed. What was taken keeps its lease. Idempotent."""
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

    def _claim(self, connection: Connection, statement: Any, where: dict[str, Any]) -> list[Delivery]:
        token = _token()
        lease = {
            "new_available_at": self._clock.steady() + self._leases.seconds,
            "new_receipt": token,
            "new_now": self._clock.wall(),
        }
        rows = connection.execute(statement, {**where, **lease}).all()
        return [_delivery(row, token) for row in sorted(rows, key=_seq)]

    async def _replay(self, dead_ids: Sequence[int]) -> dict[int, Revived]:
        return await self._write(
            lambda connection: dead_letters.replay(connection, dead_ids, self._clock.wall()),
            then=lambda revived: self.arrived({each.task.algorithm for each in revived.values() if each.task}),
        )

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._leases.renew_seconds)
            until = self._clock.steady() + self._leases.seconds
            values = [
                {"the_seq": receipt.seq, "the_receipt": receipt.token, "new_available_at": until}
                for receipt in self._outstanding.leased()
            ]
            if not values:
                continue
            try:
                await self._renew(values)
            except QueueUnavailable as error:
                _log.warning("leases could not be renewed: %s", error)

    async def _renew(self, values: list[dict[str, Any]]) -> None:
        await self._write(lambda connection: _execute(connection, statements.RENEW, values), durable=False)

    def _held(self, deliveries: Sequence[Delivery], **more: Any) -> list[dict[str, Any]]:
        return [
            {"the_seq": delivery.receipt.seq, "the_receipt": delivery.receipt.token, **more}
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
        with translated(QueueUnavailable):
            return await self._writer.run(function, then=then, durable=durable)


def _token() -> int:
    """A random number that fits a signed 64-bit column."""
    return secrets.randbits(62)


def _seq(row: AnyRow) -> int:
    seq: int = row[0]
    return seq


def _delivery(row: AnyRow, token: int) -> Delivery:
    seq, task_id, algorithm, payload, digest, attempt, count, expires_at, reply_to, correlation_id = row
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
    )


def _execute(connection: Connection, statement: Any, values: Any) -> int:
    count: int = connection.execute(statement, values).rowcount
    return count
