"""What may be sent: rates and waiting tasks of a token, waiting tasks of an algorithm."""

import asyncio
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from token_senders import ADMIN_TOKEN, Sender

from producer.client.client import GatewayClient, TaskClient
from producer.errors import Refused as RefusedBySender
from producer.gateway.admission import Refused
from producer.gateway.callers import Caller
from producer.gateway.limits import RateLimits, WaitingLimits
from runnerlib.contract import Limits
from taskqueue.postgres import open_postgres
from taskqueue.rabbitmq.queue import open_rabbitmq
from taskqueue.recorded import RecordedQueue
from taskqueue.tasks import NewTask
from taskqueue.tokens import Scope, SendLimits

MakeSender = Callable[..., Sender]
MESSAGE = {"algorithm": "anything", "payload": 1}


def caller(key_id: str = "a1", **limits: float) -> Caller:
    return Caller(key_id, frozenset({Scope.SUBMIT}), limits=SendLimits(**limits))  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_request_is_let_in_after_the_seconds_that_its_refusal_names_and_not_before() -> None:
    clock = Clock()
    rates, sender = RateLimits(clock), caller(rate_per_second=0.3, burst=4)
    assert rates.take(sender, 4, 10) is None
    refused = rates.take(sender, 2, 10)
    assert refused is not None and refused.retry_after_seconds == 7
    clock.now += refused.retry_after_seconds - 1
    assert rates.take(sender, 2, 10) is not None
    clock.now += 1
    assert rates.take(sender, 2, 10) is None
    assert rates.take(caller("b2", rate_per_second=1), 1, 10) is None


def test_refused_request_costs_neither_tasks_nor_bytes() -> None:
    clock = Clock()
    rates, sender = RateLimits(clock), caller(rate_per_second=1, burst=2, bytes_per_second=100)
    assert rates.take(sender, 1, 100) is None
    refused = rates.take(sender, 1, 50)
    assert refused is not None and refused.retry_after_seconds == 1 and "100 bytes a second" in refused.message
    clock.now += 1
    assert rates.take(sender, 2, 100) is None
    assert rates.take(caller(), 10**6, 10**9) is None


def test_sender_over_its_rate_gets_429_with_the_time_to_wait(guarded: Any, admin: Sender) -> None:
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "rate_per_second": 0.1, "burst": 2}).json()
    sender = Sender(guarded.url, made["token"])
    assert sender.submit("anything", 1).status_code == 202
    assert sender.post("/algorithms/anything/tasks", 1).status_code == 202
    for refused in (
        sender.submit("anything", 1),
        sender.post("/algorithms/anything/run", 1),
        sender.post("/tasks/batch", [MESSAGE]),
    ):
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 9 <= int(refused.headers["Retry-After"]) <= 10
        assert refused.json()["detail"].startswith("this token may send 0.1 tasks a second, 2 at once; ")
    assert admin.submit("anything", 1).status_code == 202
    assert len(admin.get("/tasks").json()["tasks"]) == 3


def test_batch_counts_its_members_and_is_refused_as_a_whole(guarded: Any, admin: Sender) -> None:
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "rate_per_second": 0.1, "burst": 5}).json()
    sender = Sender(guarded.url, made["token"])
    assert sender.post("/tasks/batch", [MESSAGE] * 3).status_code == 202
    refused = sender.post("/tasks/batch", [MESSAGE] * 3)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 9 <= int(refused.headers["Retry-After"]) <= 10
    assert sender.post("/tasks/batch", [MESSAGE] * 2).status_code == 202
    assert len(admin.get("/tasks").json()["tasks"]) == 5


def test_bytes_of_bodies_are_counted_of_batches_before_they_are_read(guarded: Any, admin: Sender) -> None:
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "bytes_per_second": 100}).json()
    sender = Sender(guarded.url, made["token"])
    assert sender.submit("anything", "x" * 1000).status_code == 202
    for path, body in (("/tasks", MESSAGE), ("/tasks/batch", "no batch at all")):
        refused = sender.post(path, body)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 8 <= int(refused.headers["Retry-After"]) <= 11


def test_token_that_may_have_few_tasks_waiting_is_let_in_again_when_they_are_taken(guarded: Any, admin: Sender) -> None:
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "most_waiting": 2}).json()
    sender = Sender(guarded.url, made["token"])
    too_large = sender.post("/tasks/batch", [MESSAGE] * 3)
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
    assert sender.post("/tasks/batch", [MESSAGE] * 2).status_code == 202
    refused = sender.submit("anything", 1)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waiting")
    assert refused.headers["Retry-After"] == "1"
    assert admin.submit("anything", 1).status_code == 202
    guarded.succeed("anything", b"1")
    with GatewayClient(guarded.url, token=made["token"]) as client:
        client.submit("anything", 1)
        with pytest.raises(RefusedBySender):
            GatewayClient(guarded.url, token=made["token"], patience_seconds=0).submit("anything", 1)


def test_algorithm_that_may_have_few_tasks_waiting_refuses_every_sender(gateway: Any) -> None:
    description = gateway.watch.catalogue.algorithms["anything"].description
    description.limits = Limits(most_waiting=1)
    assert gateway.post("anything", 1).status_code == 202
    refused = gateway.post("anything", 1)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waiting")
    assert refused.headers["Retry-After"] == "1" and "'anything'" in refused.json()["detail"]
    assert gateway.post("upper", {"text": "a"}).status_code == 202


class CountedStore:
    """Counts what it is asked, and answers when the test lets it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.asked = 0

    async def count_waiting(self, most: int, **_of: str | None) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        return min(most, self.waiting)


def test_waiting_tasks_are_counted_once_a_second_and_none_slips_in_meanwhile() -> None:
    store, clock = CountedStore(), Clock()
    limits = WaitingLimits(store, type("View", (), {"catalogue": None})(), clock)  # type: ignore[arg-type]
    sender, task = caller(most_waiting=10), NewTask("a", "anything", b"1", "d")

    async def send(count: int) -> Refused | None:
        entries = limits.entries(sender, [task] * count)
        refused = await limits.enter(entries)
        if refused is None:
            await asyncio.sleep(0)
            store.waiting += count
            limits.leave(entries)
        return refused

    async def scenario() -> None:
        answers = await asyncio.gather(*(send(1) for _ in range(100)))
        assert (answers.count(None), store.waiting, store.asked) == (10, 10, 1)
        store.waiting = 7
        assert await send(1) is not None
        clock.now += 1
        assert [await send(2), await send(1)] == [None, None]
        assert await send(1) is not None
        assert store.asked == 2

    asyncio.run(scenario())


def test_client_waits_as_long_as_the_gateway_says(guarded: Any, admin: Sender) -> None:
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "rate_per_second": 1, "burst": 1}).json()
    with TaskClient(guarded.url, token=made["token"]) as client:
        client.submit("anything", 1)
        began_at = time.monotonic()
        client.submit("anything", 2)
        assert 0.5 < time.monotonic() - began_at < 10
    counted = guarded.registry.get_sample_value
    labels = {"algorithm": "unknown", "outcome": "rate_limited"}
    assert counted("gateway_submissions_total", labels) == 1


@pytest.fixture(params=["embedded", "servers"])
def any_guarded(request: pytest.FixtureRequest, tmp_path: Path, start_gateway: Callable[..., Any]) -> Any:
    """A gateway where tokens are in use: on a file, and on RabbitMQ and PostgreSQL."""
    if request.param == "embedded":
        return start_gateway(tmp_path, admin_token=ADMIN_TOKEN)
    server, database_url = request.getfixturevalue("broker_servers")("4"), request.getfixturevalue("database_url")
    vhost = f"limits-{secrets.token_hex(4)}"
    server.add_vhost(vhost)
    request.addfinalizer(lambda: server.remove_vhost(vhost))

    @asynccontextmanager
    async def opened(_folder: Path) -> AsyncIterator[Any]:
        rabbit = open_rabbitmq(server.url_of(vhost), retry_steps_seconds=())
        async with rabbit as queue, open_postgres(database_url) as store:
            yield RecordedQueue(queue, store), store

    return start_gateway(tmp_path, admin_token=ADMIN_TOKEN, open_parts=opened)


def test_token_may_have_so_many_waiting_whatever_the_queue(any_guarded: Any) -> None:
    admin = Sender(any_guarded.url, ADMIN_TOKEN)
    made = admin.post("/tokens", {"name": "x", "scopes": ["submit"], "most_waiting": 3}).json()
    sender = Sender(any_guarded.url, made["token"])
    assert sender.post("/tasks/batch", [MESSAGE] * 2).status_code == 202
    assert sender.submit("anything", 1, id="last").status_code == 202
    assert sender.submit("anything", 1).json()["code"] == "too_many_waiting"
    assert sender.call("DELETE", "/tasks/last").status_code == 200
    with GatewayClient(any_guarded.url, token=made["token"]) as client:
        client.submit("anything", 1)


def test_hog_at_a_hundred_times_its_rate_is_refused_and_others_are_served(any_guarded: Any) -> None:
    """Ten senders with one token send as fast as they can; beside them another sender's tasks all come in."""
    guarded, admin = any_guarded, Sender(any_guarded.url, ADMIN_TOKEN)
    wanted = {"name": "hog", "scopes": ["submit"], "rate_per_second": 1, "burst": 2}
    hog, other = (
        admin.post("/tokens", {**wanted, "name": name, **more}).json()["token"]
        for name, more in (("hog", {}), ("other", {"rate_per_second": 1000}))
    )
    answers: Counter[int] = Counter()
    waits: list[int] = []
    over = threading.Event()
    began_at = time.monotonic()

    def flood() -> None:
        sender = Sender(guarded.url, hog)
        while not over.is_set():
            answer = sender.submit("anything", 1)
            answers[answer.status_code] += 1
            if answer.status_code == 429:
                waits.append(int(answer.headers["Retry-After"]))

    with ThreadPoolExecutor(10) as pool:
        for _ in range(10):
            pool.submit(flood)
        try:
            served = [Sender(guarded.url, other).submit("anything", number).status_code for number in range(100)]
            while sum(answers.values()) < 100 * (2 + time.monotonic() - began_at) and time.monotonic() < began_at + 10:
                over.wait(0.05)
        finally:
            over.set()
    seconds = time.monotonic() - began_at
    assert served == [202] * 100
    assert set(answers) == {202, 429} and set(waits) == {1}
    assert 2 <= answers[202] <= 2 + seconds
    assert sum(answers.values()) > 20 * answers[202]
    assert json.dumps(hog) not in admin.get("/audit").text
