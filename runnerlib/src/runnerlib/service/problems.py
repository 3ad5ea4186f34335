"""Errors over HTTP: every one is ``application/problem+json`` with a stable code, never a traceback.

Among them the refusals of bodies that are too large, or that cannot be read, before they are in memory.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from email.message import Message as Header
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.contract import PROBLEM_MEDIA_TYPE, Problem
from runnerlib.service.logs import get_logger
from runnerlib.service.pace import Pace

log = get_logger(__name__)

#: Fields at fault that one answer lists.
MAX_ERRORS = 20
#: How long, and how much, the rest of a refused body is read and dropped. Many clients that are still sending when the
#: connection ends report the broken connection and not the answer.
READ_ON_SECONDS = 5.0
READ_ON_BYTES = 64 * 1024 * 1024
#: Of all refused bodies together.
_READ_ON_BYTES_PER_SECOND = 32 * 1024 * 1024
#: Longest part of a header that is looked at, and that is repeated.
_MAX_TYPE_CHARACTERS = 500
_MAX_SHOWN_CHARACTERS = 80
#: Methods without a body.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
#: What a browser sends for any page, without asking the service first; none of it is JSON.
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_JSON = b"application/json"
_CODINGS = (
    (b"content-encoding", "Content-Encoding", "identity"),
    (b"transfer-encoding", "Transfer-Encoding", "chunked"),
)
#: JSON is UTF-8 (RFC 8259, 8.1), of which ASCII is a part.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    410: "gone",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_payload",
    429: "busy",
    500: "internal_error",
    503: "unavailable",
}


class ProblemError(HTTPException):
    """Raised in a route: ends the request with this problem. `detail` is a sentence that says what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.code = code
        self.errors = errors


def problem_response(
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, Any]] | None = None,
    *,
    title: str | None = None,
    **more: Any,
) -> Response:
    """A problem as an answer, for code outside of routes. `more` are further members of it."""
    title = title or _title(status)
    problem = Problem(title=title, status=status, code=code, detail=detail, errors=errors, **more)
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        headers=dict(headers) if headers else None,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Turns the framework's own errors, and ours, into problems."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_middleware(UnexpectedErrors)


class UnexpectedErrors:
    """ASGI middleware: answers 500 for an exception that was not caught, and logs it once with its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            log.debug("a client left before its body was here", method=scope["method"], path=scope["path"])
        except Exception:
            if started:
                raise  # the answer is half sent: only the server can end the connection
            log.exception("a request failed", method=scope["method"], path=scope["path"])
            detail = "Something failed here; the log of this service says what."
            await problem_response(500, "internal_error", detail)(scope, receive, send)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status < 400 or status in (204, 304):
        return Response(status_code=status, headers=error.headers)
    if isinstance(error, ProblemError):
        return problem_response(status, error.code, error.detail, error.headers, error.errors)
    detail = str(error.detail)
    if status == 404 and detail == _title(404):
        detail = f"There is nothing at {request.url.path[:200]!r}; see /docs for what there is."
    elif status == 405:
        detail = f"{request.method} is not possible at {request.url.path[:200]!r}; see /docs."
        return problem_response(405, _CODES[405], detail, {"Allow": ", ".join(_allowed_methods(request))})
    return problem_response(status, _CODES.get(status, f"http_{status}"), detail, error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """Of every route at this path; the framework names those of the first one only. HEAD is answered where GET is."""
    routes = request.app.router.routes

    def is_known(method: str) -> bool:
        known = "GET" if method == "HEAD" else method
        return any(route.matches({**request.scope, "method": known})[0] is Match.FULL for route in routes)

    return [method for method in _METHODS if is_known(method)]


async def _invalid_request(_request: Request, error: Exception) -> Response:
    """Which field, and what is wrong with it. The input is not echoed."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    fields = [
        {"loc": list(entry["loc"]), "msg": str(entry["msg"])[:500], "type": entry["type"]}
        for entry in found[:MAX_ERRORS]
    ]
    detail = "; ".join(f"{_place(entry['loc'])}: {entry['msg']}" for entry in fields[:3])
    if len(found) > 3:
        detail += f"; and {len(found) - 3} more"
    return problem_response(422, _CODES[422], detail or "The request does not fit.", errors=fields)


def _place(loc: list[Any]) -> str:
    parts = loc[1:] if len(loc) > 1 and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(str(part)[:80] for part in parts) or "request"


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


class PlainBody:
    """ASGI middleware: 415 for a body that is compressed, in another encoding than UTF-8, or a form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http" and scope["method"] not in _WITHOUT_BODY:
            fault = _unreadable(dict(scope["headers"]))
        answer = self._app if fault is None else problem_response(415, "unsupported_media_type", fault)
        await answer(scope, receive, send)


def _unreadable(headers: Mapping[bytes, bytes]) -> str | None:
    """Why the body that these headers announce cannot be read."""
    for field, name, plain in _CODINGS:
        if field in headers:
            coding = headers[field].decode("latin-1").strip().lower() or plain
            if coding != plain:
                return f"The body has the {name} {coding[:_MAX_SHOWN_CHARACTERS]!r}; send it as it is, uncompressed."
    kind = headers.get(b"content-type", _JSON)
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return _fault_of_type(kind.decode("latin-1")) if has_body and kind != _JSON else None


def _fault_of_type(kind: str) -> str | None:
    header = Header()
    header["Content-Type"] = kind[:_MAX_TYPE_CHARACTERS]
    charset = str(header.get_param("charset") or "utf-8")
    if charset.strip().lower() not in _CHARSETS:
        return f"The body has the charset {charset[:_MAX_SHOWN_CHARACTERS]!r}; send it as UTF-8."
    if kind.partition(";")[0].strip().lower() in _FORM_TYPES:
        return f"The body has the type {kind[:_MAX_SHOWN_CHARACTERS]!r}; send it with 'Content-Type: application/json'."
    return None


class BodyLimit:
    """ASGI middleware: 413 for a body of more than `max_bytes`, chunked ones included.

    Use: ``app.add_middleware(BodyLimit, max_bytes=4 * 1024 * 1024)``.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._reading_on = Pace()
        self._detail = (
            f"The body is larger than {max_bytes} bytes; send less, or store the data elsewhere and send a reference."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if announced_bytes(scope) > self._max_bytes:
            # The connection cannot be used again: the body is not read to its end.
            refusal = problem_response(413, "too_large", self._detail, {"Connection": "close"})
            await refusal(scope, receive, reading_on(receive, send, self._reading_on))
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
            await (reading_on(receive, send, self._reading_on) if is_refused else send)(message)

        await self._app(scope, limited_receive, last_send)


def reading_on(receive: Receive, send: Send, pace: Pace) -> Send:
    """Like `send`, but reads on after the answer, before its end closes the connection."""

    async def reading_on(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_read_on(receive, pace), READ_ON_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return reading_on


async def _read_on(receive: Receive, pace: Pace) -> None:
    read, has_more = 0, True
    while has_more and read < READ_ON_BYTES:
        message = await receive()
        size = len(message.get("body", b""))
        read += size
        has_more = message.get("more_body", False)
        await pace.take(size / _READ_ON_BYTES_PER_SECOND)


def announced_bytes(scope: Scope) -> int:
    """What Content-Length says, which may have spaces around it and any number of zeros; 0 without it."""
    digits = dict(scope["headers"]).get(b"content-length", b"").strip(b" \t").lstrip(b"0")
    return int(digits[:20]) if digits.isdigit() else 0
