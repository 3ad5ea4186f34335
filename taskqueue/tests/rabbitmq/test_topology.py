"""What every party declares, on real brokers."""

import asyncio
from typing import Any

from pika import BasicProperties

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.names import algorithm_queue, delay_queue
from taskqueue.rabbitmq.topology import declare_algorithm, declare_topology

STEPS = (0.2, 30)


async def _next(channel: Channel, queue: str, seconds: float = 10.0) -> IncomingMessage:
    async with asyncio.timeout(seconds):
        while True:
            message = await channel.get(queue)
            if message is not None:
                return message
            await asyncio.sleep(0.02)


def test_it_is_declared_by_many_at_once_and_again(run: Any, broker: Any, open_link: Any) -> None:
    async def scenario() -> None:
        async with open_link(broker.url) as link:
            channels = [await link.channel() for _ in range(3)]
            await asyncio.gather(*(declare_topology(each, steps_seconds=STEPS) for each in channels))
            for _ in range(2):
                await declare_topology(channels[0], steps_seconds=STEPS, algorithms=["upper", "lower"])
            await declare_algorithm(channels[1], "upper")
            assert all(channel.is_open for channel in channels)

    run(scenario())
    queues = broker.management("GET", f"queues/{broker.vhost}")
    arguments = {queue["name"]: queue["arguments"] for queue in queues}
    assert sorted(arguments) == [
        "tasks",
        "tasks-broker-dead",
        "tasks-retry.0.2s",
        "tasks-retry.30s",
        "tasks-retry.5s",
        "tasks.lower",
        "tasks.upper",
    ]
    assert all(queue["durable"] for queue in queues)
    assert all(
        each["x-queue-type"] == "quorum" and each["x-delivery-limit"] == 1_000_000 for each in arguments.values()
    )
    assert arguments["tasks.upper"]["x-dead-letter-exchange"] == "tasks-broker-dead"
    assert arguments["tasks-retry.0.2s"]["x-message-ttl"] == 200


def test_a_task_of_an_unknown_algorithm_comes_to_the_front_door(run: Any, broker: Any, open_link: Any) -> None:
    async def scenario() -> None:
        async with open_link(broker.url) as link:
            channel = await link.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish("tasks", "unheard_of", b"1", BasicProperties(), mandatory=True)
            channel.publish("tasks", "upper", b"2", BasicProperties(), mandatory=True)

            assert (await _next(channel, "tasks")).body == b"1"
            assert (await _next(channel, algorithm_queue("upper"))).body == b"2"

    run(scenario())


def test_a_delayed_task_comes_back_to_its_algorithm_and_is_not_held_up_by_a_longer_delay(
    run: Any, broker: Any, open_link: Any
) -> None:
    async def scenario() -> None:
        async with open_link(broker.url) as link:
            channel = await link.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish(delay_queue(30), "upper", b"long", BasicProperties(delivery_mode=2), mandatory=True)
            channel.publish(delay_queue(0.2), "upper", b"short", BasicProperties(delivery_mode=2), mandatory=True)
            message = await _next(channel, algorithm_queue("upper"))

            assert message.body == b"short"
            assert message.routing_key == "upper"

    run(scenario())


def test_what_the_broker_gives_up_is_kept_with_the_reason(run: Any, broker: Any, open_link: Any) -> None:
    async def scenario() -> None:
        async with open_link(broker.url) as link:
            channel = await link.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish("tasks", "upper", b"1", BasicProperties(delivery_mode=2), mandatory=True)
            channel.nack((await _next(channel, algorithm_queue("upper"))).tag, requeue=False)
            dead = await _next(channel, "tasks-broker-dead")

            assert dead.body == b"1"
            assert (dead.properties.headers or {})["x-death"][0]["reason"] == "rejected"

    run(scenario())


def test_a_queue_with_other_arguments_is_named_in_a_sentence(
    run: Any, broker: Any, open_link: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_link(broker.url) as link:
            await (await link.channel()).declare_queue("tasks", arguments={"x-queue-type": "classic"})
            error = await refused(declare_topology(await link.channel(), steps_seconds=STEPS), QueueUnavailable)
            await asyncio.to_thread(broker.delete_queue, "tasks")
            await declare_topology(await link.channel(), steps_seconds=STEPS)

            assert "queue 'tasks' with other arguments" in str(error)
            assert "inequivalent arg" in str(error)
            assert "rabbitmqctl delete_queue tasks" in str(error)

    run(scenario())


def test_a_user_who_may_not_declare_is_told_which_permission_is_missing(
    run: Any, broker: Any, open_link: Any, refused: Any
) -> None:
    user = broker.server.user
    narrow = {"configure": "^other", "write": ".*", "read": ".*"}
    broker.management("PUT", f"permissions/{broker.vhost}/{user}", narrow)

    async def scenario() -> None:
        async with open_link(broker.url) as link:
            error = await refused(declare_topology(await link.channel(), steps_seconds=STEPS), QueueUnavailable)

            assert "may not declare the exchange 'tasks-unrouted'" in str(error)
            assert "permission to configure" in str(error)

    run(scenario())
