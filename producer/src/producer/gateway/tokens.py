"""``/tokens`` and ``/audit``: make, list and revoke tokens; who changed what."""

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from starlette.responses import Response

from producer.gateway import openapi
from producer.gateway.callers import audit_note, caller_of
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.query_params import CursorKind, Instant, Limit, Params, cursor_schema, seconds_of
from producer.gateway.request_parsing import JSON, KnownQueryRoute, body_of, problem, query_of
from producer.gateway.verifier import new_token
from producer.gateway.views import iso_time
from runnerlib.service.access import hash_of
from taskqueue.clock import Clock
from taskqueue.protocols import TokenStore
from taskqueue.tokens import AuditEntry, AuditFilter, Scope, SendLimits, Token

TOKEN_CURSOR = CursorKind("k")
AUDIT_CURSOR = CursorKind("a")
#: Whoever gets the answer keeps the token; nothing between may.
_NOT_STORED = {"Cache-Control": "no-store"}
_MOST_EXPIRES_SECONDS = 10 * 365 * 86_400.0
_MOST_A_SECOND = 1_000_000
_MOST_BYTES_A_SECOND = 10**12
_MOST_WAITING = 2_000_000_000
_PATTERN = r"^[a-z0-9_*?]{1,63}$"
_KEY_ID = r"^[0-9a-z]{1,32}$"

TokenCursor = Annotated[int, BeforeValidator(TOKEN_CURSOR.read), cursor_schema(TOKEN_CURSOR)]
AuditCursor = Annotated[int, BeforeValidator(AUDIT_CURSOR.read), cursor_schema(AUDIT_CURSOR)]
Pattern = Annotated[str, Field(pattern=_PATTERN)]


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, without spaces around it")
    return value


class TokenRequest(Params):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)] = Field(
        description="Who uses it, or what for."
    )
    scopes: list[Scope] = Field(min_length=1)
    algorithms: list[Pattern] = Field(
        default=[], max_length=100, description="Only algorithms that fit one of these; `*` and `?` are wildcards."
    )
    expires_seconds: float | None = Field(
        default=None, gt=0, le=_MOST_EXPIRES_SECONDS, description="From now on; null: it does not expire."
    )
    rate_per_second: float | None = Field(
        default=None, gt=0, le=_MOST_A_SECOND, description="Tasks a second at each gateway; null: any number."
    )
    burst: int | None = Field(
        default=None, ge=1, le=_MOST_A_SECOND, description="Tasks at once after a rest; null: those of a second."
    )
    bytes_per_second: int | None = Field(
        default=None, ge=1, le=_MOST_BYTES_A_SECOND, description="Of bodies, at each gateway; null: any number."
    )
    most_waiting: int | None = Field(
        default=None, ge=1, le=_MOST_WAITING, description="Its tasks that may wait; null: any number."
    )

    @model_validator(mode="after")
    def _unlimited_admin(self) -> "TokenRequest":
        if Scope.ADMIN in self.scopes and self.algorithms:
            raise ValueError("a token with the scope 'admin' cannot be limited to algorithms")
        return self

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> "TokenRequest":
        if self.burst is not None and self.rate_per_second is None:
            raise ValueError("'burst' needs a 'rate_per_second'")
        return self

    @property
    def limits(self) -> SendLimits:
        return SendLimits(self.rate_per_second, self.burst, self.bytes_per_second, self.most_waiting)


class TokenView(BaseModel):
    """A token, without its text."""

    key_id: str
    name: str
    scopes: list[Scope]
    algorithms: list[str] = Field(description="Patterns; empty: every algorithm.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None
    rate_per_second: float | None = Field(default=None, description="Tasks a second at each gateway.")
    burst: int | None = Field(default=None, description="Tasks at once after a rest.")
    bytes_per_second: int | None = Field(default=None, description="Of bodies, at each gateway.")
    most_waiting: int | None = Field(default=None, description="Its tasks that may wait.")


class NewTokenView(TokenView):
    token: str = Field(description="Its text, `ppw_...`: shown here and never again.")


class TokenListView(BaseModel):
    tokens: list[TokenView]
    next: str | None = None


class AuditEntryView(BaseModel):
    """What one call changed."""

    audit_id: int
    created_at: datetime
    who: str = Field(description="Key id of a token, `admin` for ADMIN_TOKEN, or `none`.")
    action: str = Field(
        description="`cancel`, `replay`, `discard`, `pause`, `resume`, `token.create`, `token.revoke`, `session.open`."
    )
    params: dict[str, Any]
    count: int
    ids: list[str] = Field(description="Of tasks, dead letters or tokens, or names of algorithms; at most 1,000.")
    client: str | None = Field(description="Address that the call came from.")


class AuditListView(BaseModel):
    entries: list[AuditEntryView]
    next: str | None = None


class TokensQuery(Params):
    """``GET /tokens``."""

    limit: Limit = 100
    cursor: TokenCursor | None = None


class AuditQuery(Params):
    """``GET /audit``."""

    who: str | None = Field(default=None, pattern=_KEY_ID, description="Key id of a token, `admin`, or `none`.")
    action: str | None = Field(default=None, pattern=r"^[a-z.]{1,32}$")
    created_from: Instant | None = None
    created_before: Instant | None = None
    limit: Limit = 100
    cursor: AuditCursor | None = None


router = APIRouter(tags=["tokens"], route_class=KnownQueryRoute, default_response_class=Response)

_KEY_ID_PARAMETER = {"name": "key_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": _KEY_ID}}


@router.post(
    "/tokens",
    summary="Make a token",
    status_code=201,
    responses={
        201: openapi.answer(NewTokenView, "With its text, which is shown only now."),
        **openapi.problems(*openapi.READING_A_BODY, ProblemCode.FORBIDDEN, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"requestBody": openapi.one_of(TokenRequest)},
)
async def create(request: Request) -> Response:
    """Only where tokens are in use: where everybody may do everything, a token for later must not be had."""
    require_tokens(request)
    wanted = await body_of(request, {"name": TokenRequest})
    key_id, text = new_token()
    now = Clock().wall()
    token = Token(
        key_id,
        hash_of(text),
        wanted.name,
        frozenset(wanted.scopes),
        tuple(dict.fromkeys(wanted.algorithms)),
        expires_at=None if wanted.expires_seconds is None else now + wanted.expires_seconds,
        limits=wanted.limits,
    )
    note = audit_note(request, "token.create", **wanted.model_dump(mode="json", exclude_none=True))
    view = _view(await _tokens(request).add(token, note))
    return _json({**view, "token": text}, 201)


@router.get(
    "/tokens",
    name="list",
    summary="Tokens, the newest first",
    responses={
        200: openapi.answer(TokenListView, "A page, expired and revoked ones included."),
        **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": openapi.query_parameters(TokensQuery)},
)
async def list_tokens(request: Request) -> Response:
    """Go on with `next` as `cursor` until it is null."""
    query = query_of(request, TokensQuery)
    page = await _tokens(request).list(limit=query.limit, before=query.cursor)
    return _json({"tokens": [_view(token) for token in page], "next": TOKEN_CURSOR.write(page.next)})


@router.delete(
    "/tokens/{key_id}",
    summary="Revoke a token",
    responses={
        200: openapi.answer(TokenView, "It is refused here at once, at other gateways within a second."),
        **openapi.problems(ProblemCode.UNKNOWN_TOKEN, ProblemCode.FORBIDDEN, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": [_KEY_ID_PARAMETER]},
)
async def revoke(request: Request) -> Response:
    """Its tasks stay; they go on and can be seen by `read:all`. Revoking it again changes nothing."""
    require_tokens(request)
    key_id = str(request.path_params["key_id"])
    token = None
    if re.fullmatch(_KEY_ID.strip("^$"), key_id):
        token = await _tokens(request).revoke(key_id, audit_note(request, "token.revoke"))
        request.app.state.verifier.forget(key_id)
    if token is None:
        # whoever puts the token itself here must not find it in an answer
        raise problem(ProblemCode.UNKNOWN_TOKEN, "There is no token with this key id; GET /tokens lists them.")
    return _json(_view(token))


@router.get(
    "/audit",
    summary="Who changed what, the newest first",
    responses={
        200: openapi.answer(AuditListView, "A page. It may be short, even empty, while `next` is set."),
        **openapi.problems(ProblemCode.INVALID_REQUEST, ProblemCode.STORE_UNAVAILABLE),
    },
    openapi_extra={"parameters": openapi.query_parameters(AuditQuery)},
)
async def list_audit(request: Request) -> Response:
    """Every call that changed something, but submissions. A token that is limited to algorithms sees its own calls."""
    query, caller = query_of(request, AuditQuery), caller_of(request)
    who = query.who
    if not caller.sees_whole_audit:
        if who not in (None, caller.key_id):
            raise problem(ProblemCode.FORBIDDEN, "A token that is limited to algorithms sees only its own calls.")
        who = caller.key_id
    wanted = AuditFilter(who, query.action, seconds_of(query.created_from), seconds_of(query.created_before))
    page = await _tokens(request).audit(wanted, limit=query.limit, before=query.cursor)
    return _json({"entries": [_entry(entry) for entry in page], "next": AUDIT_CURSOR.write(page.next)})


def _tokens(request: Request) -> TokenStore:
    tokens: TokenStore = request.app.state.token_store
    return tokens


def require_tokens(request: Request) -> None:
    """Raises a problem where none are in use."""
    if caller_of(request).key_id is None:
        detail = "Tokens are not in use here: start the gateway with AUTH=tokens and ADMIN_TOKEN_FILE first."
        raise problem(ProblemCode.FORBIDDEN, detail)


def _view(token: Token) -> dict[str, Any]:
    return {
        "key_id": token.key_id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "algorithms": token.algorithms,
        "created_at": iso_time(token.created_at),
        "expires_at": iso_time(token.expires_at),
        "last_used_at": iso_time(token.last_used_at),
        "revoked_at": iso_time(token.revoked_at),
        **asdict(token.limits),
    }


def _entry(entry: AuditEntry) -> dict[str, Any]:
    return {**asdict(entry), "created_at": iso_time(entry.created_at)}


def _json(view: object, status: int = 200) -> Response:
    return Response(orjson.dumps(view, option=orjson.OPT_UTC_Z), status, _NOT_STORED, JSON)
