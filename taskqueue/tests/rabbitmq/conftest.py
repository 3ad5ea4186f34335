"""Connections to real brokers, a proxy that can cut and freeze them, and what was reported of them."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from servers import processes

from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.connection import RobustConnection

#: No connection to a broker on this machine takes longer, also while it starts.
CONNECT_SECONDS = 60.0

OpenConnection = Callable[..., AbstractAsyncContextManager[RobustConnection]]


class Reports:
    """What a connection reported, in order; shaped as `Health.set`."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bool, str]] = []

    def __call__(self, part: str, ready: bool, reason: str) -> None:
        self.all.append((part, ready, reason))

    @property
    def ready(self) -> bool:
        return bool(self.all) and self.all[-1][1]

    @property
    def reason(self) -> str:
        return self.all[-1][2] if self.all else ""


class Proxy:
    """Stands between a client and its broker on a port of its own; can cut connections and stop passing bytes on."""

    def __init__(self, target: tuple[str, int], port: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Accepts and reads nothing any more, as a broker under SIGSTOP."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def reset(self) -> None:
        """Cuts every connection with a TCP RST."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            other_reader, other_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers.add(other_writer)
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@pytest.fixture(autouse=True)
def no_error_was_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception in a callback reaches nobody but the loop, which logs it."""
    yield
    lost = [record for record in caplog.get_records("call") if record.name == "asyncio" and record.levelno >= 40]
    assert not lost, [record.getMessage() for record in lost]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def open_connection(reports: Reports) -> OpenConnection:
    """`async with open_connection(url) as connection`: connected, unless `wait=False`."""

    @asynccontextmanager
    async def opened(url: str, *, wait: bool = True, **more: Any) -> AsyncIterator[RobustConnection]:
        more.setdefault("report", reports)
        async with RobustConnection(parse_queue_url(url), "test", **more) as connection:
            if wait:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connected.wait()
            yield connection

    return opened


@pytest.fixture
def open_proxy() -> Callable[..., AbstractAsyncContextManager[tuple[Proxy, str]]]:
    """`async with open_proxy(url) as (proxy, url_through_it)`; with `start=False` nobody listens yet."""

    @asynccontextmanager
    async def opened(url: str, *, start: bool = True) -> AsyncIterator[tuple[Proxy, str]]:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        proxy = Proxy((parts.hostname, parts.port), processes.free_port())
        if start:
            await proxy.start()
        credentials = parts.netloc.rpartition("@")[0]
        try:
            yield proxy, urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))
        finally:
            await proxy.close()

    return opened


@pytest.fixture
def take_messages() -> Callable[..., Coroutine[Any, Any, list[IncomingMessage]]]:
    """Consumes so many messages of a queue on a channel, waiting for them; they stay unsettled."""

    async def take(channel: Channel, queue: str, count: int = 1) -> list[IncomingMessage]:
        came: list[IncomingMessage] = []
        enough = asyncio.Event()

        def on_message(message: IncomingMessage) -> None:
            came.append(message)
            if len(came) == count:
                enough.set()

        await channel.qos(count)
        tag = await channel.consume(queue, on_message, lambda: None)
        await asyncio.wait_for(enough.wait(), 20)
        await channel.cancel(tag)
        return came

    return take


@pytest.fixture
def within() -> Callable[..., Coroutine[Any, Any, float]]:
    """Waits until a condition holds and returns how many seconds it took; fails after a bound."""

    async def wait(condition: Callable[[], bool], seconds: float = 30.0) -> float:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < seconds, "the condition did not come true in time"
            await asyncio.sleep(0.01)
        return time.monotonic() - begin

    return wait


@pytest.fixture
def in_alarm(broker: Any) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Meanwhile the broker counts as short of memory and takes no messages."""

    async def set_limit(*words: str) -> None:
        await asyncio.to_thread(broker.server.ctl, "set_vm_memory_high_watermark", *words)

    @asynccontextmanager
    async def alarm() -> AsyncIterator[None]:
        await set_limit("absolute", "1MB")
        try:
            yield
        finally:
            await set_limit("0.6")

    return alarm


@pytest.fixture
def refused() -> Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, BaseException]]:
    """Awaits something that must fail with one of our errors, within a bound; returns the error."""

    async def failing(
        doing: Coroutine[Any, Any, Any], kind: type[BaseException], seconds: float = 10.0
    ) -> BaseException:
        async with asyncio.timeout(seconds):
            try:
                await doing
            except kind as error:
                return error
        raise AssertionError(f"{kind.__name__} was expected")

    return failing
