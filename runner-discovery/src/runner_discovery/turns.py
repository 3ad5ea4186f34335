"""Registrations are read one after the other, with rests, so that a flood of them leaves the machine to others."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner_discovery.errors import Overloaded
from runnerlib.service.web import problem_response

#: A registration of at most so many bytes is read at once: a renewal, most of the time, and about a millisecond.
SMALL_BYTES = 32 * 1024
#: After a registration nobody has a turn for so many times as long as it took.
REST = 4
LONGEST_REST_SECONDS = 1.0
#: Of the bodies of those that wait: about as many as are worth keeping in memory.
MOST_WAITING_BYTES = 32 * 1024 * 1024


class Turns:
    """In the order in which they are asked for. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._free_at = clock()
        self._waiting_bytes = 0

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """For a body of `size` bytes. Raises Overloaded."""
        if self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise Overloaded("many large registrations wait to be read already; send it again in a moment")
        self._waiting_bytes += size
        try:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._free_at - self._clock()))
                began = self._clock()
                try:
                    yield
                finally:
                    now = self._clock()
                    self._free_at = now + min(LONGEST_REST_SECONDS, REST * (now - began))
        finally:
            self._waiting_bytes -= size


class LargeInTurn:
    """ASGI middleware: a request with a body of more than SMALL_BYTES is followed when it is its turn."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("PUT", "POST"):
            await self._app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        unread: list[Message] = [{"type": "http.request", "body": body}]

        async def read() -> Message:
            return unread.pop() if unread else await receive()

        if len(body) <= SMALL_BYTES:
            await self._app(scope, read, send)
            return
        try:
            async with self._turns.turn(len(body)):
                await self._app(scope, read, send)
        except Overloaded as error:
            await problem_response(503, error.code, str(error), {"Retry-After": "1"})(scope, receive, send)
