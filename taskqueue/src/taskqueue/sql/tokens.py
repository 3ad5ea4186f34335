"""Tokens and the audit, on either database."""

import secrets
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, text, update

from taskqueue.clock import Clock
from taskqueue.messages import clean
from taskqueue.sql import audit
from taskqueue.sql.database import Database
from taskqueue.sql.pages import KeysetQuery, audit_query, read_page
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.tables import environment_keys, sessions, tokens
from taskqueue.tasks import Page
from taskqueue.tokens import AuditEntry, AuditFilter, AuditNote, Scope, SendLimits, Session, Token

#: The use of a token is written again after this long, so that it costs next to nothing.
USED_AGAIN_SECONDS = 60.0
_SEAL_KEY = "seal"

_this = tokens.c.key_id == bindparam("the_key_id")
_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(tokens.c)
_ONE = select(tokens).where(_this)
_LOCK_ONE = _ONE.with_for_update()
_REVOKE = update(tokens).where(_this & tokens.c.revoked_at.is_(None)).values(revoked_at=bindparam("new_now"))
_USED = (
    update(tokens)
    .where(_this & (tokens.c.last_used_at.is_(None) | (tokens.c.last_used_at < bindparam("the_used_before"))))
    .values(last_used_at=bindparam("new_now"))
)
_SESSION = select(sessions).where(sessions.c.session_hash == bindparam("the_hash"))
_END_SESSION = delete(sessions).where(sessions.c.session_hash == bindparam("the_hash"))
_DROP_SESSIONS = delete(sessions).where(sessions.c.expires_at < bindparam("the_now"))
_KEY = select(environment_keys.c.value).where(environment_keys.c.name == _SEAL_KEY)
_MAKE_KEY = text("INSERT INTO environment_keys (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")


class SqlTokenStore:
    """See `taskqueue.protocols.TokenStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, token: Token, note: AuditNote) -> Token:
        def write(connection: Connection) -> Token:
            added = replace(token, created_at=self._clock.wall())
            connection.execute(insert(tokens), _values(added))
            audit.write(connection, note, [added.key_id], added.created_at)
            return added

        return await self._database.write(write)

    async def get(self, key_id: str) -> Token | None:
        def read(connection: Connection) -> Token | None:
            row = connection.execute(_ONE, {"the_key_id": key_id}).first()
            return None if row is None else _token(row)

        return await self._database.read(read)

    async def list(self, *, limit: int = 100, before: int | None = None) -> Page[Token]:
        return await read_page(self._database.read, KeysetQuery(tokens, _COLUMNS, _token), limit, before)

    async def revoke(self, key_id: str, note: AuditNote) -> Token | None:
        def write(connection: Connection) -> Token | None:
            now = self._clock.wall()
            row = connection.execute(_LOCK_ONE, {"the_key_id": key_id}).first()
            if row is None or row.revoked_at is not None:
                return None if row is None else _token(row)
            connection.execute(_REVOKE, {"the_key_id": key_id, "new_now": now})
            audit.write(connection, note, [key_id], now)
            return replace(_token(row), revoked_at=now)

        return await self._database.write(write)

    async def used(self, key_id: str) -> None:
        now = self._clock.wall()
        values = {"the_key_id": key_id, "new_now": now, "the_used_before": now - USED_AGAIN_SECONDS}
        await self._database.write(lambda connection: connection.execute(_USED, values), durable=False)

    async def open_session(self, session: Session, note: AuditNote) -> None:
        def write(connection: Connection) -> None:
            now = self._clock.wall()
            connection.execute(_DROP_SESSIONS, {"the_now": now})
            connection.execute(insert(sessions), asdict(session))
            audit.write(connection, note, [session.key_id], now)

        await self._database.write(write)

    async def session(self, session_hash: str) -> Session | None:
        def read(connection: Connection) -> Session | None:
            row = connection.execute(_SESSION, {"the_hash": session_hash}).first()
            return None if row is None else Session(**row._mapping)

        return await self._database.read(read)

    async def end_session(self, session_hash: str) -> None:
        await self._database.write(
            lambda connection: connection.execute(_END_SESSION, {"the_hash": session_hash}), durable=False
        )

    async def audit(
        self, wanted: AuditFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[AuditEntry]:
        return await read_page(self._database.read, audit_query(wanted or AuditFilter()), limit, before)

    async def purge_audit(self, created_before: float, limit: int) -> int:
        return await self._database.write(
            lambda connection: audit.purge(connection, created_before, limit), durable=False
        )


def seal_key(connection: Connection) -> bytes:
    """The key of `OwnerSeal`, the same for all processes with this database; made by the first one that asks."""
    with connection.begin():
        connection.execute(_MAKE_KEY, {"name": _SEAL_KEY, "value": secrets.token_hex(32)})
        return bytes.fromhex(connection.execute(_KEY).scalar_one())


def _values(token: Token) -> dict[str, Any]:
    return {
        "key_id": token.key_id,
        "secret_hash": token.secret_hash,
        "name": clean(token.name),
        "scopes": " ".join(sorted(scope.value for scope in token.scopes)),
        "algorithms": " ".join(token.algorithms),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        **asdict(token.limits),
    }


def _token(row: AnyRow) -> Token:
    values = dict(row._mapping)
    del values["seq"]
    values["scopes"] = frozenset(map(Scope, row.scopes.split()))
    values["algorithms"] = tuple(row.algorithms.split())
    values["limits"] = SendLimits(**{field.name: values.pop(field.name) for field in fields(SendLimits)})
    return Token(**values)
