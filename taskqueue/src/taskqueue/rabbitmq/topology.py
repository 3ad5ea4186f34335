"""The queues and exchanges of an environment. Every party declares them, with the very same arguments.

No algorithm's name can contain a hyphen, so none can take one of these names.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.connection import RobustConnection

_log = logging.getLogger(__name__)

#: The queue that senders outside this system use, and the exchange that our own publishers use.
INGRESS_QUEUE = "tasks"
TASKS_EXCHANGE = "tasks"
#: Alternate exchange: messages for which there is no algorithm's queue go to the ingress queue.
UNROUTED_EXCHANGE = "tasks-unrouted"
#: Exchange and queue for the broker's own dead letters: a safety net, not the usual path.
BROKER_DEAD = "tasks-broker-dead"
#: Waiting time of tasks whose algorithm nobody serves yet, in seconds.
PARK_SECONDS = 5.0
#: How often a broker may deliver a message before it gives it up. We count ourselves: RabbitMQ 4 would stop at 20, and
#: 3.10 takes "no limit" (-1) for a limit of zero.
DELIVERY_LIMIT = 1_000_000

#: Quorum queues, also on one node: a classic queue that is killed forgets what was acknowledged.
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
_WITH_DEAD_LETTERS = {**_QUORUM, "x-dead-letter-exchange": BROKER_DEAD}

_ACCESS_REFUSED = 403
_OTHER_ARGUMENTS = 406


def algorithm_queue(algorithm: str) -> str:
    """The name of the queue of one algorithm's tasks."""
    return f"tasks.{algorithm}"


def delay_queue(seconds: float) -> str:
    """The name of the queue where tasks wait for so many seconds, and of the exchange in front of it."""
    return f"tasks-retry.{seconds:g}s"


async def declare_topology(channel: Channel, *, steps_seconds: Sequence[float], algorithms: Iterable[str] = ()) -> None:
    """Declares everything that is missing, and the queues of these algorithms.

    Parameters:
        steps_seconds: the delays before another attempt for which there are to be queues.

    Raises:
        QueueUnavailable: the broker is away, or something else has one of the names; the message says what to do.
    """
    await _exchange(channel, UNROUTED_EXCHANGE, "fanout")
    await _exchange(channel, TASKS_EXCHANGE, "direct", {"alternate-exchange": UNROUTED_EXCHANGE})
    await _exchange(channel, BROKER_DEAD, "fanout")
    await _queue(channel, BROKER_DEAD, _QUORUM)
    await channel.bind(BROKER_DEAD, BROKER_DEAD)
    await _queue(channel, INGRESS_QUEUE, _WITH_DEAD_LETTERS)
    await channel.bind(INGRESS_QUEUE, UNROUTED_EXCHANGE)
    for seconds in sorted({*steps_seconds, PARK_SECONDS}):
        # One queue for each delay: in a shared one a short delay would wait behind a long one.
        name = delay_queue(seconds)
        arguments = {
            **_QUORUM,
            "x-message-ttl": round(seconds * 1000),
            "x-dead-letter-exchange": TASKS_EXCHANGE,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        await _exchange(channel, name, "fanout")
        await _queue(channel, name, arguments)
        await channel.bind(name, name)
    for algorithm in algorithms:
        await declare_algorithm(channel, algorithm)


async def declare_algorithm(channel: Channel, algorithm: str) -> None:
    """Declares one algorithm's queue. Nothing deletes it: its tasks outlive its runners.

    RabbitMQ (3.10 and 4) deletes quorum queues only unconditionally, even with a task that has just arrived.
    """
    queue = algorithm_queue(algorithm)
    await _queue(channel, queue, _WITH_DEAD_LETTERS)
    await channel.bind(queue, TASKS_EXCHANGE, algorithm)


class TopologyCache:
    """Declares the topology and each algorithm's queue once per connection, or again after something was missing."""

    def __init__(self, connection: RobustConnection, steps_seconds: Sequence[float]) -> None:
        self._connection = connection
        self._steps_seconds = steps_seconds
        self._epoch = 0
        self._algorithms: set[str] = set()
        self._lock = asyncio.Lock()

    async def declare(self, channel: Channel) -> None:
        """Everything but the algorithms' queues. Raises QueueUnavailable."""
        async with self._lock:
            if self._epoch != self._connection.epoch:
                epoch = self._connection.epoch
                self._algorithms.clear()
                await declare_topology(channel, steps_seconds=self._steps_seconds)
                self._epoch = epoch

    async def declare_algorithm(self, channel: Channel, algorithm: str) -> None:
        """The queue of one algorithm and everything it needs. Raises QueueUnavailable."""
        await self.declare(channel)
        if algorithm not in self._algorithms:
            try:
                await declare_algorithm(channel, algorithm)
            except QueueUnavailable:
                # Something that was declared is gone.
                self.forget()
                raise
            self._algorithms.add(algorithm)

    def has(self, algorithm: str) -> bool:
        """Whether its queue has been declared on this connection."""
        return self._epoch == self._connection.epoch and algorithm in self._algorithms

    def forget_algorithm(self, algorithm: str) -> None:
        """Its queue was found missing."""
        self._algorithms.discard(algorithm)

    def forget(self) -> None:
        """Something was deleted: declare everything again."""
        self._epoch = 0


class PublisherTopology:
    """Declares what messages need before they are sent, if the broker's user may; if not, controllers do it.

    A user that only sends needs no right but to write to the exchange `tasks`.
    """

    def __init__(self, connection: RobustConnection, steps_seconds: Sequence[float]) -> None:
        self._connection = connection
        self._steps_seconds = steps_seconds
        self._may_declare = True

    async def declare(self, _: Channel) -> None:
        """Raises QueueUnavailable, but not for a user that may not declare."""
        if not self._may_declare:
            return
        # On a channel of its own: a refusal closes it.
        channel = await self._connection.channel()
        try:
            await declare_topology(channel, steps_seconds=self._steps_seconds)
        except QueueUnavailable:
            if channel.close_code != _ACCESS_REFUSED:
                raise
            self._may_declare = False
            _log.info("the broker's user may not declare what tasks need; controllers do: %s", channel.close_reason)
        finally:
            await channel.close()


async def _queue(channel: Channel, name: str, arguments: dict[str, Any]) -> None:
    try:
        await channel.declare_queue(name, arguments=arguments)
    except QueueUnavailable as error:
        raise _explained(channel, "queue", name, error) from None


async def _exchange(channel: Channel, name: str, kind: str, arguments: dict[str, Any] | None = None) -> None:
    try:
        await channel.declare_exchange(name, kind, arguments=arguments)
    except QueueUnavailable as error:
        raise _explained(channel, "exchange", name, error) from None


def _explained(channel: Channel, kind: str, name: str, error: QueueUnavailable) -> QueueUnavailable:
    if channel.close_code == _OTHER_ARGUMENTS:
        command = f"`rabbitmqctl delete_queue {name}`, once it is empty" if kind == "queue" else "as an administrator"
        return QueueUnavailable(
            f"The broker has a {kind} '{name}' with other arguments than ours: {channel.close_reason}. "
            f"Delete it ({command}), or use another virtual host; it is declared anew within seconds."
        )
    if channel.close_code == _ACCESS_REFUSED:
        return QueueUnavailable(
            f"The broker's user may not declare the {kind} '{name}': {channel.close_reason}. "
            "Give it the permission to configure, write and read '^tasks' in this virtual host."
        )
    return error
