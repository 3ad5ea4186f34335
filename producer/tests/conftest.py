"""A gateway as it runs: real sockets, a real store, and a catalogue that the test writes."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from prometheus_client import CollectorRegistry
from token_senders import ADMIN_TOKEN, METRICS_TOKEN, Sender

from producer.gateway.build import build
from producer.gateway.settings import GatewaySettings
from producer.gateway.verifier import new_token
from runnerlib.contract import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    FailureCode,
    RunnerLevel,
    RunnerView,
    schema_digest,
)
from runnerlib.service.access import hash_of
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from taskqueue.connect import open_embedded
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import Delivery, Failed, Record, Succeeded
from taskqueue.tokens import AuditNote, Scope, Token

T = TypeVar("T")

UPPER_SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer", "default": 1, "minimum": 1}},
    "required": ["text"],
    "additionalProperties": False,
}
WAIT_SECONDS = 30.0


class FakeWatch:
    """What a catalogue watch knows, set by the test."""

    def __init__(self, catalogue: Catalogue | None = None, is_sure: bool = True) -> None:
        self.catalogue = catalogue
        self.is_sure = is_sure


def make_catalogue(**schemas: dict[str, Any] | None) -> Catalogue:
    """These algorithms, all offered by one runner called `text`."""
    algorithms = {}
    for name, schema in schemas.items():
        description = AlgorithmDescription(name=name, summary=f"Does {name}.", input_schema=schema)
        algorithms[name] = AlgorithmView(
            description=description, schema_digest=schema_digest(description), runners=["text-1"]
        )
    runner = RunnerView(
        id="text-1", name="text", host="http://127.0.0.1:9001", boot="b", level=RunnerLevel.FULL, algorithms=[*schemas]
    )
    return Catalogue(
        epoch="e", index=1, uptime_seconds=99, lease_seconds=30, runners={"text-1": runner}, algorithms=algorithms
    )


class RunningGateway:
    """The gateway on a free port, with its loop in a thread. `run` runs a coroutine there."""

    def __init__(
        self,
        folder: Path,
        queue_wrapper: Callable[[TaskQueue], TaskQueue] = lambda q: q,
        open_parts: Callable[[Path], Any] = lambda folder: open_embedded(folder / "tasks.db"),
        **settings: Any,
    ) -> None:
        self.watch = FakeWatch(make_catalogue(upper=UPPER_SCHEMA, anything=None))
        self.health = Health("gateway")
        self.registry = CollectorRegistry()
        self.settings = GatewaySettings(port=0, max_message_bytes=64 * 1024, **settings)
        self.queue: TaskQueue
        self.store: TaskStore
        self._folder = folder
        self._wrap = queue_wrapper
        self._open_parts = open_parts
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_SECONDS)

    def start(self) -> "RunningGateway":
        self._thread.start()
        self.run(self._open())
        return self

    async def _open(self) -> None:
        queue, self.store = await self._stack.enter_async_context(self._open_parts(self._folder))
        self.queue = self._wrap(queue)
        app = build(self._stack, self.settings, self.queue, self.store, self.watch, self.health, self.registry)
        server = self.server = await self._stack.enter_async_context(HttpServer(app, "127.0.0.1", 0))
        self.app = app
        self.url = f"http://127.0.0.1:{server.port}"

    def stop(self) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def offer(self, **schemas: dict[str, Any] | None) -> Catalogue:
        """The catalogue changes: from now on these algorithms are known."""
        before = self.watch.catalogue
        index = 1 if before is None else before.index + 1
        self.watch.catalogue = make_catalogue(**schemas).model_copy(update={"index": index})
        return self.watch.catalogue

    # what a controller would do

    def take(self, algorithm: str) -> Delivery:
        async def take() -> Delivery:
            feed = await self.queue.feed(algorithm)
            await feed.set_prefetch(1)
            [delivery] = await asyncio.wait_for(feed.take(1), WAIT_SECONDS)
            await feed.close()
            return delivery

        return self.run(take())

    def settle(self, record: Record) -> None:
        async def settle() -> None:
            assert await self.store.record([record]) == [True]
            await self.queue.ack([record.delivery])

        self.run(settle())

    def succeed(self, algorithm: str, result: bytes) -> Delivery:
        delivery = self.take(algorithm)
        self.settle(Succeeded(delivery, result, "text-1"))
        return delivery

    def fail(self, algorithm: str, message: str) -> Delivery:
        delivery = self.take(algorithm)
        self.settle(Failed(delivery, FailureCode.HANDLER_ERROR, message, "Traceback: secret"))
        return delivery

    # what a sender does

    def post(self, algorithm: str, payload: Any, **envelope: Any) -> requests.Response:
        message = {"algorithm": algorithm, "payload": payload, **envelope}
        return requests.post(f"{self.url}/tasks", json=message, timeout=WAIT_SECONDS)

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", headers=headers, timeout=2 * WAIT_SECONDS)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(f"{self.url}{path}", timeout=WAIT_SECONDS)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    running = RunningGateway(tmp_path).start()
    yield running
    running.stop()


@pytest.fixture
def start_gateway() -> Iterator[Callable[..., RunningGateway]]:
    """Starts a gateway whose file is in this folder, with these settings; all are stopped with the test."""
    started: list[RunningGateway] = []

    def start(folder: Path, **settings: Any) -> RunningGateway:
        started.append(RunningGateway(folder, **settings).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def guarded(tmp_path: Path, start_gateway: Callable[..., Any]) -> Any:
    """A gateway where tokens are in use."""
    return start_gateway(tmp_path, admin_token=ADMIN_TOKEN, metrics_token=METRICS_TOKEN)


@pytest.fixture
def admin(guarded: Any) -> Sender:
    return Sender(guarded.url, ADMIN_TOKEN, "admin")


@pytest.fixture
def make_sender(guarded: Any) -> Callable[..., Sender]:
    """Somebody whose token has these scopes; ``**more`` are fields of the token."""

    def make(*scopes: Scope, algorithms: tuple[str, ...] = (), expires_in: float | None = None) -> Sender:
        key_id, text = new_token()
        expires_at = None if expires_in is None else time.time() + expires_in
        token = Token(key_id, hash_of(text), "test", frozenset(scopes), algorithms, expires_at=expires_at)
        guarded.run(guarded.store.tokens.add(token, AuditNote("token.create")))
        return Sender(guarded.url, text, key_id)

    return make
