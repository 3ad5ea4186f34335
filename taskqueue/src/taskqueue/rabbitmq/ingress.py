"""The ingress queue: what outside senders send, what no algorithm's queue takes, and the broker's own dead letters."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.codec import forwarded_message, parked_message, read_arrival
from taskqueue.rabbitmq.connection import Report, RobustConnection
from taskqueue.rabbitmq.consumer import ANSWER_SECONDS, QUIET_SECONDS, Consumer
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.topology import BROKER_DEAD, INGRESS_QUEUE, TASKS_EXCHANGE, TopologyCache
from taskqueue.rabbitmq.unacked import UnackedDeliveries, ack
from taskqueue.tasks import Arrival, NewTask

_log = logging.getLogger(__name__)

#: Most messages of each queue that are out at the same time.
PREFETCH = 200


class IngressConsumer(Consumer[Arrival]):
    """See `taskqueue.protocols.IngressFeed`. `misfits` are messages that feeds could not read as tasks."""

    def __init__(
        self,
        connection: RobustConnection,
        report: Report,
        *,
        topology: TopologyCache,
        publisher: Publisher,
        misfits: Iterable[Arrival],
    ) -> None:
        # Awaited: the broker drops what outside senders send before the queue is there.
        super().__init__(INGRESS_QUEUE, "the ingress queue", connection, report, awaited=True)
        self._connection = connection
        self._topology = topology
        self._publisher = publisher
        self._buffer.extend(misfits)
        self._consumers: list[str] = []

    def misfit(self, arrival: Arrival) -> None:
        """Takes a message that a feed could not read as a task of its algorithm."""
        self._buffer.append(arrival)
        self._here.set()

    async def forward(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Where an algorithm's queue cannot be declared, its tasks are parked: they must not hold up the others."""
        # What a lost channel brought comes again: nothing waits for a connection on its behalf.
        alive = [arrival.receipt.unacked.alive for arrival in arrivals]
        algorithms = {task.algorithm for task, is_alive in zip(tasks, alive, strict=True) if is_alive}
        await self._publish(arrivals, tasks, await self._declare_algorithms(algorithms))

    async def park(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        await self._publish(arrivals, tasks, {task.algorithm for task in tasks})

    async def _publish(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask], parked: set[str]) -> None:
        """Sends each on, or around if its algorithm is one of `parked`, and acknowledges it then."""
        now = time.time()
        await self._publisher.publish(
            [
                parked_message(arrival, task, now) if task.algorithm in parked else forwarded_message(arrival, task)
                for arrival, task in zip(arrivals, tasks, strict=True)
                # From a channel that is lost it comes again; published here too, one without an id would be two tasks.
                if arrival.receipt.unacked.alive
            ]
        )
        ack(arrival.receipt for arrival in arrivals)

    async def _declare_algorithms(self, algorithms: Iterable[str]) -> set[str]:
        """Declares the queues that are missing. Returns the algorithms whose queue cannot be declared."""
        refused: set[str] = set()
        for algorithm in sorted(algorithms):
            if self._topology.has(algorithm):
                continue
            # On a channel of its own: a refusal closes it.
            channel = await self._connection.channel()
            try:
                await self._topology.declare_algorithm(channel, algorithm)
            except QueueUnavailable as error:
                _log.warning("tasks of %r wait aside: %s", algorithm, error)
                refused.add(algorithm)
            finally:
                await channel.close()
        return refused

    async def _declare(self, channel: Channel) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._topology.declare(channel)

    def _forget_declared(self) -> None:
        self._topology.forget()

    async def _start(self, channel: Channel) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.qos(PREFETCH)
            self._consumers = [await self._consume(channel, queue) for queue in (INGRESS_QUEUE, BROKER_DEAD)]

    async def _step(self, channel: Channel) -> None:
        if self._closing and not self._gave_back.is_set():
            async with asyncio.timeout(ANSWER_SECONDS):
                for consumer in self._consumers:
                    await channel.cancel(consumer)
            # Only now: as long as a consumer has room, the broker would deliver them right back to it.
            self._give_back()
            self._gave_back.set()
            return
        has_room = not self._closing and self._unacked is not None and len(self._unacked) < PREFETCH
        look_in = self._stall.look_in(self._time()) if has_room else QUIET_SECONDS
        if look_in == 0.0:
            await self._look_for_stall(channel)
        else:
            await self._sleep(look_in)

    def _received(self, queue: str, message: IncomingMessage, unacked: UnackedDeliveries) -> None:
        if queue == INGRESS_QUEUE and message.exchange == TASKS_EXCHANGE:
            # It was meant for an algorithm whose queue does not exist.
            self._topology.forget_algorithm(message.routing_key)
        self._buffer.append(read_arrival(message, unacked, dead=queue == BROKER_DEAD))
        self._here.set()
