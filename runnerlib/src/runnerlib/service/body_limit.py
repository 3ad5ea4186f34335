"""Refuses a request body that is too large, or that nobody here can read, before it is in memory."""

import asyncio
import contextlib
from email.message import Message as Header

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.service.problem_errors import ProblemError, problem_response

#: How long, and how much, the rest of a refused body is read and thrown away. To a sender who is still sending when
#: the connection ends, many clients report the broken connection and not the answer.
READ_ON_SECONDS = 5.0
READ_ON_BYTES = 64 * 1024 * 1024
#: Longest piece of a header that is looked at, and that is repeated.
_MOST_TYPE = 500
_MOST_SHOWN = 80


#: Without a body there is nothing to read.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
#: JSON is UTF-8 (RFC 8259, 8.1), of which ASCII is a part.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


class PlainBody:
    """ASGI middleware: 415 for a compressed body, and for one in another encoding than UTF-8."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http" and scope["method"] not in _WITHOUT_BODY:
            fault = _unreadable(Headers(scope=scope))
        answer = self._app if fault is None else problem_response(415, "unsupported_media_type", fault)
        await answer(scope, receive, send)


def _unreadable(headers: Headers) -> str | None:
    """Why the body that these headers announce cannot be read."""
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = headers.get(name, plain).strip().lower() or plain
        if coding != plain:
            return f"The body has the {name} {coding[:_MOST_SHOWN]!r}; send it as it is, uncompressed."
    kind = Header()
    kind["Content-Type"] = headers.get("content-type", "")[:_MOST_TYPE]
    charset = str(kind.get_param("charset") or "utf-8")
    if charset.strip().lower() not in _CHARSETS:
        return f"The body has the charset {charset[:_MOST_SHOWN]!r}; send it as UTF-8."
    return None


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `max_bytes`, chunked ones included.

    Use: ``app.add_middleware(BodyLimit, max_bytes=4 * 1024 * 1024)``.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._detail = (
            f"The body is larger than {max_bytes} bytes; send less, or store the data elsewhere and send a reference."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced_bytes(scope) > self._max_bytes:
            # The connection cannot be used again: nobody reads the body to its end.
            refusal = problem_response(413, "too_large", self._detail, {"Connection": "close"})
            await refusal(scope, receive, _reading_on(receive, send))
            return
        seen, has_more = 0, True

        async def limited_receive() -> Message:
            nonlocal seen, has_more
            message = await receive()
            seen += len(message.get("body", b""))
            has_more = message.get("more_body", False)
            if seen > self._max_bytes:
                raise ProblemError(413, "too_large", self._detail, {"Connection": "close"})
            return message

        async def last_send(message: Message) -> None:
            is_refused = seen > self._max_bytes and has_more
            await (_reading_on(receive, send) if is_refused else send)(message)

        await self._app(scope, limited_receive, last_send)


def _reading_on(receive: Receive, send: Send) -> Send:
    """Like `send`; reads on once the answer is out, before the end of it closes the connection."""

    async def reading_on(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_read_on(receive), READ_ON_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return reading_on


async def _read_on(receive: Receive) -> None:
    size, has_more = 0, True
    while has_more and size < READ_ON_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        has_more = message.get("more_body", False)


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
