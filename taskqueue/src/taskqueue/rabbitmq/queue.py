"""The queue on RabbitMQ: one connection to consume, one to publish, because a broker in need blocks publishers only."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from taskqueue.errors import QueueClosed
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.connection import ConnectionPool, Report, RobustConnection, no_report
from taskqueue.rabbitmq.declared import Declared
from taskqueue.rabbitmq.door import Door
from taskqueue.rabbitmq.feed import BrokerFeed
from taskqueue.rabbitmq.giving_back import GivingBack
from taskqueue.rabbitmq.keeping import Keeper, part_of
from taskqueue.rabbitmq.messages import new_message, reply_message, retry_message
from taskqueue.rabbitmq.names import FRONT_DOOR, algorithm_queue
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.receipts import by_hold
from taskqueue.rabbitmq.releases import Releases
from taskqueue.rabbitmq.topology import declare_topology
from taskqueue.tasks import Arrival, Delivery, NewTask, Published, Reply

#: What health calls the front door: unready until messages flow from it.
DOOR_PART = part_of(FRONT_DOOR)
#: What feeds could not read while there is no front door; beyond that it stays with the broker until a feed closes.
_MOST_MISFITS = 1000


class RabbitQueue:
    """See `taskqueue.protocols.TaskQueue`. Deduplication is the store's: every task is ACCEPTED.

    A receipt is worth nothing once its channel is gone: its message is handed out again.
    """

    def __init__(
        self,
        consuming: RobustConnection,
        publishing: RobustConnection,
        *,
        steps_seconds: Sequence[float],
        further: Callable[[int], RobustConnection],
        report: Report = no_report,
    ) -> None:
        """`further(number)` makes another connection to consume by, when the first has no free channel."""
        self._consuming = consuming
        self._links = ConnectionPool(consuming, further)
        self._steps = sorted(steps_seconds)
        self._report = report
        self._publisher = Publisher(publishing, self._prepare)
        self._declared = Declared(consuming, steps_seconds)
        self._releases = Releases()
        self._giving_back = GivingBack(self._publisher, self._releases)
        self._feeds: list[BrokerFeed] = []
        self._door: Door | None = None
        self._misfits: deque[Arrival] = deque(maxlen=_MOST_MISFITS)
        self._connecting = asyncio.Lock()
        self._connected = False
        self._closed = False

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        """Raises EnvelopeError (`too_large`) for a message that no broker takes; then none was sent."""
        if tasks:
            await self._publisher.publish([new_message(task) for task in tasks])
        return [Published.ACCEPTED] * len(tasks)

    async def feed(self, algorithm: str) -> BrokerFeed:
        await self._connect()
        self._feeds = [feed for feed in self._feeds if not feed.is_over]
        feed = BrokerFeed(
            algorithm,
            keeper=Keeper(self._links, algorithm_queue(algorithm), self._report),
            declared=self._declared,
            releases=self._releases,
            release=self._giving_back.release,
            on_misfit=self._on_misfit,
            wall=time.time,
        )
        self._feeds.append(feed)
        return feed

    async def front_door(self) -> Door:
        """Opens the front door; one at a time."""
        await self._connect()
        misfits = list(self._misfits)
        self._misfits.clear()
        self._door = Door(
            # The broker drops what strangers send before the queue is there.
            keeper=Keeper(self._consuming, FRONT_DOOR, self._report, awaited=True),
            declared=self._declared,
            open_channel=self._consuming.channel,
            publisher=self._publisher,
            misfits=misfits,
            wall=time.time,
        )
        return self._door

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for hold, tags in by_hold(delivery.receipt for delivery in deliveries).items():
            hold.ack(tags)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        """Also for stale receipts: the store may know of the next attempt already, and would drop this one."""
        pairs = zip(deliveries, delay_seconds, strict=True)
        messages = [retry_message(delivery, self._step(delay)) for delivery, delay in pairs]
        if messages:
            await self._publisher.publish(messages)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._giving_back.release(deliveries)

    async def reply(self, replies: Sequence[Reply]) -> None:
        if replies:
            await self._publisher.publish([reply_message(reply) for reply in replies])

    async def close(self) -> None:
        """Closes feeds, door and publisher; whoever waits in `take` gets QueueClosed. Idempotent."""
        self._closed = True
        parts: list[BrokerFeed | Door] = [*self._feeds, *([self._door] if self._door else [])]
        await asyncio.gather(*(part.close() for part in parts))
        await asyncio.gather(*(part.abandon() for part in parts))
        await self._publisher.close()
        await self._links.close()

    async def _connect(self) -> None:
        """A process that only publishes has no connection to consume by."""
        if self._closed:
            raise QueueClosed("the queue is closed")
        async with self._connecting:
            if not self._connected:
                await self._consuming.__aenter__()
                self._connected = True

    async def _prepare(self, channel: Channel) -> None:
        await declare_topology(channel, steps_seconds=self._steps)

    def _step(self, delay: float) -> float:
        """The shortest step that is long enough, else the longest."""
        return next((step for step in self._steps if step >= delay), self._steps[-1])

    def _on_misfit(self, arrival: Arrival) -> None:
        if self._door is not None and not self._door.is_closing:
            self._door.misfit(arrival)
        else:
            self._misfits.append(arrival)


@asynccontextmanager
async def open_rabbitmq(
    url: str, *, retry_steps_seconds: Sequence[float], report: Report = no_report
) -> AsyncIterator[RabbitQueue]:
    """A queue on the broker at `url` until the end of the block. Does not wait for the broker.

    `report(part, ready, reason)` hears of the connections and of what cannot consume. Raises UnsuitableAddress, whose
    message says what is wrong with the URL.
    """
    address = parse_queue_url(url)
    async with AsyncExitStack() as stack:
        publishing = await stack.enter_async_context(
            RobustConnection(address, "publisher", report=report, part="queue")
        )
        consuming = RobustConnection(address, "consumer", report=report, part="queue consumer")
        stack.push_async_callback(consuming.close)

        def further(number: int) -> RobustConnection:
            return RobustConnection(address, f"consumer {number}", report=report, part=f"queue consumer {number}")

        queue = RabbitQueue(consuming, publishing, steps_seconds=retry_steps_seconds, further=further, report=report)
        stack.push_async_callback(queue.close)
        yield queue
