"""A queue whose tasks are rows of the table of tasks: feeds that claim them, leases, settling.

What differs between the databases: how tasks are published, the clock of `available_at`, and how tasks without a group
are claimed.
"""

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
from taskqueue.feed import Claimed, LeaseHolder, LeaseTable, PullFeed, Receipt
from taskqueue.sql import leases as statements
from taskqueue.sql.database import Database, Value
from taskqueue.sql.groups import Claim, Groups
from taskqueue.sql.leases import deliveries
from taskqueue.sql.statements import execute
from taskqueue.tasks import Delivery, Reply
from taskqueue.turns import START
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long a claimed task stays claimed if its lease is not renewed, and how often leases are renewed."""

    seconds: float = 30.0
    renew_seconds: float = 10.0


class TableQueue:
    """See `taskqueue.protocols.TaskQueue`, all but `publish`.

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
        #: the algorithms that have tasks of groups, and those whose groups take turns now: some may not yet be due
        self._grouped: set[str] = set()
        self._in_turn: set[str] = set()
        #: by algorithm: the group whose turn was the last
        self._last_turns: dict[str, str] = {}
        self._closed = False
        self._renewer = asyncio.create_task(self._renew_leases(), name="renew leases")

    def _time(self, connection: Connection) -> float:
        """The clock of `available_at`. Called in the writer's thread."""
        raise NotImplementedError

    def _new_claim(self, connection: Connection, algorithm: str, token: int, slots: int | None) -> Claim:
        raise NotImplementedError

    def has_groups(self, algorithm: str) -> bool:
        return algorithm in self._in_turn

    def takes_turns(self, algorithm: str) -> bool:
        return algorithm in self._in_turn

    async def feed(self, algorithm: str, *, here: asyncio.Event | None = None) -> PullFeed:
        """`here` is set when there is something to take; its owner clears it."""
        if self._closed:
            raise QueueClosed("the queue is closed")
        feed = PullFeed(algorithm, self, self._forget, here)
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
        receipts = zip(self._receipts(deliveries), deliveries, delay_seconds, strict=True)
        due = [
            ({**receipt, "new_attempt": delivery.attempt + 1}, max(0.0, delay))
            for receipt, delivery, delay in receipts
            if not self._leases.is_over(delivery)
        ]
        if not due:
            return

        def write(connection: Connection) -> int:
            now = self._time(connection)
            values = [{**value, "new_available_at": now + delay} for value, delay in due]
            return execute(connection, statements.RETRY, values)

        def then(_: int) -> None:
            self._leases.mark_over(deliveries)
            self.arrived({delivery.algorithm for delivery in deliveries})

        await self._write(write, then=then)

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

    async def claim(self, algorithm: str, most: int, holder: LeaseHolder, group_slots: int | None = None) -> Claimed:
        """For this queue's feeds; see `taskqueue.feed.ClaimSource`."""
        token, last = new_token(), self._last_turns.get(algorithm, START)

        def write(connection: Connection) -> tuple[Claimed, str, Groups | None]:
            claim = self._new_claim(connection, algorithm, token, group_slots)
            taken = claim.take(most, last)
            is_all = len(taken.items) < most
            next_in = claim.next_due_in() if is_all else None
            claimed = Claimed(deliveries(taken.items, token), next_in, taken.held_back)
            return claimed, taken.last, claim.groups(is_all=is_all)

        def then(outcome: tuple[Claimed, str, Groups | None]) -> None:
            claimed, self._last_turns[algorithm], groups = outcome
            if groups is not None:
                (self._grouped.add if groups.are_there else self._grouped.discard)(algorithm)
                (self._in_turn.add if groups.take_turns else self._in_turn.discard)(algorithm)
            self._leases.add(claimed.deliveries, holder)

        claimed, _, _ = await self._write(write, then=then, durable=False)
        return claimed

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

    def _lease(self, token: int, now: float) -> dict[str, Any]:
        """What a claim writes."""
        return {
            "new_available_at": now + self._times.seconds,
            "new_receipt": token,
            "new_now": self._clock.wall(),
        }

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._times.renew_seconds)
            receipts = self._leases.receipts()
            if not receipts:
                continue
            try:
                await self._renew(receipts)
            except QueueUnavailable as error:
                _log.warning("leases could not be renewed: %s", error)

    async def _renew(self, receipts: Sequence[Receipt]) -> None:
        def write(connection: Connection) -> int:
            until = self._time(connection) + self._times.seconds
            values = [
                {"the_seq": receipt.seq, "the_receipt": receipt.token, "new_available_at": until}
                for receipt in sorted(receipts)
            ]
            return execute(connection, statements.RENEW, values)

        await self._write(write, durable=False)

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


def new_token() -> int:
    """A random number that fits a signed 64-bit column."""
    return secrets.randbits(62)
