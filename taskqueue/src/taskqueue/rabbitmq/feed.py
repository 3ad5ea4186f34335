"""The tasks of one algorithm, consumed from its queue on a channel of its own, with a prefetch that may change."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.codec import read_arrival, read_delivery, renewed_message
from taskqueue.rabbitmq.connection import ConnectionPool, Report
from taskqueue.rabbitmq.consumer import ANSWER_SECONDS, QUIET_SECONDS, Consumer
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.topology import TopologyCache, algorithm_queue
from taskqueue.rabbitmq.unacked import Receipt, ReturnCounter, UnackedDeliveries, ack, nack
from taskqueue.tasks import Arrival, Delivery

_log = logging.getLogger(__name__)

#: Not more than this waits in one feed, whatever the prefetch.
MOST_BYTES = 64 * 1024 * 1024
#: AMQP's limit of one consumer's prefetch.
MOST_MESSAGES = 65_535
#: A chase after the messages of former consumers tunes at most this often.
TUNE_AGAIN_SECONDS = 0.2
#: ... and while tasks pass quickly, at most this often, and for no less than a quarter more or less.
TUNE_FAST_SECONDS = 1.0
_WORTH_IT = 4
#: A prefetch that should be so many times as large does not wait for that: a consumer that starts learns in a few calls
#: how quickly its tasks pass.
_FAR_TOO_SMALL = 4
#: Turnover below this is slow, however few messages are out.
FAST_A_SECOND = 50
#: The mean size is over about so many messages.
_SIZE_SPAN = 200
#: A message that the broker has counted so often is published anew when it is returned, to keep the broker's count low.
RENEW_AT = 2
#: What cannot be published anew in this time is returned to the head of its queue all the same.
_RENEW_SECONDS = 2.0


class BrokerFeed(Consumer[Delivery]):
    """See `taskqueue.protocols.Feed`. A message that is no task of this algorithm is passed to `on_misfit`."""

    def __init__(
        self,
        algorithm: str,
        pool: ConnectionPool,
        report: Report,
        *,
        topology: TopologyCache,
        requeuer: "Requeuer",
        on_misfit: Callable[[Arrival], None],
        here: asyncio.Event | None = None,
    ) -> None:
        super().__init__(algorithm_queue(algorithm), f"the feed of {algorithm!r}", pool, report, here=here)
        self.algorithm = algorithm
        self._topology = topology
        self._requeuer = requeuer
        self._on_misfit = on_misfit
        self._prefetch = PrefetchTuner()
        self._consumer: str | None = None
        #: beyond the prefetch, to be given back
        self._surplus: list[Delivery] = []

    @property
    def has_groups(self) -> bool:
        """Never: a broker hands tasks out in their order."""
        return False

    async def set_prefetch(self, count: int, *, in_turn: int | None = None, group_slots: int | None = None) -> None:
        if count != self._prefetch.count and not self._closing:
            self._prefetch.count = max(0, count)
            self._set_surplus_aside()
            self._wake.set()

    async def _declare(self, channel: Channel) -> None:
        await self._topology.declare_algorithm(channel, self.algorithm)

    def _forget_declared(self) -> None:
        self._topology.forget_algorithm(self.algorithm)

    async def _step(self, channel: Channel) -> None:
        now = self._time()
        tune_in = 0.0 if self._surplus else self._prefetch.tune_in(now)
        is_idle = self._consumer is not None and self._prefetch.has_room and not self._buffer
        look_in = self._stall.look_in(now) if is_idle else None
        if tune_in == 0.0:
            await self._tune(channel)
        elif look_in == 0.0:
            await self._look_for_stall(channel)
        elif self._closing and not self._gave_back.is_set():
            self._gave_back.set()
        else:
            # A full feed has room again without notice: it looks now and then.
            nap = QUIET_SECONDS if look_in is None else look_in
            await self._sleep(nap if tune_in is None else min(nap, tune_in))

    async def _tune(self, channel: Channel) -> None:
        """Gives back the surplus, and consumes with the prefetch that is right now."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.cancel(consumer)
        self._set_surplus_aside()
        surplus, self._surplus = self._surplus, []
        # Only now: as long as the consumer has room, the broker would deliver them right back to it.
        await self._requeuer.release(surplus)
        prefetch = self._prefetch.retune(self._time())
        if prefetch and channel.is_open:
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.qos(prefetch)
                self._consumer = await self._consume(channel, self._queue)

    def _received(self, queue: str, message: IncomingMessage, unacked: UnackedDeliveries) -> None:
        self._prefetch.arrived(message.tag, len(message.body))
        delivery = read_delivery(message, self.algorithm, unacked, self._requeuer.returns, time.time())
        if delivery is None:
            self._on_misfit(read_arrival(message, unacked))
        elif self._prefetch.count == 0:
            self._surplus.append(delivery)
            self._wake.set()
        else:
            self._buffer.append(delivery)
            self._here.set()

    def _on_settled(self, tags: list[int]) -> None:
        now = self._time()
        self._prefetch.settled(tags, now)
        super()._on_settled(tags)
        if self._prefetch.tune_in(now) is not None:
            self._wake.set()

    def _set_surplus_aside(self) -> None:
        """Takes what is here beyond the prefetch, newest first; it is given back in its old order."""
        surplus: list[Delivery] = []
        room = self._prefetch.out - len(self._surplus)
        while self._buffer and room - len(surplus) > self._prefetch.count:
            surplus.append(self._buffer.pop())
        self._surplus[:0] = reversed(surplus)

    def _stop_wanting(self) -> None:
        self._prefetch.count = 0
        self._set_surplus_aside()

    def _channel_lost(self) -> None:
        self._consumer = None
        self._buffer.clear()
        self._surplus.clear()
        self._prefetch.restart()


class Requeuer:
    """Returns tasks unrun to the head of their queue, without counting it as a failed delivery.

    It never raises for a broker that is away: what is not settled is delivered again in any case.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.returns = ReturnCounter()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self._return([delivery for delivery in deliveries if not _is_worn(delivery.receipt)])
        worn = [delivery for delivery in deliveries if _is_worn(delivery.receipt)]
        reserved = [delivery for delivery in worn if delivery.receipt.unacked.reserve(delivery.receipt.tag)]
        if reserved:
            await self._renew(reserved)

    async def _renew(self, deliveries: Sequence[Delivery]) -> None:
        messages = [renewed_message(delivery) for delivery in deliveries]
        try:
            await self._publisher.publish(messages, timeout_seconds=_RENEW_SECONDS)
        except (QueueUnavailable, QueueClosed) as error:
            _log.info("%d tasks go back as they are: %s", len(deliveries), error)
            self._return(deliveries, reserved=True)
            return
        for delivery in deliveries:
            self.returns.forget(delivery.id, delivery.attempt)
        ack((delivery.receipt for delivery in deliveries), reserved=True)

    def _return(self, deliveries: Sequence[Delivery], *, reserved: bool = False) -> None:
        for delivery in deliveries:
            receipt = delivery.receipt
            if isinstance(receipt, Receipt) and receipt.is_task:
                self.returns.returned(delivery.id, delivery.attempt, receipt.broker_count)
        nack((delivery.receipt for delivery in deliveries), reserved=reserved)


def _is_worn(receipt: object) -> bool:
    return isinstance(receipt, Receipt) and receipt.is_task and receipt.broker_count >= RENEW_AT


class PrefetchTuner:
    """How many messages a feed's consumer may have, and when to change that. Pure: times are given.

    A consumer's prefetch cannot be changed while it consumes: a change is cancel, qos, consume. What the former
    consumer was given stays out and does not count against the new one, so the new one gets what is left of the wanted
    number, and is tuned again as those are settled. While tasks pass quickly it gets all at once: the overshoot is gone
    in a moment, and the chase after the last few would not end. Then it is also tuned less often, unless it grows much,
    and not for little: the broker takes back what was in transit to the cancelled consumer, and counts that as failed
    deliveries.

    `out` is the number of unsettled messages; `former` of those are from consumers before the live one, which was
    `granted` a prefetch.
    """

    def __init__(self) -> None:
        #: the prefetch that the feed's owner has set
        self.count = 0
        self._sizes = 0
        self._mean_bytes = 0.0
        self.restart()

    def restart(self) -> None:
        """A new channel: nothing is out, nothing consumes."""
        self.out = 0
        self.former = 0
        self.granted = 0
        self._boundary = 0
        self._last_tag = 0
        self._tuned_at = float("-inf")
        self._tuned_for = 0
        self._settled: deque[tuple[float, int]] = deque()
        self._passed = 0

    @property
    def wanted(self) -> int:
        """The prefetch, limited by the size of the messages, in steps so that it seldom changes."""
        most = MOST_MESSAGES
        if self._mean_bytes * most > MOST_BYTES:
            most = max(1, int(MOST_BYTES / self._mean_bytes))
            most = 1 << (most.bit_length() - 1)
        return min(self.count, most)

    @property
    def has_room(self) -> bool:
        """Whether the live consumer should be given whatever is ready."""
        return self.granted > self.out - self.former

    def arrived(self, tag: int, size: int) -> None:
        self.out += 1
        self._last_tag = tag
        self._sizes = min(self._sizes + 1, _SIZE_SPAN)
        self._mean_bytes += (size - self._mean_bytes) / self._sizes

    def settled(self, tags: list[int], now: float) -> None:
        self.out -= len(tags)
        if self.former:
            self.former -= sum(1 for tag in tags if tag <= self._boundary)
        self._settled.append((now, len(tags)))
        self._passed += len(tags)
        self._settled_in_last_second(now)

    def tune_in(self, now: float) -> float | None:
        """Seconds until the consumer should be tuned; None while it is as it should be, or as well as it can be."""
        wanted = self.wanted
        if wanted <= 0:
            return 0.0 if self.granted else None
        deficit = wanted - self.former - self.granted
        too_many = wanted < self._tuned_for and deficit < 0 and self.granted > 0
        if deficit < 1 and not too_many:
            return None
        if self.out == 0 and self._settled_in_last_second(now) < FAST_A_SECOND:
            return 0.0
        pause = TUNE_AGAIN_SECONDS
        if self.granted and self._is_fast(now):
            if abs(wanted - self.granted) * _WORTH_IT < wanted:
                return None
            if wanted < self.granted * _FAR_TOO_SMALL:
                pause = TUNE_FAST_SECONDS
        return max(0.0, self._tuned_at + pause - now)

    def retune(self, now: float) -> int:
        """The prefetch for the next consumer (0: none for now). The one before has been cancelled."""
        wanted = self.wanted
        self.granted = wanted if self._is_fast(now) else max(0, wanted - self.out)
        self.former = self.out
        self._boundary = self._last_tag
        self._tuned_at, self._tuned_for = now, wanted
        return self.granted

    def _is_fast(self, now: float) -> bool:
        """Whether everything that is out is likely to be settled within a second."""
        return self._settled_in_last_second(now) >= max(self.out, FAST_A_SECOND)

    def _settled_in_last_second(self, now: float) -> int:
        while self._settled and self._settled[0][0] < now - 1.0:
            self._passed -= self._settled.popleft()[1]
        return self._passed
