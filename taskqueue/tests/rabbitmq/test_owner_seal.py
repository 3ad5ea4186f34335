"""Whose task a message carries: what a gateway sent keeps its owner, what anybody else wrote has none."""

import asyncio
import json
from dataclasses import replace

import pika
import pytest

from runnerlib.contract import FailureCode
from taskqueue.postgres import open_postgres
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import Failed, NewTask, Published, Retrying, Succeeded
from taskqueue.tokens import OwnerSeal


@pytest.fixture
def publish(broker):
    """What anybody with rights on the broker can do."""

    def publish(routing_key: str, body: bytes, headers: dict, exchange: str = "tasks") -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            properties = pika.BasicProperties(message_id="a", headers=headers)
            connection.channel().basic_publish(exchange, routing_key, body, properties)

    return publish


async def first_of(queue, take_all, algorithm="upper"):
    feed = await queue.feed(algorithm)
    await feed.set_prefetch(1)
    (delivery,) = await take_all(feed, 1)
    return feed, delivery


def test_seal_proves_one_owner_of_one_content_under_one_id():
    seals = OwnerSeal(b"k" * 32)
    seal = seals.make("a", "digest", "a1")
    assert seals.owner(seal, "a", "digest") == "a1"
    for task_id, digest in (("b", "digest"), ("a", "other")):
        assert seals.owner(seal, task_id, digest) is None
    for forged in (seal.replace("a1", "b2"), "a1." + "0" * 32, "a1", "", ".", seal[:-1], "é.é"):
        assert seals.owner(forged, "a", "digest") is None
    assert OwnerSeal(b"x" * 32).owner(seal, "a", "digest") is None


def test_task_of_a_gateway_that_died_before_its_row_has_its_owner(
    run, broker, database_url, open_rabbit, make_task, take_all
):
    async def scenario():
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            task = make_task("a", submitted_by="a1")
            await rabbit.publish([store.sealed(task)])
            _, delivery = await first_of(rabbit, take_all)
            assert await store.get("a") is None
            assert await store.record([Succeeded(delivery, b"1")]) == [True]
            assert (await store.get("a")).submitted_by == "a1"
            gateway = RecordedQueue(rabbit, store)
            assert await gateway.publish([task]) == [Published.DUPLICATE]
            assert await gateway.publish([replace(task, submitted_by="b2")]) == [Published.CONFLICT]

    run(scenario())


def test_owner_is_known_in_the_retry_and_in_the_dead_letter(
    run, broker, database_url, open_rabbit, make_task, take_all
):
    async def scenario():
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            await rabbit.publish([store.sealed(make_task("a", submitted_by="a1"))])
            feed, delivery = await first_of(rabbit, take_all)
            await rabbit.retry([delivery], [0.2])
            await rabbit.ack([delivery])
            (again,) = await take_all(feed, 1)
            assert again.attempt == 2
            assert await store.record([Retrying(again, FailureCode.HANDLER_ERROR, "no", 0.0)]) == [True]
            assert (await store.get("a")).submitted_by == "a1"
            last = replace(again, attempt=3)
            assert await store.record([Failed(last, FailureCode.HANDLER_ERROR, "broken")]) == [True]
            (letter,) = await store.dead_letters()
            assert letter.submitted_by == "a1"

    run(scenario())


def test_replayed_task_has_its_owner(run, broker, database_url, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            await rabbit.publish([store.sealed(make_task("a", submitted_by="a1"))])
            feed, delivery = await first_of(rabbit, take_all)
            await store.record([Failed(delivery, FailureCode.HANDLER_ERROR, "broken")])
            await rabbit.ack([delivery])
            (letter,) = await store.dead_letters()
            await RecordedQueue(rabbit, store).replay([letter.dead_id])
            (again,) = await take_all(feed, 1)
            assert again.seal == delivery.seal is not None

    run(scenario())


def test_owner_is_carried_through_the_ingress_queue(run, broker, database_url, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            task = store.sealed(make_task("a", "newcomer", submitted_by="a1"))
            await rabbit.publish([task])
            ingress = await rabbit.ingress_feed()
            async with asyncio.timeout(15):
                (arrival,) = await ingress.take(1)
            plain = NewTask("a", task.algorithm, task.payload, task.digest)
            await ingress.forward([arrival], [plain])
            _, delivery = await first_of(rabbit, take_all, "newcomer")
            await store.record([Succeeded(delivery, b"1")])
            assert (await store.get("a")).submitted_by == "a1"

    run(scenario())


@pytest.mark.parametrize("kind", ["invented", "of another content", "of another key", "not text"])
def test_message_of_anybody_else_has_no_owner(
    run, broker, database_url, open_rabbit, make_task, take_all, publish, kind
):
    async def scenario():
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            task = make_task("a", submitted_by="a1")
            seal: object = {
                "invented": "a1." + "0" * 32,
                "of another content": store.sealed(make_task("a", payload=1, submitted_by="a1")).seal,
                "of another key": OwnerSeal(b"k" * 32).make("a", task.digest, "a1"),
                "not text": 1,
            }[kind]
            body = json.dumps({"algorithm": "upper", "payload": json.loads(task.payload)}).encode()
            await asyncio.to_thread(publish, "upper", body, {"submitted_by": seal})
            _, delivery = await first_of(rabbit, take_all)
            assert delivery.digest == task.digest
            await store.record([Succeeded(delivery, b"1")])
            assert (await store.get("a")).submitted_by is None

    run(scenario())
