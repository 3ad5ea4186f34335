"""The queue in memory."""

import secrets
from collections.abc import Collection, Sequence

from runnerlib.contract import TaskState
from taskqueue.errors import QueueClosed
from taskqueue.feed import Claimed, LeaseHolder, PullFeed, Receipt
from taskqueue.memory.dead_letters import replay
from taskqueue.memory.tables import WAITING, Entry, Tables, new_row
from taskqueue.tasks import DeadAnswer, Delivery, NewTask, Published, Reply


class MemoryQueue:
    """See `taskqueue.protocols.TaskQueue`; `ack` without an outcome cancels the task. There are no leases to expire."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._closed = False

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        verdicts = [self._publish(task) for task in tasks]
        self._tables.arrived({task.algorithm for task in tasks})
        return verdicts

    async def replay(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        """See `taskqueue.protocols.Replayer`."""
        answers = [replay(self._tables, dead_id) for dead_id in dead_ids]
        self._tables.arrived({entry.row.algorithm for entry in self._tables.entries.values() if not entry.ended})
        return answers

    async def feed(self, algorithm: str) -> PullFeed:
        if self._closed:
            raise QueueClosed("the queue is closed")
        feed = PullFeed(algorithm, self, self._tables.feeds.discard)
        self._tables.feeds.add(feed)
        return feed

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for entry in self._held(deliveries):
            self._tables.end(entry, TaskState.CANCELLED)
        self._tables.outstanding.settle(deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        now = self._tables.clock.steady()
        for delivery, delay in zip(deliveries, delay_seconds, strict=True):
            for entry in self._held([delivery]):
                self._tables.next_attempt(entry, delivery.attempt + 1, now + delay)
        self._tables.outstanding.mark_over(deliveries)
        self._tables.arrived({delivery.algorithm for delivery in deliveries})

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for entry in self._held(deliveries):
            taken_back = entry.row.state is TaskState.RUNNING and entry.row.placement is None
            self._tables.change(entry, state=TaskState.QUEUED if taken_back else entry.row.state)
            entry.available_at, entry.token = 0.0, None
            entry.delivery_count -= 1
        self._tables.outstanding.settle(deliveries)
        self._tables.arrived({delivery.algorithm for delivery in deliveries})

    async def reply(self, replies: Sequence[Reply]) -> None:
        """Nobody can be answered from here; senders ask for their results."""

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        wall = self._tables.clock.wall()

        def unwanted(entry: Entry) -> bool:
            row = entry.row
            expired = row.expires_at is not None and row.expires_at <= wall and row.state in WAITING
            return expired or (row.algorithm not in known and entry.waits_since < unknown_before)

        free = [entry for entry in self._tables.entries.values() if not entry.ended and entry.token is None]
        deliveries = [self._claim(entry) for entry in [entry for entry in free if unwanted(entry)][:limit]]
        self._tables.outstanding.add(deliveries, None)
        return deliveries

    async def claim(self, algorithm: str, most: int, holder: LeaseHolder) -> Claimed:
        """For this queue's feeds; see `taskqueue.feed.ClaimSource`."""
        now = self._tables.clock.steady()
        free = [
            entry
            for entry in self._tables.entries.values()
            if entry.row.algorithm == algorithm and not entry.ended and entry.token is None
        ]
        ready = sorted((e for e in free if e.available_at is not None and e.available_at <= now), key=lambda e: e.seq)
        deliveries = [self._claim(entry) for entry in ready[:most]]
        self._tables.outstanding.add(deliveries, holder)
        later = [e.available_at for e in free if e.available_at is not None and e.available_at > now]
        return Claimed(deliveries, min(later) - now if later else None)

    async def close(self) -> None:
        """Closes the feeds; whoever waits in `take` gets QueueClosed. Idempotent."""
        self._closed = True
        for feed in list(self._tables.feeds):
            await feed.close()

    def _publish(self, task: NewTask) -> Published:
        known = self._tables.entries.get(task.id)
        if known is None:
            now = self._tables.clock.wall()
            row = new_row(task, TaskState.QUEUED, task.attempt, now)
            self._tables.entries[task.id] = Entry(next(self._tables.sequence), row)
            return Published.ACCEPTED
        if not known.row.digest:
            content = {"algorithm": task.algorithm, "payload": task.payload, "digest": task.digest}
            self._tables.change(known, **content)
        return Published.DUPLICATE if known.row.digest == task.digest else Published.CONFLICT

    def _claim(self, entry: Entry) -> Delivery:
        entry.token = secrets.randbits(62)
        entry.delivery_count += 1
        row = entry.row
        return Delivery(
            id=row.id,
            algorithm=row.algorithm,
            payload=row.payload,
            digest=row.digest,
            attempt=row.attempt,
            receipt=Receipt(entry.seq, entry.token),
            delivery_count=entry.delivery_count - 1,
            expires_at=row.expires_at,
            reply_to=row.reply_to,
            correlation_id=row.correlation_id,
        )

    def _held(self, deliveries: Sequence[Delivery]) -> list[Entry]:
        """The entries that these deliveries' receipts still hold."""
        entries = [(self._tables.entries.get(delivery.id), delivery) for delivery in deliveries]
        return [e for e, d in entries if e is not None and not e.ended and d.receipt == Receipt(e.seq, e.token or 0)]
