"""Rate limit for registrations: one at a time, with pauses, so that a flood of them leaves the CPU to others."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner_discovery.errors import Overloaded
from runnerlib.service.web import ProblemError, problem_response

#: Bodies up to this size are parsed without waiting: about a millisecond, and mostly renewals.
SMALL_BYTES = 32 * 1024
#: Pause after each turn, as a multiple of the CPU time that it took.
REST = 9
LONGEST_REST_SECONDS = 0.5
#: Total size of the bodies that wait for a turn.
MOST_WAITING_BYTES = 32 * 1024 * 1024


class Turns:
    """Gives turns in order of arrival.

    Parameters:
        clock: monotonic seconds.
        cpu: CPU seconds of this process. On a busy machine a turn takes long for no fault of its own.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._turn = asyncio.Lock()
        self._free_at = clock()
        self._waiting_bytes = 0

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Waits for a turn for a body of `size` bytes. Raises Overloaded if too many bytes wait already."""
        if self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise Overloaded("many large registrations wait to be read already; send it again in a moment")
        self._waiting_bytes += size
        try:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._free_at - self._clock()))
                began = self._cpu()
                try:
                    yield
                finally:
                    spent = self._cpu() - began
                    self._free_at = self._clock() + min(LONGEST_REST_SECONDS, REST * spent)
        finally:
            self._waiting_bytes -= size


class LargeInTurn:
    """ASGI middleware: requests with bodies larger than SMALL_BYTES wait for a turn before they are parsed."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("PUT", "POST"):
            await self._app(scope, receive, send)
            return
        # Outside of the application's own error handlers.
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        except ProblemError as error:
            refusal = problem_response(error.status_code, error.code, error.detail, error.headers)
            await refusal(scope, receive, send)
            return
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
