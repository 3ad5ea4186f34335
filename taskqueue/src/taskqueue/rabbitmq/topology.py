"""The queues and exchanges of an environment. Every party declares them, with the very same arguments."""

from collections.abc import Iterable, Sequence
from typing import Any

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.names import (
    BROKER_DEAD,
    FRONT_DOOR,
    PARK_SECONDS,
    TASKS_EXCHANGE,
    UNROUTED_EXCHANGE,
    algorithm_queue,
    delay_queue,
)

#: How often a broker may hand a message out before it gives it up. We count ourselves: RabbitMQ 4 would stop at 20, and
#: 3.10 takes "no limit" (-1) for none at all.
DELIVERY_LIMIT = 1_000_000

#: Quorum queues, also on one node: a classic queue that is killed forgets what was acknowledged.
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
_WITH_DEAD_LETTERS = {**_QUORUM, "x-dead-letter-exchange": BROKER_DEAD}

_ACCESS_REFUSED = 403
_OTHER_ARGUMENTS = 406


async def declare_topology(channel: Channel, *, steps_seconds: Sequence[float], algorithms: Iterable[str] = ()) -> None:
    """Declares everything, and the queues of these algorithms. Harmless when it is there already.

    Raises QueueUnavailable with a sentence when something else carries one of the names.
    """
    await _exchange(channel, UNROUTED_EXCHANGE, "fanout")
    await _exchange(channel, TASKS_EXCHANGE, "direct", {"alternate-exchange": UNROUTED_EXCHANGE})
    await _exchange(channel, BROKER_DEAD, "fanout")
    await _queue(channel, BROKER_DEAD, _QUORUM)
    await channel.bind(BROKER_DEAD, BROKER_DEAD)
    await _queue(channel, FRONT_DOOR, _WITH_DEAD_LETTERS)
    await channel.bind(FRONT_DOOR, UNROUTED_EXCHANGE)
    for seconds in sorted({*steps_seconds, PARK_SECONDS}):
        await _declare_delay(channel, seconds)
    for algorithm in algorithms:
        await declare_algorithm(channel, algorithm)


async def declare_algorithm(channel: Channel, algorithm: str) -> None:
    """Declares one algorithm's queue. Nothing deletes it: its tasks outlive its runners.

    RabbitMQ (3.10 and 4) deletes quorum queues only unconditionally, also with a task that has just come.
    """
    queue = algorithm_queue(algorithm)
    await _queue(channel, queue, _WITH_DEAD_LETTERS)
    await channel.bind(queue, TASKS_EXCHANGE, algorithm)


async def _declare_delay(channel: Channel, seconds: float) -> None:
    """One queue for each delay: in a shared one a short delay would wait behind a long one."""
    name = delay_queue(seconds)
    await _exchange(channel, name, "fanout")
    await _queue(
        channel,
        name,
        {
            **_QUORUM,
            "x-message-ttl": round(seconds * 1000),
            "x-dead-letter-exchange": TASKS_EXCHANGE,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    await channel.bind(name, name)


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
