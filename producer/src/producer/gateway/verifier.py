"""Finds out whose token a request carries. Nothing of it is logged or kept but its SHA-256."""

import asyncio
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from producer.gateway.callers import ADMIN, ADMIN_KEY_ID, Caller, caller_with, without_admin
from runnerlib.service.access import SecretHash, hash_of
from runnerlib.service.logs import get_logger
from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TokenStore
from taskqueue.tokens import Token

log = get_logger(__name__)

#: A token is looked up again after this long. A revoked one is refused everywhere within a second.
FRESH_SECONDS = 0.5
#: Verified tokens that are remembered. Others are looked up for each request; refused ones always are.
MOST_REMEMBERED = 1000
#: As often as the store writes it.
_USED_AGAIN_SECONDS = 60.0
_SECRET_BYTES = 32
_SESSION_OF_ADMIN = without_admin(ADMIN)
_TOKEN = re.compile(r"ppw_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
#: What the text of an unknown key id is compared with: a refusal takes as long as any other.
_NO_HASH = "0" * 64


def new_token() -> tuple[str, str]:
    """A key id, and the text of a token that has it."""
    key_id = secrets.token_hex(6)
    return key_id, f"ppw_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def looks_like_token(text: str) -> bool:
    return _TOKEN.search(text) is not None


class TokenVerifier:
    """`admin_token` is valid beside those in the store; empty: there is none. Without a store, it alone is."""

    def __init__(self, store: TokenStore | None, admin_token: str = "", wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._admin = SecretHash(admin_token)
        self._wall = wall
        #: by the SHA-256 of its text, with the time (monotonic) of its look-up; the latest last
        self._verified: OrderedDict[str, tuple[Token, float]] = OrderedDict()
        #: how often a token was forgotten
        self._forgotten = 0
        self._checking: dict[str, asyncio.Task[Token | None]] = {}

    async def caller(self, text: str | None) -> Caller | None:
        """Whose token this is; None if it is unknown, has expired or was revoked. Raises StoreUnavailable."""
        if text is None:
            return None
        if self._admin.equals(text):
            return ADMIN
        text_hash = hash_of(text)
        found = self._verified.get(text_hash)
        if found is not None and time.monotonic() - found[1] < FRESH_SECONDS:
            token: Token | None = found[0]
        else:
            token = await self._look_up(text, text_hash)
        return caller_with(token) if token is not None and token.is_valid(self._wall()) else None

    async def session_caller(self, cookie: str | None) -> Caller | None:
        """Whose session this is; None if it is over, or the token that opened it is. Raises StoreUnavailable."""
        if cookie is None:
            return None
        store, now = self._opened(), self._wall()
        session = await store.session(hash_of(cookie))
        if session is None or session.expires_at <= now:
            return None
        if session.key_id == ADMIN_KEY_ID:
            return _SESSION_OF_ADMIN if self._admin.has_hash(session.token_hash) else None
        token = await store.get(session.key_id)
        is_right = token is not None and token.is_valid(now) and token.secret_hash == session.token_hash
        return without_admin(caller_with(token)) if token is not None and is_right else None

    def forget(self, key_id: str) -> None:
        """Looks the token up at its next request: it was revoked here. What is being looked up is looked up again."""
        self._forgotten += 1
        for text_hash in [text_hash for text_hash, (token, _) in self._verified.items() if token.key_id == key_id]:
            del self._verified[text_hash]

    async def _look_up(self, text: str, text_hash: str) -> Token | None:
        """Requests with the same token that come at the same time share one look-up."""
        matched = _TOKEN.fullmatch(text)
        if matched is None:
            return None
        checking = self._checking.get(text_hash)
        if checking is None:
            checking = asyncio.create_task(self._check(matched.group(1), text_hash), name="check a token")
            self._checking[text_hash] = checking
            checking.add_done_callback(partial(self._checked, text_hash))
        # a request that is cancelled takes nothing from those that share the look-up
        return await asyncio.shield(checking)

    def _checked(self, text_hash: str, checking: asyncio.Task[Token | None]) -> None:
        del self._checking[text_hash]
        if not checking.cancelled():
            # it belongs to the requests, if they are still there to take it
            checking.exception()

    async def _check(self, key_id: str, text_hash: str) -> Token | None:
        store = self._opened()
        token, began_at = await self._read(store, key_id)
        is_right = hmac.compare_digest(text_hash, _NO_HASH if token is None else token.secret_hash)
        if token is None or not is_right or not token.is_valid(self._wall()):
            self._verified.pop(text_hash, None)
            return None
        self._verified[text_hash] = token, began_at
        self._verified.move_to_end(text_hash)
        if len(self._verified) > MOST_REMEMBERED:
            self._verified.popitem(last=False)
        if token.last_used_at is None or self._wall() - token.last_used_at >= _USED_AGAIN_SECONDS:
            await self._note_use(store, key_id)
        return token

    def _opened(self) -> TokenStore:
        if self._store is None:
            raise StoreUnavailable("the store has not been opened yet, and tokens are in it")
        return self._store

    async def _read(self, store: TokenStore, key_id: str) -> tuple[Token | None, float]:
        """The token as it is now, and when (monotonic) it was asked for."""
        while True:
            began_at, forgotten = time.monotonic(), self._forgotten
            token = await store.get(key_id)
            if forgotten == self._forgotten:
                return token, began_at

    async def _note_use(self, store: TokenStore, key_id: str) -> None:
        try:
            await store.used(key_id)
        except StoreUnavailable as error:
            log.warning("the use of a token cannot be noted", key_id=key_id, reason=str(error))
