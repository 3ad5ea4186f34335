"""What is read and cancelled otherwise on PostgreSQL, where other processes write at the same time."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from taskqueue.errors import StoreUnavailable
from taskqueue.sql import postgres_statements as statements
from taskqueue.sql.queries import execute, tombstone
from taskqueue.sql.rows import task_row
from taskqueue.sql.statements import CANCEL_RUNNING, CANCEL_WAITING
from taskqueue.tasks import CancelAnswer, Delivery, TaskRow

#: Seconds for a run that began in time to be placed, before its task counts as expired in the queue.
EXPIRED_SINCE_SECONDS = 5.0
_MOST_TRIES = 10


def lookup(connection: Connection, ids: Sequence[str]) -> dict[str, TaskRow]:
    rows = connection.execute(statements.TASKS_BY_IDS, {"the_ids": ids}).all()
    return {row[0]: task_row(row) for row in rows}


def ended(connection: Connection, ids: Sequence[str]) -> list[str]:
    return list(connection.scalars(statements.ENDED, {"the_ids": ids}))


def marked(connection: Connection, ids: Collection[str]) -> set[str]:
    return set(connection.scalars(statements.MARKED, {"the_ids": list(ids)}))


def expired(connection: Connection, now: float, limit: int) -> list[Delivery]:
    where = {"the_wall": now - EXPIRED_SINCE_SECONDS, "the_most": limit}
    return [
        Delivery(
            id=row.id,
            algorithm=row.algorithm,
            payload=row.payload,
            digest=row.digest,
            attempt=row.attempt,
            receipt=None,
            expires_at=row.expires_at,
            reply_to=row.reply_to,
            correlation_id=row.correlation_id,
        )
        for row in connection.execute(statements.EXPIRED, where)
    ]


def cancel(connection: Connection, task_id: str, now: float) -> CancelAnswer:
    """With the row locked, so that it cannot change between the look at it and the write."""
    this = {"the_id": task_id, "new_now": now}
    for _ in range(_MOST_TRIES):
        row = connection.execute(statements.END_LOCKED, {"the_id": task_id}).first()
        if row is None:
            if connection.execute(statements.INSERT_TOMBSTONE, tombstone(task_id, now)).first():
                return CancelAnswer.CANCELLED
            continue  # the row has come into being just now: look again
        if row.finished_at is not None:
            return CancelAnswer.FINISHED
        if execute(connection, CANCEL_WAITING, this):
            return CancelAnswer.CANCELLED
        execute(connection, CANCEL_RUNNING, this)
        return CancelAnswer.REQUESTED
    raise StoreUnavailable(f"the task {task_id!r} comes and goes too fast to be cancelled; try again")
