"""The queue on RabbitMQ: one connection to consume, one to publish, because a broker in need blocks publishers only."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from taskqueue.errors import QueueClosed
from taskqueue.rabbitmq.address import BrokerAddress, parse_queue_url
from taskqueue.rabbitmq.codec import new_message, reply_message, retry_message
from taskqueue.rabbitmq.connection import ConnectionPool, Report, RobustConnection, no_report
from taskqueue.rabbitmq.consumer import part_of
from taskqueue.rabbitmq.feed import BrokerFeed, Requeuer
from taskqueue.rabbitmq.ingress import IngressConsumer
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.topology import INGRESS_QUEUE, PublisherTopology, TopologyCache
from taskqueue.rabbitmq.unacked import ack
from taskqueue.tasks import Arrival, Delivery, NewTask, Published, Reply

#: The name under which the ingress queue is reported: not ready until messages flow from it.
INGRESS_PART = part_of(INGRESS_QUEUE)
#: Messages that feeds could not read while nobody consumes from the ingress queue. More stay with the broker until a
#: feed closes.
_MOST_MISFITS = 1000


class RabbitQueue:
    """See `taskqueue.protocols.TaskQueue`. Deduplication is the store's: every task is ACCEPTED.

    A receipt is worth nothing once its channel is gone: its message is delivered again.
    """

    def __init__(self, address: BrokerAddress, *, steps_seconds: Sequence[float], report: Report = no_report) -> None:
        self._steps = sorted(steps_seconds)
        self._report = report
        self._publishing = RobustConnection(address, "publisher", report=report, part="queue")
        self._consuming = RobustConnection(address, "consumer", report=report, part="queue consumer")

        def make_another(number: int) -> RobustConnection:
            return RobustConnection(address, f"consumer {number}", report=report, part=f"queue consumer {number}")

        self._pool = ConnectionPool(self._consuming, make_another)
        self._publisher = Publisher(self._publishing, PublisherTopology(self._publishing, self._steps).declare)
        self._topology = TopologyCache(self._consuming, steps_seconds)
        self._requeuer = Requeuer(self._publisher)
        self._feeds: list[BrokerFeed] = []
        self._ingress: IngressConsumer | None = None
        self._misfits: deque[Arrival] = deque(maxlen=_MOST_MISFITS)
        self._stack = AsyncExitStack()
        self._consumes = False
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._publishing)
        self._stack.push_async_callback(self._consuming.close)
        self._stack.push_async_callback(self.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        """Raises EnvelopeError (`too_large`) for a message that no broker accepts; then none was sent."""
        await self._publisher.publish([new_message(task) for task in tasks])
        return [Published.ACCEPTED] * len(tasks)

    async def flush(self) -> None:
        """Does nothing: what the broker has confirmed is durable."""

    async def feed(self, algorithm: str, *, here: asyncio.Event | None = None) -> BrokerFeed:
        """`here` is set when there is something to take; its owner clears it."""
        await self._connect()
        self._feeds = [feed for feed in self._feeds if not feed.is_over]
        feed = BrokerFeed(
            algorithm,
            self._pool,
            self._report,
            topology=self._topology,
            requeuer=self._requeuer,
            on_misfit=self._on_misfit,
            here=here,
        )
        self._feeds.append(feed)
        return feed

    async def ingress_feed(self) -> IngressConsumer:
        """Starts to consume from the ingress queue; one consumer at a time."""
        await self._connect()
        self._ingress = IngressConsumer(
            self._consuming,
            self._report,
            topology=self._topology,
            publisher=self._publisher,
            misfits=self._misfits,
        )
        self._misfits.clear()
        return self._ingress

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        ack(delivery.receipt for delivery in deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        """Also for stale receipts: the store may know of the next attempt already, and would drop this one."""
        pairs = zip(deliveries, delay_seconds, strict=True)
        await self._publisher.publish([retry_message(delivery, self._step_for(delay)) for delivery, delay in pairs])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._requeuer.release(deliveries)

    async def reply(self, replies: Sequence[Reply]) -> None:
        await self._publisher.publish([reply_message(reply) for reply in replies])

    async def close(self) -> None:
        """Closes consumers and publisher; whoever waits in `take` gets QueueClosed. Idempotent."""
        self._closed = True
        consumers: list[BrokerFeed | IngressConsumer] = [*self._feeds, *([self._ingress] if self._ingress else [])]
        await asyncio.gather(*(consumer.close() for consumer in consumers))
        await asyncio.gather(*(consumer.abandon() for consumer in consumers))
        await self._publisher.close()
        await self._pool.close()

    async def _connect(self) -> None:
        """Connects to consume, if nothing has been consumed before: a process that only publishes never does."""
        if self._closed:
            raise QueueClosed("the queue is closed")
        if not self._consumes:
            self._consumes = True
            await self._consuming.__aenter__()

    def _step_for(self, delay: float) -> float:
        """The shortest step that is long enough, else the longest."""
        return next((step for step in self._steps if step >= delay), self._steps[-1])

    def _on_misfit(self, arrival: Arrival) -> None:
        if self._ingress is not None and not self._ingress.is_closing:
            self._ingress.misfit(arrival)
        else:
            self._misfits.append(arrival)


@asynccontextmanager
async def open_rabbitmq(
    url: str, *, retry_steps_seconds: Sequence[float], report: Report = no_report
) -> AsyncIterator[RabbitQueue]:
    """A queue on the broker at `url` until the end of the block. Does not wait for the broker.

    Parameters:
        retry_steps_seconds: the delays before another attempt; `retry` takes the shortest that is long enough.
        report: `report(part, ready, reason)` is called for the connections and for what cannot consume.

    Raises:
        UnsuitableAddress: the message says what is wrong with the URL.
    """
    async with RabbitQueue(parse_queue_url(url), steps_seconds=retry_steps_seconds, report=report) as queue:
        yield queue
