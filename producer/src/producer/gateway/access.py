"""Which scope each call needs: the one table, and the middleware that holds every request to it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway.callers import Caller, set_caller
from producer.gateway.openapi import problems
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.sessions import session_cookie
from producer.gateway.verifier import TokenVerifier, looks_like_token
from runnerlib.service.access import (
    AUTHENTICATE,
    COMMON_RULES,
    METRICS_PATH,
    RouteTable,
    SecretHash,
    bearer_token,
    with_token_scheme,
)
from runnerlib.service.web import problem_response
from taskqueue.errors import TaskQueueError
from taskqueue.tokens import Scope as TokenScope

_SUBMIT, _READ, _OPERATE, _ADMIN = TokenScope.SUBMIT, TokenScope.READ, TokenScope.OPERATE, TokenScope.ADMIN

#: Answers a request for which the store was away.
Unavailable = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Any one of the scopes is enough; none: open to everybody."""

    scopes: tuple[TokenScope, ...] = ()

    @property
    def is_open(self) -> bool:
        return not self.scopes

    @property
    def words(self) -> str:
        """``the scope `submit` or `operate` ``."""
        return "the scope " + " or ".join(f"`{scope.value}`" for scope in self.scopes)


OPEN = Rule()
ROUTES = RouteTable(
    {
        ("GET", "/"): OPEN,
        ("GET", "/schemas"): OPEN,
        **dict.fromkeys(COMMON_RULES, OPEN),
        ("GET", METRICS_PATH): Rule((_READ,)),
        ("POST", "/tasks"): Rule((_SUBMIT,)),
        ("POST", "/tasks/batch"): Rule((_SUBMIT,)),
        ("POST", "/algorithms/{algorithm}/tasks"): Rule((_SUBMIT,)),
        ("POST", "/algorithms/{algorithm}/run"): Rule((_SUBMIT,)),
        ("GET", "/tasks"): Rule((_READ,)),
        ("GET", "/tasks/{task_id}"): Rule((_READ,)),
        ("POST", "/tasks/lookup"): Rule((_READ,)),
        ("DELETE", "/tasks/{task_id}"): Rule((_SUBMIT, _OPERATE)),
        ("GET", "/dead"): Rule((_READ,)),
        ("GET", "/dead/{dead_id}"): Rule((_READ,)),
        ("POST", "/dead/{dead_id}/replay"): Rule((_OPERATE,)),
        ("POST", "/dead/{dead_id}/discard"): Rule((_OPERATE,)),
        ("POST", "/dead/replay"): Rule((_OPERATE,)),
        ("POST", "/dead/discard"): Rule((_OPERATE,)),
        ("GET", "/algorithms"): Rule((_SUBMIT, _READ)),
        ("GET", "/algorithms/{name}"): Rule((_SUBMIT, _READ)),
        ("POST", "/algorithms/{name}/pause"): Rule((_OPERATE,)),
        ("POST", "/algorithms/{name}/resume"): Rule((_OPERATE,)),
        ("GET", "/status"): Rule((_SUBMIT, _READ)),
        # It looks at the token in its body itself, and ends whatever session there is.
        ("POST", "/session"): OPEN,
        ("DELETE", "/session"): OPEN,
        ("GET", "/session"): Rule(tuple(TokenScope)),
        ("POST", "/tokens"): Rule((_ADMIN,)),
        ("GET", "/tokens"): Rule((_ADMIN,)),
        ("DELETE", "/tokens/{key_id}"): Rule((_ADMIN,)),
        ("GET", "/audit"): Rule((_OPERATE,)),
    }
)


#: Parameters that have carried secrets elsewhere, by any part of their names.
_SECRET_NAME = re.compile("token|secret|api_?key|authorization|password", re.IGNORECASE)
_NEEDED = (
    "This call needs a token: send it in the header 'Authorization: Bearer ppw_...'; `producer` takes it from --token "
    "or PRODUCER_TOKEN_FILE."
)
_NOT_VALID = "The token is not valid: it is unknown, has expired or was revoked. Ask for another one."
_IN_URL = (
    "A token must not be in a URL, where logs and histories keep it: send it in the header 'Authorization: Bearer "
    "ppw_...'. If this one is in use, revoke it."
)


class AccessGuard:
    """ASGI middleware: lets a request in with its caller, or answers it.

    Parameters:
        verifier: tells whose token it is.
        metrics_token: valid for ``/metrics`` alone, which needs no look into the store; empty: there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        metrics_token: str,
        unavailable: Unavailable,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._metrics = SecretHash(metrics_token)
        self._unavailable = unavailable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope) if scope["type"] == "http" else None
        await (self._app if answer is None else answer)(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response | None:
        """None: the request is let in."""
        if looks_like_token(scope["path"]) or _has_token_in_query(scope["query_string"]):
            return _problem(ProblemCode.TOKEN_IN_URL, _IN_URL)
        rule = ROUTES.find(scope["method"], scope["path"])
        if rule is None:
            return ROUTES.nothing_there(scope["method"], scope["path"])
        if rule.is_open:
            return None
        text, is_given = bearer_token(scope)
        if scope["path"] == METRICS_PATH and self._metrics.equals(text):
            return None
        try:
            verifier = self._verifier
            found = (
                verifier.caller(text) if is_given else verifier.session_caller(session_cookie(HTTPConnection(scope)))
            )
            caller = await found
        except TaskQueueError as error:
            return await self._unavailable(Request(scope), error)
        refusal = _refusal(rule, caller, is_given=is_given)
        if refusal is None and caller is not None:
            set_caller(scope, caller)
        return refusal


def _refusal(rule: Rule, caller: Caller | None, *, is_given: bool) -> Response | None:
    if caller is None:
        fault = ', error="invalid_token"' if is_given else ""
        headers = {"WWW-Authenticate": AUTHENTICATE + fault}
        return _problem(ProblemCode.UNAUTHORIZED, _NOT_VALID if is_given else _NEEDED, headers)
    if caller.scopes.isdisjoint(rule.scopes):
        return _problem(ProblemCode.FORBIDDEN, f"This call needs {rule.words}, which this token does not have.")
    return None


def _has_token_in_query(query: bytes) -> bool:
    if not query:
        return False
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(_SECRET_NAME.search(name) or looks_like_token(name) or looks_like_token(value) for name, value in pairs)


def _problem(code: ProblemCode, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return problem_response(code.status, code.value, detail, headers)


_REFUSALS = {str(status): said for status, said in problems(ProblemCode.UNAUTHORIZED, ProblemCode.FORBIDDEN).items()}


def with_security(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what each call needs."""

    def needs(method: str, path: str) -> str | None:
        rule = ROUTES.find(method, path)
        return None if rule is None or rule.is_open else rule.words

    return with_token_scheme(document, "`ppw_...`, made by `producer token create`.", needs, _REFUSALS)
