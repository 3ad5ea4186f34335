"""The implementations that every conformance test runs over.

Another queue or store joins by one more branch here. The suites take a queue and a store that need not know each
other: publishing makes no row, and recording settles nothing, as far as these tests are concerned.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from servers.fixtures import Broker

from taskqueue.connect import open_embedded
from taskqueue.lanes import LanedQueue
from taskqueue.postgres import open_postgres
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.recorded import RecordedQueue

OpenPair = Callable[[], AbstractAsyncContextManager[tuple[TaskQueue, TaskStore]]]
OpenQueue = Callable[[], AbstractAsyncContextManager[TaskQueue]]
MakeOpen = Callable[[str], OpenQueue]
OpenStore = Callable[[], AbstractAsyncContextManager[TaskStore]]


@pytest.fixture
def open_table_queue(open_pair: OpenPair) -> OpenQueue:
    """A queue that is a table: it can be swept."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[TaskQueue]:
        async with open_pair() as (queue, _):
            yield queue

    return opened


@pytest.fixture
def open_kind(request: pytest.FixtureRequest, tmp_path: Path, open_rabbit: Callable[..., Any]) -> MakeOpen:
    """Opens a queue of a kind, on a fresh server."""

    def make(kind: str) -> OpenQueue:
        # before the event loop runs: a server takes its time to start
        broker = request.getfixturevalue("make_broker")(kind[len("rabbitmq")]) if "rabbitmq" in kind else None
        url = request.getfixturevalue("database_url") if "postgres" in kind else None

        @asynccontextmanager
        async def opened() -> AsyncIterator[TaskQueue]:
            async with AsyncExitStack() as stack:
                if kind == "sqlite":
                    yield (await stack.enter_async_context(open_embedded(tmp_path / "tasks.db")))[0]
                    return
                rabbit = None if broker is None else await stack.enter_async_context(open_rabbit(broker.url))
                if url is None:
                    yield rabbit
                    return
                store = await stack.enter_async_context(open_postgres(url))
                table = await stack.enter_async_context(store.open_queue())
                yield table if rabbit is None else LanedQueue(rabbit, table)

        return opened

    return make


@pytest.fixture(params=["sqlite", "rabbitmq3", "rabbitmq4", "postgres", "rabbitmq4+postgres"])
def open_queue(request: pytest.FixtureRequest, open_kind: MakeOpen) -> OpenQueue:
    """Every queue there is."""
    return open_kind(request.param)


@pytest.fixture(params=["sqlite", "postgres", "rabbitmq4+postgres"])
def open_turns(request: pytest.FixtureRequest, open_kind: MakeOpen) -> OpenQueue:
    """Every queue whose tasks wait for turns and times."""
    return open_kind(request.param)


@pytest.fixture
def make_broker(broker_servers: Callable[[str], Any]) -> Iterator[Callable[[str], Broker]]:
    """A fresh virtual host on the broker of that major version."""
    with ExitStack() as stack:

        def make(major: str) -> Broker:
            server = broker_servers(major)
            vhost = f"conformance-{secrets.token_hex(4)}"
            server.add_vhost(vhost)
            stack.callback(server.remove_vhost, vhost)
            return Broker(server, vhost)

        yield make


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Every store there is."""
    if request.param == "postgres":
        url = request.getfixturevalue("database_url")
        return lambda: open_postgres(url)

    @asynccontextmanager
    async def sqlite() -> AsyncIterator[TaskStore]:
        async with open_embedded(tmp_path / "tasks.db") as (_, store):
            yield store

    return sqlite


@pytest.fixture(params=["sqlite", "rabbitmq3+postgres", "rabbitmq4+postgres"])
def open_replaying(request: pytest.FixtureRequest, tmp_path: Path, open_rabbit: Callable[..., Any]) -> OpenPair:
    """Every pair of a queue that can replay and the store that knows its tasks."""
    kind = request.param

    @asynccontextmanager
    async def recorded() -> AsyncIterator[tuple[TaskQueue, TaskStore]]:
        broker = request.getfixturevalue("make_broker")(kind[len("rabbitmq")])
        database_url = request.getfixturevalue("database_url")
        async with open_rabbit(broker.url) as rabbit, open_postgres(database_url) as store:
            yield RecordedQueue(rabbit, store), store

    if kind == "sqlite":
        return lambda: open_embedded(tmp_path / "tasks.db")
    # before the event loop runs: a server takes its time to start
    request.getfixturevalue("make_broker"), request.getfixturevalue("database_url")
    return recorded


@pytest.fixture(params=["sqlite", "rabbitmq4+postgres"])
def open_replaying_in_turn(request: pytest.FixtureRequest, tmp_path: Path, open_rabbit: Callable[..., Any]) -> OpenPair:
    """The same with a queue whose tasks take turns."""

    @asynccontextmanager
    async def recorded() -> AsyncIterator[tuple[TaskQueue, TaskStore]]:
        async with (
            open_rabbit(broker.url) as rabbit,
            open_postgres(database_url) as store,
            store.open_queue() as table,
        ):
            yield RecordedQueue(LanedQueue(rabbit, table), store), store

    if request.param == "sqlite":
        return lambda: open_embedded(tmp_path / "tasks.db")
    # before the event loop runs: a server takes its time to start
    broker, database_url = request.getfixturevalue("make_broker")("4"), request.getfixturevalue("database_url")
    return recorded
