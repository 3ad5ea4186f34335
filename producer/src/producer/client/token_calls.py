"""Tokens and the audit: what a client asks of a gateway, as `producer.client.calls` does."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from producer.client.steps import Call, Emit, Query, Request, as_body
from producer.errors import GatewayUnreachable, Refused

#: Entries in one page; the gateway's own limit.
_PAGE_SIZE = 1000
#: What may be sent with a token; see `POST /tokens`.
Limits = Mapping[str, float | None]
_KEY_ID = re.compile(r"[0-9a-z]{1,32}")


def create_token(
    name: str, scopes: Sequence[str], algorithms: Sequence[str], expires_seconds: float | None, limits: Limits
) -> Call[dict[str, Any]]:
    wanted = {
        "name": name,
        "scopes": list(scopes),
        "algorithms": list(algorithms),
        "expires_seconds": expires_seconds,
        # a gateway of an older version knows no limits: it refuses to make a token with one
        **{limit: most for limit, most in limits.items() if most is not None},
    }
    answer: dict[str, Any] = yield Request("POST", "/tokens", as_body(wanted))
    return answer


def revoke_token(key_id: str) -> Call[dict[str, Any]]:
    if _KEY_ID.fullmatch(key_id) is None:
        raise Refused(404, "unknown_token", "a key id is what `producer token list` shows, not the token itself")
    answer: dict[str, Any] = yield Request("DELETE", f"/tokens/{key_id}")
    return answer


def tokens(limit: int | None) -> Call[list[dict[str, Any]]]:
    return (yield from _pages("/tokens", "tokens", {}, limit))


def audit(who: str | None, action: str | None, limit: int | None) -> Call[list[dict[str, Any]]]:
    query: Query = {name: value for name, value in (("who", who), ("action", action)) if value is not None}
    return (yield from _pages("/audit", "entries", query, limit))


def _pages(path: str, name: str, query: Query, limit: int | None) -> Call[list[dict[str, Any]]]:
    """Up to `limit` entries (None: all); emits each."""
    entries: list[dict[str, Any]] = []
    while limit is None or len(entries) < limit:
        most = _PAGE_SIZE if limit is None else min(limit - len(entries), _PAGE_SIZE)
        page = yield Request("GET", path, query={**query, "limit": str(most)})
        if not isinstance(page, dict) or not isinstance(page.get(name), list):
            raise GatewayUnreachable("the gateway answered with something that is not a list; check its address")
        for entry in page[name]:
            entries.append(entry)
            yield Emit(entry)
        if page.get("next") is None:
            break
        query = {**query, "cursor": str(page["next"])}
    return entries
