"""What every party declares, on real brokers."""

import asyncio
import re
from typing import Any

import pytest
from pika import BasicProperties

from runnerlib.contract.names import ALGORITHM_PATTERN
from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq import topology
from taskqueue.rabbitmq.topology import algorithm_queue, declare_algorithm, declare_topology, delay_queue

STEPS = (0.2, 30)


@pytest.mark.parametrize(
    ("seconds", "name"), [(5, "tasks-retry.5s"), (0.2, "tasks-retry.0.2s"), (600.0, "tasks-retry.600s")]
)
def test_a_delay_is_written_without_needless_digits(seconds: float, name: str) -> None:
    assert topology.delay_queue(seconds) == name


def test_no_algorithm_can_take_the_name_of_a_queue_of_ours() -> None:
    ours = [topology.BROKER_DEAD, topology.UNROUTED_EXCHANGE, topology.delay_queue(5)]
    for name in ours:
        assert not re.fullmatch(ALGORITHM_PATTERN, name)
        assert not re.fullmatch(re.escape(topology.algorithm_queue("")) + ALGORITHM_PATTERN, name)
    assert topology.algorithm_queue("upper") == "tasks.upper"


def test_it_is_declared_by_many_at_once_and_again(run: Any, broker: Any, open_connection: Any) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channels = [await connection.channel() for _ in range(3)]
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


def test_a_task_of_an_unknown_algorithm_comes_to_the_ingress(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish("tasks", "unheard_of", b"1", BasicProperties(), mandatory=True)
            channel.publish("tasks", "upper", b"2", BasicProperties(), mandatory=True)

            assert [each.body for each in await take_messages(channel, "tasks")] == [b"1"]
            assert [each.body for each in await take_messages(channel, algorithm_queue("upper"))] == [b"2"]

    run(scenario())


def test_a_delayed_task_comes_back_to_its_algorithm_and_does_not_wait_for_a_longer_delay(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish(delay_queue(30), "upper", b"long", BasicProperties(delivery_mode=2), mandatory=True)
            channel.publish(delay_queue(0.2), "upper", b"short", BasicProperties(delivery_mode=2), mandatory=True)
            (message,) = await take_messages(channel, algorithm_queue("upper"))

            assert message.body == b"short"
            assert message.routing_key == "upper"

    run(scenario())


def test_what_the_broker_gives_up_is_kept_with_the_reason(
    run: Any, broker: Any, open_connection: Any, take_messages: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await declare_topology(channel, steps_seconds=STEPS, algorithms=["upper"])
            channel.publish("tasks", "upper", b"1", BasicProperties(delivery_mode=2), mandatory=True)
            (given_up,) = await take_messages(channel, algorithm_queue("upper"))
            channel.nack(given_up.tag, requeue=False)
            (dead,) = await take_messages(channel, "tasks-broker-dead")

            assert dead.body == b"1"
            assert (dead.properties.headers or {})["x-death"][0]["reason"] == "rejected"

    run(scenario())


def test_a_queue_with_other_arguments_is_named_in_a_sentence(
    run: Any, broker: Any, open_connection: Any, refused: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            await (await connection.channel()).declare_queue("tasks", arguments={"x-queue-type": "classic"})
            error = await refused(declare_topology(await connection.channel(), steps_seconds=STEPS), QueueUnavailable)
            await asyncio.to_thread(broker.delete_queue, "tasks")
            await declare_topology(await connection.channel(), steps_seconds=STEPS)

            assert "queue 'tasks' with other arguments" in str(error)
            assert "inequivalent arg" in str(error)
            assert "rabbitmqctl delete_queue tasks" in str(error)

    run(scenario())


def test_a_user_who_may_not_declare_is_told_which_permission_is_missing(
    run: Any, broker: Any, open_connection: Any, refused: Any
) -> None:
    user = broker.server.user
    narrow = {"configure": "^other", "write": ".*", "read": ".*"}
    broker.management("PUT", f"permissions/{broker.vhost}/{user}", narrow)

    async def scenario() -> None:
        async with open_connection(broker.url) as connection:
            error = await refused(declare_topology(await connection.channel(), steps_seconds=STEPS), QueueUnavailable)

            assert "may not declare the exchange 'tasks-unrouted'" in str(error)
            assert "permission to configure" in str(error)

    run(scenario())
