"""Gateways on real brokers and a real PostgreSQL: any number side by side, whatever is away."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
import requests

from producer.gateway.service import GatewayService
from producer.gateway.settings import GatewaySettings
from runnerlib.contract import FailureCode, strict_json, task_digest
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.tasks import Delivery, Failed, Record, Succeeded

T = TypeVar("T")
PATIENCE_SECONDS = 30.0
#: Nobody answers there; the gateway then admits every algorithm.
NO_DISCOVERY = "http://127.0.0.1:9"


class Gateway:
    """One gateway, as its process runs it, on an event loop in a thread."""

    def __init__(self, queue_url: str, database_url: str) -> None:
        settings = GatewaySettings(
            port=0, queue_url=queue_url, database_url=database_url, discovery_url=NO_DISCOVERY, grace_seconds=1
        )
        self._service = GatewayService(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._starting = asyncio.run_coroutine_threadsafe(self._service.enter(self._stack), self._loop)
        until(lambda: self._service.server is not None and self._service.server.port, "the gateway listens")

    @property
    def url(self) -> str:
        assert self._service.server is not None
        return f"http://127.0.0.1:{self._service.server.port}"

    def wait_started(self) -> "Gateway":
        self._starting.result(PATIENCE_SECONDS)
        until(lambda: self.ready()[0] == 200, "the gateway is ready")
        return self

    def ready(self) -> tuple[int, dict[str, str]]:
        answer = requests.get(f"{self.url}/healthz/ready", timeout=10)
        return answer.status_code, answer.json()["reasons"]

    def submit(self, text: str, **envelope: Any) -> requests.Response:
        message = {"algorithm": "upper", "payload": {"text": text}, **envelope}
        return requests.post(f"{self.url}/tasks", json=message, timeout=PATIENCE_SECONDS)

    def look(self, task_id: str, wait_seconds: float = 0) -> requests.Response:
        headers = {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        return requests.get(f"{self.url}/tasks/{task_id}", headers=headers, timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        self._starting.cancel()
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()


@pytest.fixture
def start_gateway() -> Iterator[Callable[[str, str], Gateway]]:
    running: list[Gateway] = []

    def start(queue_url: str, database_url: str) -> Gateway:
        running.append(Gateway(queue_url, database_url))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway: Callable[[str, str], Gateway], broker: Any, database_url: str) -> Gateway:
    return start_gateway(broker.url, database_url).wait_started()


def test_accepted_task_is_in_the_broker_and_in_the_store(gateway: Gateway, broker: Any, database_url: str) -> None:
    answer = gateway.submit("a", id="one", expires_seconds=60)
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    [delivery] = taken(broker.url, 1)
    assert (delivery.id, delivery.payload) == ("one", b'{"text":"a"}')
    assert delivery.expires_at is not None
    assert gateway.look("one").json()["state"] == "queued"
    status = requests.get(f"{gateway.url}/status", timeout=10).json()
    assert [(each["name"], each["tasks"]["waiting"]) for each in status["algorithms"]] == [("upper", 1)]


def test_same_id_is_one_task_and_other_content_is_a_conflict(gateway: Gateway, broker: Any) -> None:
    assert [gateway.submit("a", id="one").status_code for _ in range(3)] == [202, 202, 202]
    conflict = gateway.submit("b", id="one")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "id_conflict")
    gateway.submit("c", id="two")
    assert [delivery.id for delivery in taken(broker.url, 2)] == ["one", "two"]


def test_failed_task_is_replayed_to_the_broker_with_its_next_attempt(
    gateway: Gateway, start_gateway: Callable[[str, str], Gateway], broker: Any, database_url: str
) -> None:
    gateway.submit("a", id="one")
    record(database_url, [Failed(each, FailureCode.HANDLER_ERROR, "no") for each in taken(broker.url, 1)])
    other = start_gateway(broker.url, database_url).wait_started()
    [letter] = requests.get(f"{other.url}/dead?algorithm=upper", timeout=10).json()["dead_letters"]
    answer = requests.post(f"{other.url}/dead/{letter['dead_id']}/replay", timeout=PATIENCE_SECONDS)
    assert (answer.status_code, answer.json()["attempt"], answer.json()["replays"]) == (202, 2, 1)
    # nobody has acknowledged the first one
    assert [(each.id, each.attempt, each.payload) for each in taken(broker.url, 2)] == [
        ("one", 1, b'{"text":"a"}'),
        ("one", 2, b'{"text":"a"}'),
    ]
    again = requests.post(f"{gateway.url}/dead/{letter['dead_id']}/replay", timeout=PATIENCE_SECONDS)
    assert (again.status_code, again.json()["code"]) == (409, "already_replayed")
    # NUL and other words that a database has no text for end at the door
    for path in ("/tasks?algorithm=%00", "/dead?task_id=%00", "/tasks?created_from=9999-12-31T23:59:59Z", "/dead/%00"):
        assert requests.get(f"{gateway.url}{path}", timeout=10).status_code in (200, 404, 422)


def test_task_that_was_cancelled_before_it_came_is_never_sent(gateway: Gateway, broker: Any) -> None:
    assert requests.delete(f"{gateway.url}/tasks/early", timeout=10).json()["state"] == "cancelled"
    assert gateway.submit("a", id="early").json()["state"] == "cancelled"
    gateway.submit("b", id="late")
    assert [delivery.id for delivery in taken(broker.url, 1)] == ["late"]


def test_result_is_waited_for_at_any_gateway(
    gateway: Gateway, start_gateway: Callable[[str, str], Gateway], broker: Any, database_url: str
) -> None:
    other = start_gateway(broker.url, database_url).wait_started()
    task_id = gateway.submit("a").json()["id"]
    answers: list[tuple[float, requests.Response]] = []

    def wait() -> None:
        answer = other.look(task_id, 20)
        answers.append((time.monotonic(), answer))

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: metric(other, "gateway_waits") == 1, "the other gateway waits")
    recorded_at = record_success(database_url, taken(broker.url, 1))
    waiting.join(PATIENCE_SECONDS)
    [(answered_at, answer)] = answers
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", "A")
    # By the database's notice; the poll alone would take up to a second.
    assert answered_at - recorded_at < 0.9


def test_task_that_nobody_has_seen_is_waited_for(gateway: Gateway, database_url: str) -> None:
    started_at = time.monotonic()
    assert gateway.look("stranger", 0.5).status_code == 404
    assert time.monotonic() - started_at >= 0.5
    recording = threading.Timer(0.3, lambda: record_success(database_url, [delivery_of("stranger")]))
    recording.start()
    assert gateway.look("stranger", 20).json()["result"] == "A"
    recording.join()


def test_store_that_comes_later_is_waited_for(
    start_gateway: Callable[[str, str], Gateway], broker: Any, own_postgres: Any
) -> None:
    own_postgres.stop()
    gateway = start_gateway(broker.url, own_postgres.url)
    until(lambda: "store" in gateway.ready()[1] and gateway.ready()[1]["store"] != "starting", "the reason is told")
    assert gateway.ready()[0] == 503
    refused = gateway.submit("a")
    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "starting", "1")
    own_postgres.start()
    gateway.wait_started()
    assert gateway.submit("a").status_code == 202


def test_store_that_goes_away_is_told_and_comes_back_by_itself(
    start_gateway: Callable[[str, str], Gateway], broker: Any, own_postgres: Any
) -> None:
    gateway = start_gateway(broker.url, own_postgres.url).wait_started()
    own_postgres.stop()
    refused = gateway.submit("a", id="one")
    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    until(lambda: gateway.ready()[0] == 503 and "store" in gateway.ready()[1], "the gateway is not ready")
    own_postgres.start()
    until(lambda: gateway.submit("a", id="one").status_code == 202, "tasks are accepted again")
    until(lambda: gateway.ready()[0] == 200, "the gateway is ready again")
    assert gateway.look("one").json()["state"] == "queued"


def test_broker_that_is_away_or_blocked_is_told_and_comes_back_by_itself(
    start_gateway: Callable[[str, str], Gateway], own_broker: Any, database_url: str
) -> None:
    server = own_broker()
    gateway = start_gateway(server.url, database_url).wait_started()
    server.stop()
    until(lambda: "queue" in gateway.ready()[1], "the gateway is not ready")
    assert server.password not in str(gateway.ready())
    refused = gateway.submit("a", id="one")
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_unavailable")
    server.start()
    until(lambda: gateway.submit("a", id="one").status_code == 202, "tasks are accepted again")
    server.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    until(lambda: gateway.submit("b", id="two").status_code == 503, "the broker blocks")
    assert gateway.ready()[0] == 503
    server.ctl("set_vm_memory_high_watermark", "0.6")
    until(lambda: gateway.submit("b", id="two").status_code == 202, "the broker takes tasks again")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"QUEUE_URL": "amqp://me:hush@127.0.0.1/"}, "set DATABASE_URL=postgresql://"),
        ({"DATABASE_URL": "postgresql://me:hush@127.0.0.1/tasks"}, "set QUEUE_URL=amqp://"),
        ({"RABBITMQ_HOST": "127.0.0.1", "DATABASE_URL": "sqlite:///tasks"}, "set DATABASE_URL=postgresql://"),
        ({"RABBITMQ_HOST": "127.0.0.1", "QUEUE_NAME": "work"}, "QUEUE_NAME can only be 'tasks'"),
    ],
)
def test_servers_that_do_not_go_together_are_refused(variables: dict[str, str], sentence: str) -> None:
    done = run_gateway(variables)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "hush" not in done.stderr


def test_wrong_password_and_misspelt_address_end_the_start_with_a_sentence(
    database_url: str, postgres_server: Any
) -> None:
    wrong = re.sub(r"//[^@]*@", "//nobody:hush@", database_url)
    for queue, database, words in (
        ("amqp://127.0.0.1:9/", wrong, "DATABASE_URL"),
        ("amqp://me:hush@127.0.0.1:port/", database_url, "port for host '127.0.0.1' must be a number"),
    ):
        done = run_gateway({"QUEUE_URL": queue, "DATABASE_URL": database})
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
        assert "hush" not in done.stderr
        assert "Traceback" not in done.stderr


# what a controller would do


def taken(url: str, count: int) -> list[Delivery]:
    """Takes what the gateway sent, through the ingress queue when the algorithm's queue is not declared yet."""

    async def take() -> list[Delivery]:
        async with asyncio.timeout(PATIENCE_SECONDS), open_rabbitmq(url, retry_steps_seconds=(0.2,)) as queue:
            door = await queue.ingress_feed()
            arrivals = []
            while len(arrivals) < count:
                arrivals += await door.take(count)
            return [
                delivery_of(
                    str(arrival.message_id),
                    strict_json.loads(arrival.body)["payload"],
                    arrival.attempt,
                    expires_at=arrival.expires_at,
                )
                for arrival in arrivals
            ]

    return asyncio.run(take())


def delivery_of(task_id: str, payload: Any = None, attempt: int = 1, **more: Any) -> Delivery:
    value = {"text": "a"} if payload is None else payload
    return Delivery(task_id, "upper", strict_json.dumps(value), task_digest("upper", value), attempt, None, **more)


def record_success(database_url: str, deliveries: list[Delivery]) -> float:
    """Commits their outcome; returns when, by the monotonic clock."""
    return record(database_url, [Succeeded(delivery, b'"A"') for delivery in deliveries])


def record(database_url: str, records: Sequence[Record]) -> float:
    async def write() -> float:
        async with open_postgres(database_url) as store:
            await store.record(records)
            return time.monotonic()

    return asyncio.run(write())


def metric(gateway: Gateway, name: str) -> float:
    text = requests.get(f"{gateway.url}/metrics", timeout=10).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def run_gateway(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "DISCOVERY_URL": NO_DISCOVERY, **variables}
    command = [sys.executable, "-P", "-m", "producer.gateway"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.05)
