"""Puts new tasks into the table, and tells known ids apart. Runs inside a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from runnerlib.contract import TaskState
from taskqueue.sql import queue_statements
from taskqueue.sql.statements import INSERT_NEW, padded
from taskqueue.tasks import NewTask, Published


def publish(connection: Connection, tasks: Sequence[NewTask], token: int, now: float) -> list[Published]:
    """What became of each. `token` is a fresh random number by which our own rows are told from older ones."""
    rows = [_row(task, token, now) for task in tasks]
    inserted = connection.execute(INSERT_NEW[connection.dialect.name], rows).rowcount
    if inserted == len(tasks):
        return [Published.ACCEPTED] * len(tasks)
    return _read_back(connection, tasks, token, now)


def _read_back(connection: Connection, tasks: Sequence[NewTask], token: int, now: float) -> list[Published]:
    found = connection.execute(queue_statements.PUBLISHED, {"the_ids": padded([task.id for task in tasks])}).all()
    digests: dict[str, str] = {}
    ours: set[str] = set()
    for task_id, digest, receipt in found:
        digests[task_id] = digest
        if receipt == token:
            ours.add(task_id)
    verdicts = []
    for task in tasks:
        if not digests[task.id]:
            fill_tombstone(connection, task, now)
            digests[task.id] = task.digest
        if digests[task.id] != task.digest:
            verdicts.append(Published.CONFLICT)
        elif task.id in ours:
            verdicts.append(Published.ACCEPTED)
            ours.discard(task.id)
        else:
            verdicts.append(Published.DUPLICATE)
    return verdicts


def fill_tombstone(connection: Connection, task: NewTask, now: float) -> None:
    values = {
        "the_id": task.id,
        "new_algorithm": task.algorithm,
        "new_payload": task.payload,
        "new_digest": task.digest,
        "new_now": now,
    }
    connection.execute(queue_statements.FILL_TOMBSTONE, values)


def _row(task: NewTask, token: int, now: float) -> dict[str, Any]:
    return {
        "id": task.id,
        "algorithm": task.algorithm,
        "payload": task.payload,
        "digest": task.digest,
        "state": TaskState.QUEUED.value,
        "attempt": task.attempt,
        "available_at": queue_statements.NOW_CLAIMABLE,
        "receipt": token,
        "created_at": now,
        "updated_at": now,
        "expires_at": task.expires_at,
        "reply_to": task.reply_to,
        "correlation_id": task.correlation_id,
    }
