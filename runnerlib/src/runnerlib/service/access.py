"""Who may call what: tables of routes, and the middleware of services that know one another by tokens.

What is not in a table does not exist for anybody while tokens are in use, so a route that was forgotten is closed.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runnerlib.contract.identity import RunnerKeys
from runnerlib.service.problems import problem_response
from runnerlib.service.web import PROBLEM_CONTENT, ServiceApp

METRICS_PATH = "/metrics"
AUTHENTICATE = 'Bearer realm="plugplay"'
_PEER = "plugplay.peer"
_SCHEME = "token"
_REFUSALS = {
    "401": {"description": "`unauthorized`: no token, or one that is not valid here.", "content": PROBLEM_CONTENT},
    "403": {"description": "`forbidden`: this token does not allow the call.", "content": PROBLEM_CONTENT},
}
R = TypeVar("R")


class RouteTable(Generic[R]):
    """Rules by method and path; ``{part}`` in a path stands for any one part. HEAD has the rule of GET."""

    def __init__(self, rules: Mapping[tuple[str, str], R]) -> None:
        self.rules = MappingProxyType(dict(rules))
        self._methods = tuple(dict.fromkeys(method for method, _ in rules))
        self._patterns = tuple((method, _pattern(path), rule) for (method, path), rule in rules.items() if "{" in path)

    def find(self, method: str, path: str) -> R | None:
        """The rule of a request; None: no call is there."""
        method = "GET" if method == "HEAD" else method
        rule = self.rules.get((method, path))
        if rule is not None:
            return rule
        found = (rule for known, pattern, rule in self._patterns if known == method and pattern.fullmatch(path))
        return next(found, None)

    def nothing_there(self, method: str, path: str) -> Response:
        """404, or 405 where another method is possible."""
        allowed = [known for known in self._methods if self.find(known, path) is not None]
        if not allowed:
            return problem_response(
                404, "not_found", f"There is nothing at {path[:200]!r}; see /docs for what there is."
            )
        allowed += ["HEAD"] if "GET" in allowed else []
        detail = f"{method[:20]} is not possible at {path[:200]!r}; see /docs."
        return problem_response(405, "method_not_allowed", detail, {"Allow": ", ".join(allowed)})


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in path.split("/")))


def bearer_token(scope: Scope) -> tuple[str | None, bool]:
    """The token in the header, None for any other header and for two; and whether there is such a header at all."""
    given = Headers(scope=scope).getlist("authorization")
    if len(given) != 1:
        return None, bool(given)
    scheme, _, text = given[0].partition(" ")
    return (text.strip() if scheme.lower() == "bearer" else None), True


class SecretHash:
    """A secret that a text is compared with in constant time. An empty one equals nothing."""

    def __init__(self, secret: str) -> None:
        self._hash = hash_of(secret) if secret else None

    def __bool__(self) -> bool:
        return self._hash is not None

    def equals(self, text: str | None) -> bool:
        return text is not None and self.has_hash(hash_of(text))

    def has_hash(self, text_hash: str) -> bool:
        return self._hash is not None and hmac.compare_digest(text_hash, self._hash)


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Role(str, Enum):
    """What a token makes of its bearer."""

    RUNNER = "a runner's token"
    SERVICE = "the token of a service of this environment"
    #: Who may send this runner runs.
    CALLER = "the token for runs of this runner"
    METRICS = "METRICS_TOKEN"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who makes a request; `name` is a runner's, `key_id` that of the key that its token was made with."""

    role: Role
    name: str = ""
    key_id: str = ""


def peer_of(request: Request) -> Peer | None:
    """None where no tokens are in use, and for calls that need none."""
    peer: Peer | None = request.scope.get(_PEER)
    return peer


#: Open to everybody.
OPEN: frozenset[Role] = frozenset()
#: What every service has, and who may call it.
COMMON_RULES: Mapping[tuple[str, str], frozenset[Role]] = MappingProxyType(
    {
        ("GET", "/docs"): OPEN,
        ("GET", "/swagger/{file}"): OPEN,
        ("GET", "/openapi.json"): OPEN,
        ("GET", "/healthz/live"): OPEN,
        ("GET", "/healthz/ready"): OPEN,
    }
)


class PeerGuard:
    """ASGI middleware: lets a request in with its peer, or answers it.

    Parameters:
        routes: by method and path, the roles of which one is enough; none: open to everybody.
        identify: whose token a text is; None: nobody's.
        metrics_token: valid for ``/metrics`` alone; empty: there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: RouteTable[frozenset[Role]],
        identify: Callable[[str], Peer | None],
        metrics_token: str = "",
    ) -> None:
        self._app = app
        self._routes = routes
        self._identify = identify
        self._metrics = SecretHash(metrics_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope) if scope["type"] == "http" else None
        await (self._app if answer is None else answer)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        """None: the request is let in."""
        rule = self._routes.find(scope["method"], scope["path"])
        if rule is None:
            return self._routes.nothing_there(scope["method"], scope["path"])
        if not rule:
            return None
        text, is_given = bearer_token(scope)
        peer = None if text is None else self._identify(text)
        if peer is None and Role.METRICS in rule and self._metrics.equals(text):
            return None
        if peer is None:
            return _unauthorized(rule, is_given=is_given)
        if peer.role not in rule:
            return problem_response(403, "forbidden", f"This call needs {_words(rule)}; this is {peer.role.value}.")
        scope[_PEER] = peer
        return None


def _unauthorized(rule: frozenset[Role], *, is_given: bool) -> Response:
    if is_given:
        detail = f"The token is not valid here: this call needs {_words(rule)}."
    else:
        detail = f"This call needs {_words(rule)}, in the header 'Authorization: Bearer ...'."
    fault = ', error="invalid_token"' if is_given else ""
    return problem_response(401, "unauthorized", detail, {"WWW-Authenticate": AUTHENTICATE + fault})


def _words(rule: frozenset[Role]) -> str:
    return " or ".join(role.value for role in Role if role in rule)


def identify(keys: RunnerKeys, text: str) -> Peer | None:
    """Whose token it is, among those that are made from the environment's keys."""
    if keys.is_service(text):
        return Peer(Role.SERVICE)
    runner = keys.runner_of(text)
    return None if runner is None else Peer(Role.RUNNER, runner.name, runner.key_id)


def guard_peers(
    app: ServiceApp, routes: RouteTable[frozenset[Role]], identify: Callable[[str], Peer | None], metrics_token: str
) -> None:
    """Puts :class:`PeerGuard` around what was added before, and what each call needs into the OpenAPI document."""
    app.add_middleware(PeerGuard, routes=routes, identify=identify, metrics_token=metrics_token)
    plain = app.openapi

    def needs(method: str, path: str) -> str | None:
        rule = routes.find(method, path)
        return _words(rule) if rule else None

    app.openapi = lambda: with_token_scheme(plain(), "Made from the environment's keys.", needs, _REFUSALS)  # type: ignore[method-assign]


def with_token_scheme(
    document: dict[str, Any], about: str, needs: Callable[[str, str], str | None], refusals: Mapping[str, Any]
) -> dict[str, Any]:
    """The OpenAPI document with what each call needs: `needs(method, path)` says it in words, None for nothing.

    `refusals` are the answers, by status, to those who do not have it.
    """

    def secured(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
        words = needs(method.upper(), path)
        if words is None:
            return {**operation, "security": []}
        text = f"{operation.get('description', '')}\n\nNeeds {words}.".strip()
        return {**operation, "description": text, "responses": {**refusals, **operation["responses"]}}

    paths = {
        path: {method: secured(method, path, operation) for method, operation in operations.items()}
        for path, operations in document["paths"].items()
    }
    scheme = {"type": "http", "scheme": "bearer", "description": about}
    components = {**document.get("components", {}), "securitySchemes": {_SCHEME: scheme}}
    return {**document, "security": [{_SCHEME: []}], "paths": paths, "components": components}
