"""Entries of the audit. `write` runs inside the transaction of the change that it tells of."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from runnerlib.contract import strict_json
from taskqueue.messages import clean, clean_or_none
from taskqueue.sql.tables import audit
from taskqueue.tokens import MAX_AUDIT_IDS, AuditNote

_OF_CALL = select(audit.c.audit_id, audit.c.count, audit.c.ids).where(audit.c.call == bindparam("the_call"))
_INSERT = insert(audit)
_ADD = (
    update(audit)
    .where(audit.c.audit_id == bindparam("the_id"))
    .values(count=bindparam("new_count"), ids=bindparam("new_ids"))
)


def write(connection: Connection, note: AuditNote | None, changed: Iterable[str | int], now: float) -> None:
    """Writes what a call has changed, or adds it to what the call has changed before. Nothing changed, no entry."""
    ids = [str(each) for each in changed]
    if note is None or not ids:
        return
    before = connection.execute(_OF_CALL, {"the_call": note.call}).first()
    if before is not None:
        kept = (strict_json.loads(before.ids) + ids)[:MAX_AUDIT_IDS]
        values = {"the_id": before.audit_id, "new_count": before._mapping["count"] + len(ids), "new_ids": _json(kept)}
        connection.execute(_ADD, values)
        return
    row = {
        "call": note.call,
        "created_at": now,
        "who": note.who,
        "action": note.action,
        "params": _json(dict(note.params)),
        "count": len(ids),
        "ids": _json(ids[:MAX_AUDIT_IDS]),
        "client": clean_or_none(note.client),
    }
    connection.execute(_INSERT, row)


def purge(connection: Connection, created_before: float, limit: int) -> int:
    """Drops up to `limit` entries that were made before that time, oldest first."""
    old = (
        select(audit.c.audit_id)
        .where(audit.c.created_at < created_before)
        .order_by(audit.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    count: int = connection.execute(delete(audit).where(audit.c.audit_id.in_(old))).rowcount
    return count


def _json(value: Any) -> str:
    return clean(strict_json.dumps(value).decode())
