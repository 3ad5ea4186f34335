"""A broker's queue, and beside it a table for the tasks that it cannot keep: those that take turns or start late."""

import asyncio
from collections.abc import Sequence
from itertools import zip_longest
from typing import Protocol

from taskqueue.feed import Receipt
from taskqueue.protocols import Feed, TaskQueue
from taskqueue.tasks import Delivery, NewTask, Published, Reply


class Lane(Feed, Protocol):
    """One of the feeds that are joined."""

    def take_here(self, most: int) -> list[Delivery]:
        """Like `take`, but without waiting: maybe nothing."""


class LaneQueue(TaskQueue, Protocol):
    """One of the queues that are joined."""

    async def feed(self, algorithm: str, *, here: asyncio.Event | None = None) -> Lane:
        """`here` is set when there is something to take, or the feed is over; its owner clears it."""


class LanedQueue:
    """See `taskqueue.protocols.TaskQueue`; the caller opens and closes both queues.

    Algorithms without groups take the broker's lane alone.
    """

    def __init__(self, broker: LaneQueue, table: LaneQueue) -> None:
        self._broker = broker
        self._table = table

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        if not any(task.waits_in_store for task in tasks):
            return await self._broker.publish(tasks, durable=durable)
        outcomes: dict[int, Published] = {}
        for queue, in_store in ((self._table, True), (self._broker, False)):
            numbers = [number for number, task in enumerate(tasks) if task.waits_in_store is in_store]
            published = await queue.publish([tasks[number] for number in numbers], durable=durable)
            outcomes |= zip(numbers, published, strict=True)
        return [outcomes[number] for number in range(len(tasks))]

    async def flush(self) -> None:
        await self._broker.flush()
        await self._table.flush()

    async def feed(self, algorithm: str) -> "LanedFeed":
        here = asyncio.Event()
        return LanedFeed(
            await self._broker.feed(algorithm, here=here), await self._table.feed(algorithm, here=here), here
        )

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for queue, own in self._by_lane(deliveries):
            await queue.ack(own)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        delays = {id(each): delay for each, delay in zip(deliveries, delay_seconds, strict=True)}
        for queue, own in self._by_lane(deliveries):
            await queue.retry(own, [delays[id(each)] for each in own])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for queue, own in self._by_lane(deliveries):
            await queue.release(own)

    async def reply(self, replies: Sequence[Reply]) -> None:
        await self._broker.reply(replies)

    def _by_lane(self, deliveries: Sequence[Delivery]) -> list[tuple[LaneQueue, Sequence[Delivery]]]:
        claimed = [each for each in deliveries if isinstance(each.receipt, Receipt)]
        if not claimed:
            return [(self._broker, deliveries)]
        others = [each for each in deliveries if not isinstance(each.receipt, Receipt)]
        return [(self._table, claimed), (self._broker, others)] if others else [(self._table, claimed)]


class LanedFeed:
    """Both lanes of one algorithm. See `taskqueue.protocols.Feed`.

    While both have tasks, each gives every other one.
    """

    def __init__(self, broker: Lane, table: Lane, here: asyncio.Event) -> None:
        self._broker = broker
        self._table = table
        self._here = here
        #: the lane that begins
        self._first, self._second = table, broker

    async def set_prefetch(self, count: int, *, in_turn: int | None = None, group_slots: int | None = None) -> None:
        await self._broker.set_prefetch(count)
        await self._table.set_prefetch(count, in_turn=in_turn, group_slots=group_slots)

    async def take(self, most: int) -> list[Delivery]:
        while not (taken := self._take_here(most)):
            self._here.clear()
            await self._here.wait()
        return taken

    def _take_here(self, most: int) -> list[Delivery]:
        if not self._table.waiting():
            # also asked when it is empty: it tells that it is closed
            return self._table.take_here(most) or self._broker.take_here(most)
        first = self._first.take_here(-(-most // 2) if self._second.waiting() else most)
        second = self._second.take_here(most - len(first)) if len(first) < most else []
        self._first, self._second = self._second, self._first
        pairs = zip_longest(first, second)
        return [each for pair in pairs for each in pair if each is not None]

    @property
    def trouble(self) -> str:
        return self._broker.trouble or self._table.trouble

    @property
    def has_groups(self) -> bool:
        return self._table.has_groups

    def waiting(self) -> int:
        return self._broker.waiting() + self._table.waiting()

    async def close(self) -> None:
        await asyncio.gather(self._broker.close(), self._table.close())
