"""Errors over HTTP: every one is ``application/problem+json`` with a stable code, never a traceback."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.contract import PROBLEM_MEDIA_TYPE, Problem
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Fields at fault that one answer lists.
MAX_ERRORS = 20

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
) -> Response:
    """A problem as an answer, for code outside of routes."""
    problem = Problem(title=_title(status), status=status, code=code, detail=detail, errors=errors)
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
    """Answers 500 for an exception that nobody caught, and logs it once with its traceback."""

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
    assert isinstance(error, RequestValidationError)
    return invalid_payload(list(error.errors()))


def invalid_payload(errors: list[Any], code: str = "invalid_payload") -> Response:
    """A 422 from pydantic's error list: which field, and what is wrong with it. The input is not echoed."""
    fields = [
        {"loc": list(entry["loc"]), "msg": str(entry["msg"])[:500], "type": entry["type"]}
        for entry in errors[:MAX_ERRORS]
    ]
    detail = "; ".join(f"{_place(entry['loc'])}: {entry['msg']}" for entry in fields[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    return problem_response(422, code, detail or "The request does not fit.", errors=fields)


def _place(loc: list[Any]) -> str:
    parts = loc[1:] if len(loc) > 1 and loc[0] in ("body", "query", "path", "header") else loc
    return ".".join(str(part)[:80] for part in parts) or "request"


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
