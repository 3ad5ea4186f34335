"""Bounds the memory of large request bodies, from when they are received until they are parsed."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.contract import StrictJsonError
from runnerlib.contract.strict_json import ValueCount, can_have_too_many
from runnerlib.service.pace import Pace
from runnerlib.service.problems import ProblemError, announced_bytes, reading_on

T = TypeVar("T")

MEBIBYTE = 1024 * 1024
#: Smaller bodies are not counted, and are parsed on the event loop, in about a millisecond.
SMALL_BYTES = 32 * 1024
#: Bodies above this size are parsed one at a time: each may take hundreds of megabytes meanwhile.
HUGE_BYTES = MEBIBYTE
BUDGET_BYTES = 64 * MEBIBYTE
#: How long a body waits for its share before it is refused.
WAIT_SECONDS = 5.0
#: While others are refused, bodies that come slower than this, on average since their beginning, are cut.
HURRY_SECONDS = 10.0
HURRY_BYTES_PER_SECOND = 64 * 1024
#: What the largest body of any service takes. Who announces more is refused by the service itself, unread.
_LARGEST_BYTES = 17 * MEBIBYTE
#: Of the time, for counting the values of large bodies; those of many values come as slowly as that.
_PART_COUNTING = 0.1
_LINES = b"application/x-ndjson"
#: A body whose length is not announced takes more in such steps.
_STEP_BYTES = MEBIBYTE


class BodyBudget:
    """ASGI middleware: 503 `overloaded` for a large body that has no place beside those that are read or parsed now.

    A body waits for its share in order of arrival, unread, for at most `wait_seconds`. Then those that come slowly are
    cut (408 `request_timeout`): the places are for bodies, not for waiting.
    """

    hurry_seconds = HURRY_SECONDS

    def __init__(self, app: ASGIApp, max_bytes: int = BUDGET_BYTES, wait_seconds: float = WAIT_SECONDS) -> None:
        self._app = app
        self._free_bytes = max_bytes
        self._wait_seconds = wait_seconds
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.receiving: set[_Share] = set()
        self.huge_parsing = asyncio.Lock()
        self._counting, self._reading_on = Pace(), Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        announced, is_announced = announced_bytes(scope), b"content-length" in headers
        if is_announced and not SMALL_BYTES < announced <= _LARGEST_BYTES:
            await self._app(scope, receive, send)
            return
        values = None
        if not is_announced or can_have_too_many(announced):
            values = ValueCount(in_lines=headers.get(b"content-type", b"").lower().startswith(_LINES))
        share = _Share(self, announced, receive, values)
        token = _share.set(share)

        async def answering(message: Message) -> None:
            # What is read after the answer has begun is dropped.
            share.stop_counting()
            await (reading_on(receive, send, self._reading_on) if share.has_unread else send)(message)

        try:
            await self._app(scope, share.receive, answering)
        finally:
            _share.reset(token)
            share.give_back()

    async def take(self, size: int) -> None:
        """Waits until there are so many bytes left. Raises ProblemError."""
        if not self.waiting and size <= self._free_bytes:
            self._free_bytes -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((size, turn))
        is_mine = False
        try:
            await asyncio.wait([turn], timeout=self._wait_seconds)
            is_mine = turn.done()
        finally:
            if not is_mine:
                self.give(0 if turn.cancel() else size)
        if not is_mine:
            for share in list(self.receiving):
                share.hurry()
            raise _overloaded()

    def take_now(self, size: int) -> None:
        """Raises ProblemError if there are not so many bytes left: what has a share already must not wait for more."""
        if size > self._free_bytes:
            raise _overloaded()
        self._free_bytes -= size

    def give(self, size: int) -> None:
        self._free_bytes += size
        while self.waiting and (self.waiting[0][1].done() or self.waiting[0][0] <= self._free_bytes):
            wanted, turn = self.waiting.popleft()
            if not turn.done():
                self._free_bytes -= wanted
                turn.set_result(None)

    async def count(self, values: ValueCount, part: bytes) -> None:
        """Raises ProblemError for too many, and a little at a time."""
        began_at = time.monotonic()
        try:
            values.add(part)
        except StrictJsonError as error:
            raise ProblemError(400, "malformed", f"The body is {error}.", {"Connection": "close"}) from None
        await self._counting.take((time.monotonic() - began_at) / _PART_COUNTING)


async def parsed(body: bytes, parse: Callable[[bytes], T], *, small_bytes: int = SMALL_BYTES) -> T:
    """What `parse` makes of the body of the current request: in a thread if it is large, and a huge one by itself.

    Afterwards the body no longer counts as one that is read or parsed.
    """
    if len(body) <= small_bytes:
        return parse(body)
    share = _share.get(None)
    try:
        if share is None or len(body) <= HUGE_BYTES:
            return await asyncio.to_thread(parse, body)
        async with share.budget.huge_parsing:
            return await asyncio.to_thread(parse, body)
    finally:
        if share is not None:
            share.give_back()


class _Share:
    """The bytes of one request's body in the budget."""

    def __init__(self, budget: BodyBudget, announced: int, receive: Receive, values: ValueCount | None) -> None:
        self.budget = budget
        self._announced = announced
        self._receive = receive
        self._values = values
        self.has_unread = False
        self._began_at: float | None = None
        self._part: asyncio.Future[Message] | None = None
        self._is_cut = False
        self._taken = 0
        self._seen = 0
        self._counts = True

    async def receive(self) -> Message:
        if not self._counts:
            return await self._receive()
        if self._began_at is None:
            if self._announced:
                await self.budget.take(self._announced)
                self._taken = self._announced
            self._began_at = asyncio.get_running_loop().time()
        message = await self._next_part()
        self._seen += len(message.get("body", b""))
        if not self._announced and self._seen > max(self._taken, SMALL_BYTES):
            step = max(_STEP_BYTES, self._seen - self._taken)
            self.budget.take_now(step)
            self._taken += step
        if self._values is not None and (part := message.get("body")):
            try:
                await self.budget.count(self._values, part)
            except ProblemError:
                self.has_unread = message.get("more_body", False)
                raise
        return message

    async def _next_part(self) -> Message:
        self.budget.receiving.add(self)
        self._part = asyncio.ensure_future(self._receive())
        try:
            return await self._part
        except asyncio.CancelledError:
            if not self._is_cut:
                raise
            detail = "The body comes slowly, and others wait for its place; send it again, faster."
            raise ProblemError(408, "request_timeout", detail, {"Connection": "close"}) from None
        finally:
            self.budget.receiving.discard(self)

    def hurry(self) -> None:
        """Cuts the body if it comes slowly."""
        assert self._began_at is not None and self._part is not None
        seconds = asyncio.get_running_loop().time() - self._began_at
        if seconds > self.budget.hurry_seconds and self._seen < seconds * HURRY_BYTES_PER_SECOND:
            self._is_cut |= self._part.cancel()

    def stop_counting(self) -> None:
        self._counts = False
        self.give_back()

    def give_back(self) -> None:
        taken, self._taken = self._taken, 0
        self.budget.give(taken)


_share: ContextVar[_Share | None] = ContextVar("share of the body budget", default=None)


def _overloaded() -> ProblemError:
    detail = "This service reads as many large bodies as it can; send the same again in a moment."
    return ProblemError(503, "overloaded", detail, {"Retry-After": "1"})
