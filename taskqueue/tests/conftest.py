"""Tasks, deliveries and bounded runs for every test of this package."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from runnerlib.contract import strict_json, task_digest
from taskqueue.connect import open_embedded
from taskqueue.protocols import Feed, TaskQueue, TaskStore
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.rabbitmq.queue import RabbitQueue, open_rabbitmq
from taskqueue.rabbitmq.topology import declare_topology
from taskqueue.tasks import Delivery, NewTask

Value = TypeVar("Value")
Pair = tuple[TaskQueue, TaskStore]
OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]

OpenRabbit = Callable[..., AbstractAsyncContextManager[RabbitQueue]]

#: Delays that tests can wait for, and one that they must not.
STEPS_SECONDS = (0.2, 0.4, 30)
#: No scenario here needs more on a busy machine.
LIMIT_SECONDS = 60.0


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Value]], Value]:
    """Runs one scenario on a fresh event loop, with a bound."""

    def call(scenario: Coroutine[Any, Any, Value]) -> Value:
        async def bounded() -> Value:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await scenario

        return asyncio.run(bounded())

    return call


@pytest.fixture
def make_task() -> Callable[..., NewTask]:
    def make(task_id: str, algorithm: str = "upper", payload: Any = None, **more: Any) -> NewTask:
        value = {"text": task_id} if payload is None else payload
        return NewTask(
            id=task_id,
            algorithm=algorithm,
            payload=strict_json.dumps(value),
            digest=task_digest(algorithm, value),
            **more,
        )

    return make


@pytest.fixture
def make_delivery(make_task: Callable[..., NewTask]) -> Callable[..., Delivery]:
    """A delivery that came from nowhere near the store under test."""

    def make(task_id: str, attempt: int = 1, **more: Any) -> Delivery:
        task = make_task(task_id)
        return Delivery(
            id=task.id,
            algorithm=task.algorithm,
            payload=task.payload,
            digest=task.digest,
            attempt=attempt,
            receipt=object(),
            **more,
        )

    return make


@pytest.fixture
def open_pair(tmp_path: Path) -> OpenPair:
    """A queue and a store over one file."""
    return lambda: open_embedded(tmp_path / "tasks.db")


@pytest.fixture
def open_rabbit() -> OpenRabbit:
    """Opens a queue on a broker where controllers have been before: the queues of these algorithms exist."""

    @asynccontextmanager
    async def opened(url: str, **more: Any) -> AsyncIterator[RabbitQueue]:
        async with RobustConnection(parse_queue_url(url), "test") as connection:
            channel = await connection.channel()
            await declare_topology(channel, steps_seconds=STEPS_SECONDS, algorithms=("upper", "lower"))
        async with open_rabbitmq(url, retry_steps_seconds=STEPS_SECONDS, **more) as queue:
            yield queue

    return opened


@pytest.fixture
def take_all() -> Callable[..., Coroutine[Any, Any, list[Delivery]]]:
    """Takes until so many deliveries are here; fails when they do not come in time."""

    async def take(feed: Feed, count: int, seconds: float = 15.0) -> list[Delivery]:
        taken: list[Delivery] = []
        async with asyncio.timeout(seconds):
            while len(taken) < count:
                taken.extend(await feed.take(count - len(taken)))
        return taken

    return take


@pytest.fixture
def comes_nothing() -> Callable[..., Coroutine[Any, Any, bool]]:
    """True when nothing can be taken for a while."""

    async def check(feed: Feed, seconds: float = 0.15) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await feed.take(1)
        except TimeoutError:
            return True
        return False

    return check


@pytest.fixture
def eventually() -> Callable[..., Coroutine[Any, Any, None]]:
    """Waits until a condition holds; fails after a bound."""

    async def wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        tick = asyncio.Event()
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            try:
                async with asyncio.timeout(0.01):
                    await tick.wait()
            except TimeoutError:
                continue

    return wait


@pytest.fixture
def ask(database_url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs one statement in the PostgreSQL database, on a connection beside the store's."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def together() -> Callable[[str, str, int], list[str]]:
    """What so many processes print that run this program at the same time.

    Each prints a line when it is ready, and begins when it is given one.
    """

    def outcomes(program: str, argument: str, count: int) -> list[str]:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program, argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        try:
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in started:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            printed = [process.communicate(timeout=60) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait(10)
        assert [process.returncode for process in started] == [0] * count, printed
        return [out.strip() for out, _ in printed]

    return outcomes
