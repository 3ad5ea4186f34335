"""What both SQL stores ask and write alike, each inside a transaction or on a reading connection."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, delete, select

from runnerlib.contract import TaskState
from taskqueue.sql import statements
from taskqueue.sql.rows import clean, task_row
from taskqueue.sql.tables import dead_letters, tasks, waiting_notes
from taskqueue.tasks import CancelAnswer, Counts, TaskRow
from taskqueue.waiting_notes import believed_since


def get(connection: Connection, task_id: str) -> TaskRow | None:
    row = connection.execute(statements.TASK_BY_ID, {"the_id": task_id}).first()
    return None if row is None else task_row(row)


def marked(connection: Connection, ids: Collection[str]) -> set[str]:
    return set(connection.scalars(statements.MARKED, {"the_ids": statements.padded(list(ids))}).all())


def purge(connection: Connection, finished_before: float, limit: int) -> int:
    """Rows of tasks first, then dead letters that somebody has decided on."""
    dropped = _drop(connection, tasks, tasks.c.finished_at, finished_before, limit)
    for decided_at in (dead_letters.c.replayed_at, dead_letters.c.discarded_at):
        dropped += _drop(connection, dead_letters, decided_at, finished_before, limit - dropped)
    return dropped


def _drop(connection: Connection, table: Table, over_at: Column[Any], before: float, limit: int) -> int:
    """Those for which it was over before that time, oldest first."""
    (key,) = table.primary_key
    # where rows can be locked, what another process is just purging is left to it
    old = select(key).where(over_at < before).order_by(over_at).limit(limit).with_for_update(skip_locked=True)
    return execute(connection, delete(table).where(key.in_(old)), {}) if limit > 0 else 0


def write_progress(connection: Connection, updates: Sequence[tuple[str, int, float, str]], now: float) -> None:
    values = [
        {
            "the_id": task_id,
            "the_attempt": attempt,
            "new_fraction": fraction,
            "new_message": clean(message),
            "new_now": now,
        }
        for task_id, attempt, fraction, message in sorted(updates)
    ]
    connection.execute(statements.PROGRESS, values)


def note_waiting(connection: Connection, reasons: Mapping[str, str], over: Collection[str], now: float) -> None:
    for name in over:
        connection.execute(delete(waiting_notes).where(waiting_notes.c.algorithm == name))
    connection.execute(delete(waiting_notes).where(waiting_notes.c.noted_at < believed_since(now)))
    if reasons:
        rows = [{"algorithm": name, "note": clean(note), "noted_at": now} for name, note in sorted(reasons.items())]
        connection.execute(statements.NOTE[connection.dialect.name], rows)


def execute(connection: Connection, statement: Any, values: Any) -> int:
    count: int = connection.execute(statement, values).rowcount
    return count


def cancel(connection: Connection, task_id: str, now: float) -> CancelAnswer:
    this = {"the_id": task_id, "new_now": now}
    if execute(connection, statements.CANCEL_WAITING, this):
        return CancelAnswer.CANCELLED
    if execute(connection, statements.CANCEL_RUNNING, this):
        return CancelAnswer.REQUESTED
    inserted = execute(connection, statements.INSERT_NEW[connection.dialect.name], [tombstone(task_id, now)])
    return CancelAnswer.CANCELLED if inserted else CancelAnswer.FINISHED


def tombstone(task_id: str, now: float) -> dict[str, Any]:
    """The row of a task that was cancelled before anybody has seen it."""
    return {
        "id": task_id,
        "algorithm": "",
        "payload": b"null",
        "digest": "",
        "state": TaskState.CANCELLED.value,
        "attempt": 1,
        "created_at": now,
        "updated_at": now,
        "finished_at": now,
    }


def counts(connection: Connection) -> list[Counts]:
    by_algorithm: dict[str, dict[TaskState, int]] = {}
    for query in (statements.COUNT_WAITING, statements.COUNT_FINISHED):
        for algorithm, state, count in connection.execute(query).all():
            if algorithm:  # a tombstone has none
                by_algorithm.setdefault(algorithm, {})[TaskState(state)] = count
    return [
        Counts(
            algorithm=algorithm,
            by_state=by_state,
            oldest_waiting_at=connection.scalar(statements.OLDEST_WAITING, {"the_algorithm": algorithm}),
        )
        for algorithm, by_state in sorted(by_algorithm.items())
    ]
