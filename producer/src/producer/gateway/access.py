"""Which scope each call needs: the one table, and the middleware that holds every request to it.

What is not in the table does not exist for anybody while tokens are in use, so a route that was forgotten is closed.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from producer.gateway.callers import Caller, set_caller
from producer.gateway.openapi import problems
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.verifier import TokenVerifier, hash_of, looks_like_token
from runnerlib.service.web import problem_response
from taskqueue.errors import TaskQueueError
from taskqueue.tokens import Scope as TokenScope

_SUBMIT, _READ, _OPERATE, _ADMIN = TokenScope.SUBMIT, TokenScope.READ, TokenScope.OPERATE, TokenScope.ADMIN

METRICS_PATH = "/metrics"
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
#: By method and path.
RULES: Mapping[tuple[str, str], Rule] = MappingProxyType(
    {
        ("GET", "/"): OPEN,
        ("GET", "/docs"): OPEN,
        ("GET", "/swagger/{file}"): OPEN,
        ("GET", "/openapi.json"): OPEN,
        ("GET", "/schemas"): OPEN,
        ("GET", "/healthz/live"): OPEN,
        ("GET", "/healthz/ready"): OPEN,
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
        ("GET", "/status"): Rule((_SUBMIT, _READ)),
        ("POST", "/tokens"): Rule((_ADMIN,)),
        ("GET", "/tokens"): Rule((_ADMIN,)),
        ("DELETE", "/tokens/{key_id}"): Rule((_ADMIN,)),
        ("GET", "/audit"): Rule((_OPERATE,)),
    }
)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in path.split("/")))


_PATTERNS = tuple((method, _pattern(path), rule) for (method, path), rule in RULES.items() if "{" in path)


def rule_for(method: str, path: str) -> Rule | None:
    """The rule of a request; HEAD has that of GET. None: no call is there."""
    method = "GET" if method == "HEAD" else method
    rule = RULES.get((method, path))
    if rule is not None:
        return rule
    found = (rule for known, pattern, rule in _PATTERNS if known == method and pattern.fullmatch(path))
    return next(found, None)


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
_AUTHENTICATE = 'Bearer realm="plugplay"'


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
        self._metrics_hash = hash_of(metrics_token) if metrics_token else None
        self._unavailable = unavailable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope) if scope["type"] == "http" else None
        await (self._app if answer is None else answer)(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response | None:
        """None: the request is let in."""
        if looks_like_token(scope["path"]) or _has_token_in_query(scope["query_string"]):
            return _problem(ProblemCode.TOKEN_IN_URL, _IN_URL)
        rule = rule_for(scope["method"], scope["path"])
        if rule is None:
            return _nothing_there(scope["method"], scope["path"])
        if rule.is_open:
            return None
        given = Headers(scope=scope).getlist("authorization")
        text = _bearer(given)
        if scope["path"] == METRICS_PATH and self._is_metrics_token(text):
            return None
        try:
            caller = None if text is None else await self._verifier.caller(text)
        except TaskQueueError as error:
            return await self._unavailable(Request(scope), error)
        refusal = _refusal(rule, caller, is_given=bool(given))
        if refusal is None and caller is not None:
            set_caller(scope, caller)
        return refusal

    def _is_metrics_token(self, text: str | None) -> bool:
        if text is None or self._metrics_hash is None:
            return False
        return hmac.compare_digest(hash_of(text), self._metrics_hash)


def _refusal(rule: Rule, caller: Caller | None, *, is_given: bool) -> Response | None:
    if caller is None:
        fault = ', error="invalid_token"' if is_given else ""
        headers = {"WWW-Authenticate": _AUTHENTICATE + fault}
        return _problem(ProblemCode.UNAUTHORIZED, _NOT_VALID if is_given else _NEEDED, headers)
    if caller.scopes.isdisjoint(rule.scopes):
        return _problem(ProblemCode.FORBIDDEN, f"This call needs {rule.words}, which this token does not have.")
    return None


def _bearer(given: list[str]) -> str | None:
    """The token in the header; None for any other header, and for two."""
    if len(given) != 1:
        return None
    scheme, _, text = given[0].partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def _has_token_in_query(query: bytes) -> bool:
    if not query:
        return False
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(_SECRET_NAME.search(name) or looks_like_token(name) or looks_like_token(value) for name, value in pairs)


def _nothing_there(method: str, path: str) -> Response:
    allowed = [known for known in ("GET", "POST", "DELETE") if rule_for(known, path) is not None]
    if not allowed:
        return _problem(ProblemCode.NOT_FOUND, f"There is nothing at {path[:200]!r}; see /docs for what there is.")
    allowed += ["HEAD"] if "GET" in allowed else []
    detail = f"{method[:20]} is not possible at {path[:200]!r}; see /docs."
    return _problem(ProblemCode.METHOD_NOT_ALLOWED, detail, {"Allow": ", ".join(allowed)})


def _problem(code: ProblemCode, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return problem_response(code.status, code.value, detail, headers)


_SCHEME = "token"
_REFUSALS = problems(ProblemCode.UNAUTHORIZED, ProblemCode.FORBIDDEN)


def with_security(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what each call needs."""
    scheme = {"type": "http", "scheme": "bearer", "description": "`ppw_...`, made by `producer token create`."}
    paths = {
        path: {method: _secured(method, path, operation) for method, operation in operations.items()}
        for path, operations in document["paths"].items()
    }
    components = {**document.get("components", {}), "securitySchemes": {_SCHEME: scheme}}
    return {**document, "security": [{_SCHEME: []}], "paths": paths, "components": components}


def _secured(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    rule = rule_for(method.upper(), path)
    if rule is None or rule.is_open:
        return {**operation, "security": []}
    about = f"{operation.get('description', '')}\n\nNeeds {rule.words}.".strip()
    refusals = {str(status): answer for status, answer in _REFUSALS.items()}
    return {**operation, "description": about, "responses": {**refusals, **operation["responses"]}}
