"""``/session``: what a browser has instead of a token, so that no script and no storage of it ever holds one."""

import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from starlette.responses import Response

from producer.gateway import openapi
from producer.gateway.callers import Caller, audit_note, caller_of, set_caller
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.query_params import Params
from producer.gateway.request_parsing import JSON, KnownQueryRoute, body_of, problem
from producer.gateway.tokens import require_tokens
from producer.gateway.verifier import TokenVerifier
from producer.gateway.views import iso_time
from runnerlib.service.access import hash_of
from runnerlib.service.addresses import address_of
from runnerlib.service.token_bucket import TokenBucket
from taskqueue.clock import Clock
from taskqueue.protocols import TokenStore
from taskqueue.tokens import Scope, Session

COOKIE = "plugplay_session"
SESSION_SECONDS = 12 * 3600
#: Wrong tokens that one address may show at once, and how long it takes until it may show one more.
MOST_FAILURES, FAILURE_SECONDS = 10, 6.0
_MOST_ADDRESSES = 10_000
_COOKIE_BYTES = 32


class Attempts:
    """Bounds the wrong tokens that one address may show; others are not held up by it. `clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: of addresses with failures; the latest last
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """How long this address must wait before it may try; 0: it may."""
        bucket = self._buckets.get(_network(client))
        return 0.0 if bucket is None else bucket.wait_seconds(1, self._clock())

    def failed(self, client: str) -> None:
        network = _network(client)
        if network not in self._buckets:
            self._buckets[network] = TokenBucket(1 / FAILURE_SECONDS, MOST_FAILURES, self._clock())
        self._buckets[network].take(1)
        self._buckets.move_to_end(network)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)


def _network(client: str) -> str:
    """Whoever has an IPv6 address has the 2⁶⁴ around it."""
    address = address_of(client)
    if address is None or address.version == 4:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False))


class SessionRequest(Params):
    """The token that a person has typed."""

    token: str = Field(min_length=1, max_length=256, description="`ppw_...`, or the ADMIN_TOKEN.")


class SessionView(BaseModel):
    """Who is there, and what that allows."""

    key_id: str | None = Field(description="Of the token; null where no tokens are in use.")
    scopes: list[Scope] = Field(description="The implied ones included.")
    algorithms: list[str] = Field(description="Patterns; empty: every algorithm.")
    expires_at: datetime | None = Field(default=None, description="End of a session that was opened just now.")


router = APIRouter(tags=["sessions"], route_class=KnownQueryRoute, default_response_class=Response)


@router.post(
    "/session",
    summary="Open a session with a token",
    status_code=201,
    responses={
        201: openapi.answer(SessionView, f"It lasts for {SESSION_SECONDS // 3600} hours, or as long as its token."),
        **openapi.problems(
            *openapi.READING_A_BODY,
            ProblemCode.UNAUTHORIZED,
            ProblemCode.FORBIDDEN,
            ProblemCode.TOO_MANY_ATTEMPTS,
            ProblemCode.STORE_UNAVAILABLE,
        ),
    },
    openapi_extra={"requestBody": openapi.one_of(SessionRequest)},
)
async def open_session(request: Request) -> Response:
    """For browsers: the answer sets a cookie that no script can read, and that no other site's page can use.

    A session that the browser had before is ended. It allows what the token allows, but no call about tokens: cookies
    are sent to every port of a host, and what gets one must not have tokens for ever.
    """
    wanted = await body_of(request, {"token": SessionRequest})
    set_caller(request.scope, request.app.state.without_token or await _caller(request, wanted.token))
    require_tokens(request)
    caller, text = caller_of(request), secrets.token_urlsafe(_COOKIE_BYTES)
    expires_at = Clock().wall() + SESSION_SECONDS
    session = Session(hash_of(text), str(caller.key_id), hash_of(wanted.token), expires_at)
    await _end(request)
    await _store(request).open_session(session, audit_note(request, "session.open"))
    answer = _answer(caller, 201, expires_at)
    _set_cookie(request, answer, text, SESSION_SECONDS)
    return answer


@router.get(
    "/session",
    summary="Who is there",
    responses={200: openapi.answer(SessionView, "By a session or a token, or without either where none is needed.")},
)
async def show_session(request: Request) -> Response:
    return _answer(caller_of(request))


@router.delete(
    "/session", summary="End the session", status_code=204, responses=openapi.problems(ProblemCode.STORE_UNAVAILABLE)
)
async def end_session(request: Request) -> Response:
    """At every gateway at once. Without a session nothing happens."""
    await _end(request)
    answer = Response(status_code=204)
    _set_cookie(request, answer, "", 0)
    return answer


async def _caller(request: Request, token: str) -> Caller:
    """Whose token it is. Raises a problem for a wrong one, another one where too many came from its address."""
    attempts: Attempts = request.app.state.attempts
    verifier: TokenVerifier = request.app.state.verifier
    client = "" if request.client is None else request.client.host
    caller = await verifier.caller(token)
    if caller is not None:
        return caller
    if seconds := attempts.wait_seconds(client):
        detail = f"Too many wrong tokens came from this address; try again in {math.ceil(seconds)} s."
        raise problem(ProblemCode.TOO_MANY_ATTEMPTS, detail, headers={"Retry-After": str(math.ceil(seconds))})
    attempts.failed(client)
    raise problem(ProblemCode.UNAUTHORIZED, "The token is not valid: it is unknown, has expired or was revoked.")


async def _end(request: Request) -> None:
    if text := session_cookie(request):
        await _store(request).end_session(hash_of(text))


def session_cookie(connection: HTTPConnection) -> str | None:
    return connection.cookies.get(_cookie_name(connection))


def _cookie_name(connection: HTTPConnection) -> str:
    """By HTTPS one that no other port and no other name of the domain can set."""
    return f"__Host-{COOKIE}" if connection.url.scheme == "https" else COOKIE


def _set_cookie(request: Request, answer: Response, value: str, seconds: int) -> None:
    name, is_secure = _cookie_name(request), request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=is_secure, httponly=True, samesite="strict")


def _store(request: Request) -> TokenStore:
    store: TokenStore = request.app.state.token_store
    return store


def _answer(caller: Caller, status: int = 200, expires_at: float | None = None) -> Response:
    view: dict[str, Any] = {
        "key_id": caller.key_id,
        "scopes": sorted(caller.scopes),
        "algorithms": caller.algorithms,
        "expires_at": iso_time(expires_at),
    }
    return Response(orjson.dumps(view, option=orjson.OPT_UTC_Z), status, {"Cache-Control": "no-store"}, JSON)
