"""An echoing application behind the server that every service has, and clients that send byte for byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from starlette.types import Receive, Scope, Send

from runnerlib.service.http_server import HttpServer

#: Far more than the buffers of the two sockets hold, and far less than "endless".
ENOUGH_BYTES = 64 * 1024 * 1024
#: An answer that the buffers of the two sockets do not hold.
LARGE_BYTES = 32 * 1024 * 1024


class Echo:
    """ASGI application: tells the path, the length of the body and the number of header fields.

    Requests of ``/early`` are answered before their body is read. ``/large`` is answered with LARGE_BYTES.

    A request whose path ends in ``held`` sets `holding` and is answered once `release` is set. One of ``/unread`` does
    so before its body is read.
    """

    def __init__(self) -> None:
        self.held = 0
        self.holding = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, has_more = 0, True
        if scope["path"] == "/unread":
            await self._hold()
        while has_more and scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            has_more = message["more_body"]
        if scope["path"].endswith("held"):
            await self._hold()
        body = json.dumps([scope["path"], size, len(scope["headers"])]).encode()
        if scope["path"] == "/large":
            body = b"x" * LARGE_BYTES
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _hold(self) -> None:
        self.held += 1
        self.holding.set()
        await self.release.wait()


class Connection:
    """A client that sends what it is given, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, json.loads(body)

    async def refusal(self) -> tuple[int, str]:
        """The status and code of the problem that the connection ends with."""
        status, headers, problem = await self.answer()
        assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
        assert problem["status"] == status
        assert await self.reader.read() == b""
        return status, problem["code"]

    async def send_endlessly(self, unit: bytes) -> None:
        for _ in range(ENOUGH_BYTES // len(unit)):
            self.send(unit)
            await self.writer.drain()
        raise AssertionError("the server took everything")


class Served:
    def __init__(self, app: Echo, port: int) -> None:
        self.app = app
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Connection(reader, writer)

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    app = Echo()
    async with HttpServer(app, "127.0.0.1", 0, **options) as server:
        served = Served(app, server.port)
        try:
            yield served
        finally:
            app.release.set()
            served.close()


def run(
    scenario: Callable[[Served], Awaitable[None]],
    seconds: float = 20,
    start: Callable[..., Any] = uvloop.run,
    **options: Any,
) -> None:
    """`options` are those of HttpServer."""

    async def main() -> None:
        async with serving(**options) as served:
            await asyncio.wait_for(scenario(served), seconds)

    start(main())


def get(path: str, size: int = 0) -> bytes:
    """A request without a body, whose head has `size` bytes."""
    start, end = f"GET {path} HTTP/1.1\r\nFill: ".encode(), b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end
