"""What every service refuses before anything else: requests for a foreign host name, and those of other sites' pages.

A page of any site can make its visitor's browser send requests to 127.0.0.1. It cannot choose their `Host`, but can let
its own name resolve to 127.0.0.1 (DNS rebinding), and then read the answers. Without that, it cannot read, but change.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.service.body_budget import BodyBudget
from runnerlib.service.problems import problem_response
from runnerlib.service.settings import is_loopback

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({b"same-origin", b"none"})
_MAX_SHOWN_CHARACTERS = 80
#: On every answer; given to the server, which writes them at no cost.
DEFAULT_HEADERS = [("X-Content-Type-Options", "nosniff")]
#: On pages. What a page needs beyond itself it says in a policy of its own.
_PAGE_HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Guard:
    """ASGI middleware: 421 `unknown_host` and 403 `other_site`; counts large bodies (:class:`BodyBudget`).

    Parameters:
        bound_to: the address that the service listens on.
        allowed_hosts: further names, without ports, that it is reached by. Without any, a service that is bound beyond
            loopback is reached by every name.
    """

    def __init__(self, app: ASGIApp, bound_to: str, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._large = BodyBudget(app)
        names = frozenset(name.lower() for name in allowed_hosts)
        self._knows_all = not names and not is_loopback(bound_to)
        self._is_known = lru_cache(maxsize=256)(lambda host: _is_known(host, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.answer(scope)(scope, receive, send)

    def answer(self, scope: Scope) -> ASGIApp:
        """What answers this request."""
        headers = dict(scope["headers"])
        host = headers.get(b"host")
        if not (self._knows_all or host is None or self._is_known(host)):
            return _unknown_host(host)
        if scope["method"] not in _READING and _is_of_other_site(headers, host):
            return problem_response(403, "other_site", "Pages of other sites may not do this; use this service's own.")
        # A look at the number of digits is enough to tell most requests.
        is_small = len(headers.get(b"content-length", b"")) <= 4 and b"transfer-encoding" not in headers
        return self._app if is_small else self._large


def _unknown_host(host: bytes) -> Response:
    shown = host.decode("latin-1")[:_MAX_SHOWN_CHARACTERS]
    detail = (
        f"This service does not know itself by the Host {shown!r}; use http://127.0.0.1, "
        "or add the name to ALLOWED_HOSTS and start it again."
    )
    return problem_response(421, "unknown_host", detail)


def add_page_headers(start: Message) -> None:
    """Adds to the start of an answer what pages have."""
    fields = start.get("headers", ())
    for name, value in fields:
        if name == b"content-type" and value.startswith(b"text/html"):
            given = dict(fields)
            start["headers"] = [*fields, *(field for field in _PAGE_HEADERS if field[0] not in given)]


def _is_known(host: bytes, names: frozenset[str]) -> bool:
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0].removesuffix(".")
    return name in names or is_loopback(name)


def _is_of_other_site(headers: Mapping[bytes, bytes], host: bytes | None) -> bool:
    """Browsers send Sec-Fetch-Site over HTTPS and to localhost only, old ones never: then there is Origin alone."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site.lower() not in _OWN_SITES
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != (host or b"").lower()
