"""Whole controllers on a real RabbitMQ and a real PostgreSQL; senders are strangers with a few lines of pika."""

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pika
import pytest

from runnerlib.contract import FailureCode, Limits, TaskState, strict_json, task_digest
from taskqueue.errors import QueueUnavailable
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import NewTask

STEPS = (0.2, 1.0)


@pytest.fixture
def rabbit_world(worlds, broker, database_url):
    """``async with rabbit_world() as world``; several of them share the broker and the database."""

    @asynccontextmanager
    async def opened():
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_rabbitmq(broker.url, retry_steps_seconds=STEPS))
            store = await stack.enter_async_context(open_postgres(database_url))
            yield await stack.enter_async_context(worlds(parts=(queue, store, store, queue.ingress_feed)))

    return opened


@pytest.fixture
def stranger(broker):
    """Sends messages to the ingress queue and reads answers, with blocking pika in a thread."""
    return Stranger(broker.url)


class Stranger:
    def __init__(self, url):
        self._url = url

    async def send(self, *messages, queue="tasks", exchange="", **properties):
        """Messages without waiting for answers."""
        await asyncio.to_thread(self._send, messages, queue, exchange, properties)

    async def ask(self, *messages, reply_to="amq.rabbitmq.reply-to", **properties):
        """[(correlation id, answer)] as they come; each message has its position as correlation id."""
        return await asyncio.to_thread(self._ask, messages, reply_to, properties)

    @contextmanager
    def _connection(self):
        """With the ingress queue there: a message to a queue that does not exist is dropped."""
        with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
            until = time.monotonic() + 20
            while True:
                try:
                    connection.channel().queue_declare("tasks", passive=True)
                    break
                except pika.exceptions.ChannelClosedByBroker:
                    assert time.monotonic() < until, "no controller has declared the ingress queue"
                    connection.sleep(0.05)
            yield connection

    async def waiting(self, *queues):
        return await asyncio.to_thread(self._waiting, queues)

    def _waiting(self, queues):
        with self._connection() as connection:
            channel = connection.channel()
            return [channel.queue_declare(queue, passive=True).method.message_count for queue in queues]

    def _send(self, messages, queue, exchange, properties):
        with self._connection() as connection:
            channel = self._confirming(connection)
            for message in messages:
                channel.basic_publish(exchange, queue, body(message), pika.BasicProperties(**properties))

    def _confirming(self, connection):
        """A queue that was declared a moment ago may have no leader yet: what is sent to it unconfirmed can be lost."""
        channel = connection.channel()
        channel.confirm_delivery()
        return channel

    def _ask(self, messages, reply_to, properties):
        answers = []
        with self._connection() as connection:
            channel = self._confirming(connection)
            if not reply_to.startswith("amq."):
                channel.queue_declare(reply_to)
            channel.basic_consume(
                reply_to,
                lambda _, __, about, body: answers.append((about.correlation_id, json.loads(body))),
                auto_ack=True,
            )
            for number, message in enumerate(messages):
                about = pika.BasicProperties(reply_to=reply_to, correlation_id=str(number), **properties)
                channel.basic_publish("", "tasks", body(message), about)
            until = time.monotonic() + 20
            while len(answers) < len(messages) and time.monotonic() < until:
                connection.process_data_events(0.2)
        return answers


def body(message):
    return message if isinstance(message, bytes) else json.dumps(message)


def task(value=1, **more):
    return {"algorithm": "echo", "payload": {"value": value}, **more}


@pytest.mark.parametrize("reply_to", ["answers", "amq.rabbitmq.reply-to"])
def test_stranger_gets_results_and_failures_under_its_correlation_ids(
    rabbit_world, stranger, make_runner, go, reply_to
):
    async def scenario():
        async with rabbit_world() as world:
            await world.start(make_runner())
            answers = dict(
                await stranger.ask(
                    task("Bonjour"),
                    task("again", id="named"),
                    b"not JSON",
                    {"algorithm": "echo", "payload": {"do": "no_result"}},
                    {"algorithm": "echo", "payload": {"do": "fail_until", "attempt": 2}},
                    reply_to=reply_to,
                )
            )
            assert answers["0"]["result"] == "Bonjour"
            assert (answers["1"]["id"], answers["1"]["result"], answers["1"]["state"]) == (
                "named",
                "again",
                "succeeded",
            )
            assert (answers["2"]["state"], answers["2"]["error"]["code"]) == ("failed", "malformed")
            assert answers["3"]["error"]["code"] == "bad_result"
            assert (answers["4"]["attempt"], answers["4"]["result"]) == (2, 2)
            rows = await world.store.lookup([answer["id"] for answer in answers.values()])
            assert {each.state.value for each in rows.values()} == {"succeeded", "failed"}
            assert rows["named"].result == b'"again"'
            lines = await world.store.dead_letters()
            letters = {each.task_id: await world.store.dead_letter(each.dead_id) for each in lines}
            assert letters[answers["2"]["id"]].body == b"not JSON"
            assert letters[answers["3"]["id"]].code is FailureCode.BAD_RESULT

    go(scenario())


def test_nothing_is_left_in_the_broker_when_all_is_done(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            await world.start(make_runner())
            await stranger.send(*(task(n, id=f"t{n}") for n in range(200)), b"1", b"2")
            for n in range(200):
                await world.ended_soon(f"t{n}")
        assert await stranger.waiting("tasks", "tasks.echo", "tasks-broker-dead") == [0, 0, 0]

    go(scenario())


def test_unknown_algorithm_is_parked_and_served_when_its_runner_appears(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            await world.start(make_runner("r1"))
            await stranger.send({"algorithm": "shout", "payload": {"value": "HEY"}, "id": "t1"})
            async with asyncio.timeout(10):
                while not world.metric("controller_arrivals_total", verdict="parked"):
                    await asyncio.sleep(0.02)
            runner = make_runner("r2", ["shout"])
            await runner.start()
            world.runners.append(runner)
            world.tell()
            assert (await world.ended_soon("t1")).result == b'"HEY"'

    go(scenario())


def test_unknown_algorithm_fails_after_its_grace(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            await world.start(make_runner(), unknown_algorithm_grace_seconds=2)
            started = time.monotonic()
            ((_, answer),) = await stranger.ask({"algorithm": "ecko", "payload": {}, "id": "t1"})
            assert answer["error"]["code"] == "unknown_algorithm"
            assert "did you mean 'echo'" in answer["error"]["message"]
            assert time.monotonic() - started > 2
            assert (await world.row("t1")).error_code is FailureCode.UNKNOWN_ALGORITHM

    go(scenario())


def test_used_id_fails_alone_and_a_repetition_gets_the_same_answer(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            runner = make_runner()
            await world.start(runner)
            ((_, first),) = await stranger.ask(task(1, id="t1"))
            ((_, other),) = await stranger.ask(task(2, id="t1"))
            ((_, again),) = await stranger.ask(task(1, id="t1"))
            assert other["error"]["code"] == "id_conflict"
            assert again == first
            assert runner.executions == [("t1", 1)]
            (line,) = await world.store.dead_letters()
            letter = await world.store.dead_letter(line.dead_id)
            assert (letter.code, json.loads(letter.body)["payload"]) == (FailureCode.ID_CONFLICT, {"value": 2})

    go(scenario())


def test_task_that_was_sent_twice_and_is_retried_is_answered_twice(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            runner = make_runner()
            await world.start(runner)
            message = {"algorithm": "echo", "payload": {"do": "fail_until", "attempt": 2}, "id": "t1"}
            answers = dict(await stranger.ask(message, message))
            assert answers["0"] == answers["1"]
            assert (answers["0"]["attempt"], answers["0"]["result"]) == (2, 2)
            assert runner.executions == [("t1", 1), ("t1", 2)]

    go(scenario())


def test_task_that_is_cancelled_while_it_waits_never_runs(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            await world.store.cancel("t1")
            runner = make_runner()
            await world.start(runner)
            answers = dict(await stranger.ask(task(1, id="t1"), task(2, id="t2")))
            assert (answers["0"]["state"], answers["1"]["state"]) == ("cancelled", "succeeded")
            assert runner.executions == [("t2", 1)]

    go(scenario())


def test_running_task_without_a_row_is_cancelled(rabbit_world, stranger, make_runner, go, wait_until):
    async def scenario():
        async with rabbit_world() as world:
            runner = make_runner()
            await world.start(runner)
            asking = asyncio.create_task(stranger.ask({"algorithm": "echo", "payload": {"do": "hold"}, "id": "t1"}))
            await wait_until(lambda: runner.started("t1"))
            await world.store.cancel("t1")
            ((_, answer),) = await asking
            assert answer["state"] == "cancelled"
            assert runner.deleted == ["t1"]
            assert (await world.row("t1")).state is TaskState.CANCELLED

    go(scenario())


def test_expired_task_never_runs(rabbit_world, stranger, make_runner, go, wait_until):
    async def scenario():
        async with rabbit_world() as world:
            world.tell_none()
            await world.start_controller()
            runner = make_runner()
            asking = asyncio.create_task(stranger.ask(task(1, id="t1", expires_seconds=0.5)))
            await wait_until(lambda: world.metric("controller_arrivals_total", verdict="forwarded"))
            seen_at = time.monotonic()
            await wait_until(lambda: time.monotonic() - seen_at > 0.6)
            await world.stop_controller()
            await world.start(runner)
            ((_, answer),) = await asking
            assert answer["error"]["code"] == "expired"
            assert runner.executions == []

    go(scenario())


def test_answers_are_never_sent_into_the_environment_s_own_queues(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as world:
            await world.start(make_runner())
            await stranger.send(task(1, id="t1"), reply_to="tasks")
            # also straight to the algorithm's queue, past the ingress queue
            await stranger.send(task(1, id="t2"), queue="echo", exchange="tasks", reply_to="tasks.echo")
            for task_id in ("t1", "t2"):
                assert (await world.ended_soon(task_id)).error_code is FailureCode.MALFORMED
            assert len(await world.store.dead_letters()) == 2

    go(scenario())


@pytest.mark.parametrize("reply_to", ["nobody", "amq.rabbitmq.reply-to.made.up"])
def test_address_that_takes_no_answer_keeps_nothing_waiting(
    rabbit_world, stranger, make_runner, go, wait_until, monkeypatch, reply_to
):
    acknowledged = []

    async def scenario():
        async with rabbit_world() as world:
            acknowledge = world.queue.ack

            async def ack(deliveries):
                await acknowledge(deliveries)
                acknowledged.extend(delivery.id for delivery in deliveries)

            monkeypatch.setattr(world.queue, "ack", ack)
            runner = make_runner()
            await world.start(runner)
            # RabbitMQ ends the connection that sends to a made-up direct address; on the way in it lets it pass
            digest = task_digest("echo", {"value": 1})
            await world.queue.publish([NewTask("t1", "echo", b'{"value":1}', digest, reply_to=reply_to)])
            await world.ended_soon("t1")
            await stranger.send(task(2, id="t2"))
            assert (await world.ended_soon("t2", 40)).result == b"2"
            await wait_until(lambda: world.health.is_ready)
            assert runner.executions == [("t1", 1), ("t2", 1)]
            await wait_until(lambda: {"t1", "t2"} <= set(acknowledged), 40)
        assert await stranger.waiting("tasks.echo") == [0]

    go(scenario())


JUNK = b"\xff" * 255


@pytest.mark.parametrize(
    "properties", [{"correlation_id": JUNK}, {"message_id": JUNK}, {"headers": {JUNK[:100]: JUNK}}]
)
@pytest.mark.parametrize("message", [task(1), b"not JSON"])
def test_properties_that_are_no_text_hold_up_nothing(rabbit_world, stranger, make_runner, go, properties, message):
    async def scenario():
        async with rabbit_world() as world:
            runner = make_runner()
            await world.start(runner)
            await stranger.send(message, reply_to="answers", **properties)
            await stranger.send(task(2, id="t2"))
            assert (await world.ended_soon("t2")).result == b"2"
            async with asyncio.timeout(10):
                while (
                    len(await world.store.lookup(["t2"]))
                    + len(await world.store.dead_letters())
                    + len(runner.executions)
                    < 3
                ):
                    await asyncio.sleep(0.05)
            await world.stop_controller()
        assert await stranger.waiting("tasks", "tasks.echo") == [0, 0]

    go(scenario())


def test_two_controllers_share_the_tasks_and_each_runs_once(rabbit_world, stranger, make_runner, go):
    async def scenario():
        async with rabbit_world() as one, rabbit_world() as two:
            runner = make_runner()
            one.limits["echo"] = two.limits["echo"] = Limits(slots=4)
            await one.start(runner)
            two.source.publish([runner.view], two.limits)
            await two.start_controller()
            await stranger.send(*(task(n, id=f"t{n}") for n in range(200)))
            for n in range(200):
                assert (await one.ended_soon(f"t{n}")).result == b"%d" % n
            assert sorted(runner.executions) == sorted({(f"t{n}", 1) for n in range(200)})
            shares = [world.metric("controller_tasks_taken_total", algorithm="echo") for world in (one, two)]
            assert sum(shares) == 200

    go(scenario())


def test_tasks_sent_twice_at_once_through_a_gateway_run_once_on_two_controllers(rabbit_world, make_runner, go):
    async def scenario():
        async with rabbit_world() as one, rabbit_world() as two:
            runners = [make_runner(f"r{n}") for n in range(4)]
            one.limits["echo"] = two.limits["echo"] = Limits(slots=4)
            await one.start(*runners)
            two.source.publish([runner.view for runner in runners], two.limits)
            await two.start_controller()
            gateway, turns = RecordedQueue(one.queue, one.store), asyncio.Semaphore(8)

            async def send_twice(number):
                payload = {"value": number}
                same = NewTask(f"t{number}", "echo", strict_json.dumps(payload), task_digest("echo", payload))
                async with turns:
                    await asyncio.gather(gateway.publish([same]), gateway.publish([same]))

            await asyncio.gather(*map(send_twice, range(300)))
            for n in range(300):
                await one.ended_soon(f"t{n}")
            await one.stop_controller()
            await two.stop_controller()
            assert sum(len(runner.executions) for runner in runners) == 300

    go(scenario())


def test_stop_loses_no_message_of_a_stranger_and_runs_none_twice(rabbit_world, stranger, make_runner, go, wait_until):
    async def scenario():
        async with rabbit_world() as world:
            runner = make_runner()
            await world.start(runner)
            sending = asyncio.create_task(stranger.send(*(task(n) for n in range(1000))))
            for _ in range(3):
                before = len(runner.executions)
                await wait_until(lambda before=before: len(runner.executions) > before)
                await world.stop_controller()
                await world.start_controller()
            await sending
            async with asyncio.timeout(30):
                while len(runner.executions) < 1000:
                    await asyncio.sleep(0.05)
            await world.stop_controller()
            values = [item["payload"]["value"] for item in runner.items]
            assert sorted(set(values)) == list(range(1000))
            rows = await world.store.counts()
            assert [each.by_state for each in rows] == [{TaskState.SUCCEEDED: 1000}]

    go(scenario())


def test_database_that_is_away_costs_no_result_and_acknowledges_nothing(
    worlds, broker, own_postgres, stranger, make_runner, go, wait_until
):
    async def scenario():
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_rabbitmq(broker.url, retry_steps_seconds=STEPS))
            store = await stack.enter_async_context(open_postgres(own_postgres.url))
            world = await stack.enter_async_context(worlds(parts=(queue, store, store, queue.ingress_feed)))
            runner = make_runner()
            world.limits["echo"] = Limits(slots=4)
            await world.start(runner)
            held = [{"algorithm": "echo", "payload": {"do": "hold"}, "id": f"h{n}"} for n in range(4)]
            asking = asyncio.create_task(stranger.ask(*held))
            await wait_until(lambda: all(runner.started(f"h{n}") for n in range(4)))
            await asyncio.to_thread(own_postgres.stop)
            acked = []
            ack, queue.ack = queue.ack, lambda deliveries: acked.extend(deliveries) or ack(deliveries)
            for n in range(4):
                runner.let_go(f"h{n}", n)
            await wait_until(lambda: "store" in world.health.reasons)
            await stranger.send(*(task(n, id=f"t{n}") for n in range(50)), b"not JSON")
            await wait_until(lambda: world.metric("controller_arrivals_total", verdict="forwarded") >= 54)
            assert acked == []
            assert not runner.started("t0")
            await asyncio.to_thread(own_postgres.start)
            answers = dict(await asking)
            assert [answers[str(n)]["result"] for n in range(4)] == [0, 1, 2, 3]
            for n in range(50):
                assert (await world.ended_soon(f"t{n}")).result == b"%d" % n
            await wait_until(lambda: world.health.is_ready)
            assert len(runner.executions) == len(set(runner.executions)) == 54
            async with asyncio.timeout(10):
                while not await world.store.dead_letters():
                    await asyncio.sleep(0.05)

    go(scenario())


def test_message_without_an_id_stays_one_task_when_its_connection_is_lost(broker, stranger, go):
    async def scenario():
        async with open_rabbitmq(broker.url, retry_steps_seconds=STEPS) as queue:
            door = await queue.ingress_feed()
            await stranger.send(task(1))
            stale = await door.take(10)
            async with asyncio.timeout(15):
                while not await asyncio.to_thread(broker.close_connections):
                    await asyncio.sleep(0.1)
            again = await door.take(10)
            assert [each.body for each in again] == [each.body for each in stale]
            for number, arrivals in enumerate((stale, again)):
                await forward(door, arrivals, f"t{number}")
            feed = await queue.feed("echo")
            await feed.set_prefetch(10)
            assert [each.id for each in await feed.take(10)] == ["t1"]

    go(scenario())


async def forward(door, arrivals, task_id):
    """As an ingress consumer does: until the broker is there again."""
    tasks = [NewTask(task_id, "echo", b'{"value":1}', task_digest("echo", {"value": 1})) for _ in arrivals]
    async with asyncio.timeout(15):
        while True:
            try:
                return await door.forward(arrivals, tasks)
            except QueueUnavailable:
                await asyncio.sleep(0.1)
