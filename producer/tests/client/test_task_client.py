"""The Python client, by a real gateway and straight to real brokers."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from environments import Production

from producer import DeadLetterFilter, TaskClient
from producer.client.steps import Request
from producer.client.transport import Transport
from producer.errors import (
    BrokerUnreachable,
    GatewayUnreachable,
    NoGateway,
    NotAllSent,
    NotFinished,
    Refused,
    SomeRefused,
    TaskFailed,
)
from producer.models import FailureCode, TaskState
from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.rabbitmq.topology import declare_topology
from taskqueue.tasks import Delivery, Succeeded


@pytest.fixture
def client(gateway: Any) -> Iterator[TaskClient]:
    with TaskClient(gateway.url) as made:
        yield made


def test_result_of_a_task(gateway: Any, client: TaskClient) -> None:
    task_id = client.submit("upper", {"text": "a"})
    assert client.get(task_id).state is TaskState.QUEUED
    gateway.succeed("upper", b'"A"')
    assert client.result(task_id, 10) == "A"


def test_gateway_that_does_not_wait_is_asked_with_pauses(gateway: Any, client: TaskClient, monkeypatch: Any) -> None:
    asked, usual = [], Transport.send

    def at_once(self: Transport, request: Request) -> Any:
        asked.append(request.wait_seconds)
        return usual(self, dataclasses.replace(request, wait_seconds=0))

    task_id = client.submit("upper", {"text": "a"})
    monkeypatch.setattr(Transport, "send", at_once)
    with pytest.raises(NotFinished, match="is queued after"):
        client.wait(task_id, 1.0)
    assert 2 <= len(asked) <= 7


def test_task_that_failed_or_was_cancelled_has_no_result(gateway: Any, client: TaskClient) -> None:
    task_id = client.submit("upper", {"text": "a"})
    gateway.fail("upper", "too small")
    with pytest.raises(TaskFailed, match=r"failed \(handler_error\): too small") as failed:
        client.result(task_id, 10)
    assert failed.value.view.state is TaskState.FAILED
    second = client.submit("upper", {"text": "a"})
    assert client.cancel(second).state is TaskState.CANCELLED
    with pytest.raises(TaskFailed, match="was cancelled"):
        client.result(second, 10)
    with pytest.raises(Refused, match="has ended already"):
        client.cancel(task_id)


def test_wait_that_is_over_tells_how_the_task_is(client: TaskClient) -> None:
    task_id = client.submit("upper", {"text": "a"})
    with pytest.raises(TimeoutError, match=r"is queued after 0\.1 s") as over:
        client.wait(task_id, 0.1)
    assert isinstance(over.value, NotFinished)
    assert over.value.view is not None and over.value.view.id == task_id


def test_unknown_task_is_refused(client: TaskClient) -> None:
    with pytest.raises(Refused, match="There is no task"):
        client.wait("unknown", 0.1)


def test_many_tasks_keep_their_order(gateway: Any, client: TaskClient) -> None:
    numbers = range(2_345)
    ids = client.submit_many(("upper", {"text": str(n)}) for n in numbers)
    rows = gateway.run(gateway.store.lookup(ids[:1000] + ids[2000:]))
    assert [rows[ids[n]].payload for n in (0, 999, 2000, 2344)] == [b'{"text":"%d"}' % n for n in (0, 999, 2000, 2344)]
    assert len(set(ids)) == len(numbers)
    for number in range(3):
        gateway.succeed("upper", b"%d" % number)
    assert [view.result for view in client.wait_many(ids[:3], 10)] == [0, 1, 2]


def test_refused_ones_of_many_are_told_by_position_and_the_others_are_queued(gateway: Any, client: TaskClient) -> None:
    tasks: list[Any] = [
        ("upper", {"text": "a"}),
        ("upper", {}),
        ("upper", float("nan")),
        {"algorithm": "upper", "payload": {"text": "b"}, "id": "mine", "expires_seconds": 60},
        "upper",
    ]
    with pytest.raises(
        SomeRefused, match=r"3 of 5 tasks were refused.*task 2 of them, tasks\[1\]: .*text is missing"
    ) as some:
        client.submit_many(tasks)
    assert {position: error.code for position, error in some.value.refused.items()} == {
        1: "invalid_payload",
        2: "malformed",
        4: "malformed",
    }
    assert some.value.ids[3] == "mine"
    rows = gateway.run(gateway.store.lookup([some.value.ids[0], "mine"]))
    assert len(rows) == 2
    assert rows["mine"].expires_at is not None


def test_group_and_delay_are_told_for_one_task_and_for_those_of_many_that_have_none(
    gateway: Any, client: TaskClient, monkeypatch: Any
) -> None:
    sent, usual = [], gateway.queue.publish

    async def publish(tasks: Any, **options: Any) -> Any:
        sent.extend(tasks)
        return await usual(tasks, **options)

    monkeypatch.setattr(gateway.queue, "publish", publish)
    client.submit("upper", {"text": "a"}, delay_seconds=60, expires_seconds=90, group="acme")
    own = {"algorithm": "upper", "payload": {"text": "c"}, "delay_seconds": 0, "group": "other"}
    client.submit_many([("upper", {"text": "b"}), own], delay_seconds=3600, group="acme")
    client.submit("upper", {"text": "d"})
    assert [task.group for task in sent] == ["acme", "acme", "other", None]
    assert [task.not_before is not None for task in sent] == [True, True, False, False]
    assert sent[0].expires_at - sent[0].not_before == pytest.approx(30)
    assert sent[1].not_before - sent[0].not_before == pytest.approx(3540, abs=30)


def test_many_tasks_that_break_off_tell_what_is_queued(gateway: Any, client: TaskClient, monkeypatch: Any) -> None:
    published, usual = [], gateway.queue.publish

    async def twice(tasks: Any, **options: Any) -> Any:
        published.append(len(tasks))
        if len(published) > 2:
            raise QueueUnavailable("disk is full")
        return await usual(tasks, **options)

    monkeypatch.setattr(gateway.queue, "publish", twice)
    tasks: list[Any] = [("upper", {"text": str(n)}) for n in range(2_500)]
    tasks[7] = ("upper", {})
    with TaskClient(gateway.url, patience_seconds=0.1) as impatient, pytest.raises(NotAllSent) as broken:
        impatient.submit_many(tasks)
    error = broken.value
    assert "Until then 1999 tasks were queued; whether 500 more were is not known" in str(error)
    assert isinstance(error.__cause__, Refused) and error.__cause__.code == "queue_unavailable"
    assert (len(error.ids), len(error.accepted_ids), min(error.unsure), [*error.refused]) == (2_500, 1_999, 2_000, [7])
    assert len(gateway.run(gateway.store.lookup(error.ids))) == 1_999
    monkeypatch.setattr(gateway.queue, "publish", usual)
    rest = [p for p in range(2_500) if p not in error.accepted and p not in error.refused]
    messages = [{"algorithm": "upper", "payload": tasks[p][1], "id": error.ids[p]} for p in rest]
    assert client.submit_many(messages) == [error.ids[p] for p in rest]
    assert len(gateway.run(gateway.store.lookup(error.ids))) == 2_499


def test_many_are_waited_for_by_few_questions(gateway: Any, client: TaskClient, monkeypatch: Any) -> None:
    asked, usual = [], Transport.send

    def counted(self: Transport, request: Request) -> Any:
        asked.append((request.method, request.path))
        return usual(self, request)

    monkeypatch.setattr(Transport, "send", counted)
    ids = client.submit_many([("anything", n) for n in range(250)])
    for number in range(250):
        gateway.succeed("anything", b"%d" % number)
    asked.clear()
    assert [view.result for view in client.wait_many(ids, 20)] == [*range(250)]
    assert asked == [("POST", "/tasks/lookup")] * 3


def test_one_of_many_that_has_not_ended_or_is_unknown_is_told(gateway: Any, client: TaskClient) -> None:
    ids = client.submit_many([("upper", {"text": "a"}), ("anything", 1)])
    gateway.succeed("anything", b"1")
    with pytest.raises(NotFinished, match=f"task {ids[0]} is queued after") as late:
        client.wait_many(ids, 0.3)
    assert late.value.view is not None
    with pytest.raises(Refused, match="no task 'nobody'"):
        client.wait_many([ids[1], "nobody"], 5)
    ending = threading.Timer(0.3, gateway.succeed, args=("upper", b'"A"'))
    ending.start()
    assert [view.result for view in client.wait_many(ids, 20)] == ["A", 1]
    ending.join()


def test_failed_tasks_are_listed_replayed_and_discarded(gateway: Any, client: TaskClient) -> None:
    ids = client.submit_many([("upper", {"text": "a"})] * 3)
    for _ in ids:
        gateway.fail("upper", "too small")
    third, second, first = client.dead_letters(DeadLetterFilter(algorithm="upper", codes=[FailureCode.HANDLER_ERROR]))
    assert [letter.task_id for letter in (first, second, third)] == ids
    assert [task.id for task in client.tasks(states=[TaskState.FAILED], limit=2)] == [ids[2], ids[1]]
    assert client.replay(first.dead_id).state is TaskState.QUEUED
    with pytest.raises(Refused) as again:
        client.replay(first.dead_id)
    assert (again.value.status, again.value.code) == (409, "already_replayed")
    assert client.discard(second.dead_id).discarded_at is not None
    done = client.discard_many([second.dead_id, third.dead_id])
    assert (done.done, [(one.dead_id, one.code) for one in done.skipped]) == (
        1,
        [(second.dead_id, "already_discarded")],
    )
    assert client.dead_letters() == []
    assert client.replay_many(DeadLetterFilter()).done == 0
    gateway.succeed("upper", b'"A"')
    assert client.result(ids[0], 10) == "A"
    assert client.get(ids[0]).replays == 1


def test_many_threads_share_one_client(gateway: Any, client: TaskClient) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(client.submit("upper", {"text": "a"}))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(gateway.run(gateway.store.lookup(ids))) == 16


def test_forked_processes_neither_share_its_connections_nor_end_those_of_their_parent(
    gateway: Any, client: TaskClient
) -> None:
    for number in range(8):
        client.submit("anything", number, task_id=f"t{number}")
        gateway.succeed("anything", b"%d" % number)
    children = [_forked(client, number) for number in range(8)]
    for number in range(40):
        assert client.result(f"t{number % 8}", 10) == number % 8
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert client.result("t0", 10) == 0


def _forked(client: TaskClient, number: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    try:
        code = 0 if all(client.result(f"t{number}", 10) == number for _ in range(20)) else 2
        client.close()
    finally:
        os._exit(code)


@pytest.mark.parametrize(
    ("algorithm", "payload", "more", "sentence"),
    [
        ("No Name", {}, {}, "'algorithm' must be a name"),
        ("upper", {"n": 2**80}, {}, "does not fit in 64 bits"),
        ("upper", "\ud800", {}, "cannot be sent as JSON"),
        ("upper", float("nan"), {}, "cannot be sent as JSON"),
        ("upper", {}, {"task_id": "no spaces"}, "'id' must be"),
        ("upper", {}, {"expires_seconds": -1}, "'expires_seconds' must be"),
        ("upper", {}, {"delay_seconds": 604_801}, "'delay_seconds' must be"),
        ("upper", {}, {"delay_seconds": 9, "expires_seconds": 9}, "'expires_seconds' must be more than"),
        ("upper", {}, {"group": "no spaces"}, "'group' must be"),
    ],
)
@pytest.mark.parametrize("way", ["gateway", "broker"])
def test_what_can_never_be_a_task_is_refused_by_either_way(
    gateway: Any, algorithm: str, payload: Any, more: Any, sentence: str, way: str
) -> None:
    """The broker is not asked: there is none."""
    address = {"gateway_url": gateway.url} if way == "gateway" else {"queue_url": "amqp://guest:guest@127.0.0.1:9/"}
    with TaskClient(**address, patience_seconds=0) as client, pytest.raises(Refused, match=sentence):
        client.submit(algorithm, payload, **more)


def test_what_can_never_be_a_task_keeps_no_other_from_the_broker(upper_queue: str) -> None:
    with TaskClient(queue_url=upper_queue) as client, pytest.raises(SomeRefused) as some:
        client.submit_many([("upper", 1), ("No Name", 2), ("upper", 2**80), ("upper", 4)])
    assert [*some.value.refused] == [1, 2]
    assert [delivery.payload for delivery in _taken(upper_queue, 2)] == [b"1", b"4"]


def test_client_that_goes_nowhere_or_was_closed_says_so() -> None:
    with pytest.raises(ValueError, match="name where tasks go"):
        TaskClient()
    client = TaskClient("http://127.0.0.1:9")
    client.close()
    client.close()
    with pytest.raises(GatewayUnreachable, match="was closed"):
        client.submit("upper", {})


def test_import_loads_no_broker_s_client_and_the_gateway_no_client_at_all() -> None:
    programs = {
        "import producer.gateway.build": ("requests", "pika", "psycopg"),
        "from producer import TaskClient; TaskClient('http://127.0.0.1:9').close()": ("pika", "psycopg", "sqlalchemy"),
    }
    for program, unwanted in programs.items():
        check = f"import sys; {program}; print([name for name in {unwanted!r} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "[]", program


# straight to the broker


def test_tasks_go_straight_to_the_broker(upper_queue: str) -> None:
    with TaskClient(queue_url=upper_queue) as client:
        first = client.submit("upper", {"text": "ü"}, expires_seconds=60)
        ids = client.submit_many([("upper", {"text": str(n)}) for n in range(1_200)])
        with pytest.raises(NoGateway, match="give the gateway's address"):
            client.wait(first)
    deliveries = _taken(upper_queue, 1_201)
    assert [delivery.id for delivery in deliveries] == [first, *ids]
    assert deliveries[0].payload == '{"text":"ü"}'.encode()
    assert deliveries[0].expires_at is not None and deliveries[1].expires_at is None


def test_many_threads_share_one_publisher(upper_queue: str) -> None:
    with TaskClient(queue_url=upper_queue) as client:
        ids: list[str] = []

        def send() -> None:
            ids.extend(client.submit("upper", {"text": "a"}) for _ in range(25))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(set(ids)) == 200
    assert {delivery.id for delivery in _taken(upper_queue, 200)} == set(ids)


def test_what_went_past_the_gateway_is_waited_for_until_it_is_seen(upper_queue: str, gateway: Any) -> None:
    with TaskClient(gateway.url, queue_url=upper_queue) as client:
        task_id = client.submit("upper", {"text": "a"})
        with pytest.raises(NotFinished, match="nobody has seen"):
            client.wait(task_id, 0.3)
        [delivery] = _taken(upper_queue, 1)
        recording = threading.Timer(0.3, lambda: gateway.run(gateway.store.record([Succeeded(delivery, b'"A"')])))
        recording.start()
        assert client.result(task_id, 20) == "A"
        recording.join()


def test_broker_that_comes_back_is_waited_for(own_broker: Any) -> None:
    server = own_broker()
    _declared(server.url)
    with TaskClient(queue_url=server.url, patience_seconds=60) as client:
        client.submit("upper", {"text": "a"}, task_id="first")
        server.stop()
        back = threading.Thread(target=server.start)
        back.start()
        client.submit("upper", {"text": "a"}, task_id="second")
        back.join()
    assert {"first", "second"} <= {delivery.id for delivery in _taken(server.url, 2)}


def test_broker_that_is_away_or_misspelt_is_told_without_the_password() -> None:
    with (
        TaskClient(queue_url="amqp://me:hush@127.0.0.1:9/", patience_seconds=0) as client,
        pytest.raises(BrokerUnreachable, match="No connection to the broker") as away,
    ):
        client.submit("upper", {})
    assert "hush" not in str(away.value)
    with pytest.raises(BrokerUnreachable, match="amqp://") as misspelt:
        TaskClient(queue_url="http://me:hush@127.0.0.1")
    assert "hush" not in str(misspelt.value)


def test_close_ends_the_thread_and_whoever_still_sends() -> None:
    before = set(threading.enumerate())
    client = TaskClient(queue_url="amqp://guest:guest@127.0.0.1:9/", patience_seconds=60)
    errors: list[BaseException] = []

    def send() -> None:
        with contextlib.suppress(BrokerUnreachable):
            client.submit("upper", {})
            errors.append(AssertionError("there is no broker"))

    sending = threading.Thread(target=send)
    sending.start()
    client.close()
    sending.join(10)
    assert not sending.is_alive()
    assert not errors
    assert set(threading.enumerate()) <= before
    with pytest.raises(BrokerUnreachable, match="was closed"):
        client.submit("upper", {})


def test_stranger_s_reader_finds_the_id_and_the_message_alone(broker: Any) -> None:
    with TaskClient(queue_url=broker.url) as client:
        task_id = client.submit("upper", {"text": "a"})
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        # the ingress queue: the algorithm has none yet
        method, properties, body = connection.channel().basic_get("tasks")
    assert method is not None
    assert (properties.message_id, properties.delivery_mode) == (task_id, 2)
    assert body == b'{"algorithm":"upper","payload":{"text":"a"}}'


def test_results_come_back_through_a_whole_environment(tmp_path: Path, broker: Any, database_url: str) -> None:
    environment = Production(tmp_path, queue_url=broker.url, database_url=database_url)
    try:
        environment.start("steady")
        for more in ({}, {"queue_url": broker.url}):
            with TaskClient(environment.core.url, **more) as client:
                ids = client.submit_many([("square", {"number": n}) for n in range(300)])
                assert [view.result for view in client.wait_many(ids, 40)] == [n * n for n in range(300)]
                with pytest.raises(TaskFailed, match="expired"):
                    client.result(client.submit("square", {"number": 2}, expires_seconds=1e-6), 20)
        _check_commands(environment.core.url, tmp_path)
    finally:
        environment.stop()


def _check_commands(url: str, folder: Path) -> None:
    """A file of tasks, and the two that failed before once more, by the commands that a person has."""
    file, out = folder / "many.jsonl", folder / "out.jsonl"
    file.write_text("".join(f'{{"algorithm": "square", "payload": {{"number": {n}}}}}\n' for n in range(1_100)))
    commands = (
        ["send-many", str(file), "--wait", "--results", str(out), "--timeout", "60"],
        ["dead", "replay", "--code", "expired", "--yes"],
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "producer", *command, "--gateway", url], timeout=90, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "2 dead letters were replayed" in done.stderr
    assert [json.loads(line)["result"] for line in out.read_text().splitlines()] == [n * n for n in range(1_100)]
    with TaskClient(url) as client:
        replayed = [task.id for task in client.tasks(limit=2_000) if task.replays]
        assert [view.result for view in client.wait_many(replayed, 40)] == [4, 4]


@pytest.fixture
def upper_queue(broker: Any) -> str:
    """The URL of a broker where a controller has declared the queue of `upper`."""
    return _declared(str(broker.url))


def _declared(url: str) -> str:
    async def declare() -> None:
        async with asyncio.timeout(60), RobustConnection(parse_queue_url(url), "test") as connection:
            await declare_topology(await connection.channel(), steps_seconds=(), algorithms=["upper"])

    asyncio.run(declare())
    return url


def _taken(url: str, count: int) -> list[Delivery]:
    """Takes what is there, as a controller would."""

    async def take() -> list[Delivery]:
        async with asyncio.timeout(60), open_rabbitmq(url, retry_steps_seconds=(0.2,)) as queue:
            feed = await queue.feed("upper")
            await feed.set_prefetch(count)
            found: list[Delivery] = []
            while len(found) < count:
                found += await feed.take(count)
            await queue.ack(found)
            return found

    return asyncio.run(take())
