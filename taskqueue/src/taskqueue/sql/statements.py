"""The statements that both databases share. Binds are named `the_*` in WHERE and `new_*` in SET."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from runnerlib.contract import TaskState
from taskqueue.sql.rows import TASK_COLUMNS
from taskqueue.sql.tables import tasks, waiting_notes
from taskqueue.tasks import NewTask

_this = tasks.c.id == bindparam("the_id")
#: The fence of everything that is written for a delivery.
FENCED = _this & tasks.c.finished_at.is_(None) & (tasks.c.attempt <= bindparam("the_attempt"))
#: `available_at` of a task that may be claimed at once; these are claimed strictly by `seq`.
NOW_CLAIMABLE = 0.0

#: SET of a task that ends without an outcome.
CANCELLED: Mapping[str, Any] = MappingProxyType(
    {
        "state": TaskState.CANCELLED.value,
        "available_at": null(),
        "receipt": null(),
        "updated_at": bindparam("new_now"),
        "finished_at": bindparam("new_now"),
    }
)
#: SET of a task whose next attempt waits: whoever had it loses its receipt.
NEXT_ATTEMPT: Mapping[str, Any] = MappingProxyType(
    {
        "attempt": bindparam("new_attempt"),
        "receipt": null(),
        "delivery_count": 0,
        "updated_at": bindparam("new_now"),
        "placed_attempt": null(),
        "placed_runner": null(),
        "placed_boot": null(),
        "progress_fraction": null(),
        "progress_message": null(),
    }
)

TASK_BY_ID = select(*TASK_COLUMNS).where(_this)
#: Why an attempt failed, with the task's state left as it is.
EXPLAIN = (
    update(tasks)
    .where(_this)
    .values(
        error_code=bindparam("new_error_code"),
        error_message=bindparam("new_error_message"),
        history=bindparam("new_history"),
        runner=func.coalesce(bindparam("new_runner"), tasks.c.runner),
    )
)
PROGRESS = (
    update(tasks)
    .where(FENCED)
    .values(
        progress_fraction=bindparam("new_fraction"),
        progress_message=bindparam("new_message"),
        updated_at=bindparam("new_now"),
    )
)

#: Locks the row where the database has row locks, so that it cannot change before the next statement.
LOCK_FINISHED_AT = select(tasks.c.finished_at).where(_this).with_for_update()
#: Includes `running` rows without a lease: their owner died, and maybe no other will ever claim them.
CANCEL_WAITING = (
    update(tasks)
    .where(
        _this
        & (
            tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value))
            | (tasks.c.available_at == NOW_CLAIMABLE)
        )
    )
    .values(**CANCELLED)
)
CANCEL_RUNNING = (
    update(tasks)
    .where(_this & (tasks.c.state == TaskState.RUNNING.value))
    .values(cancel_requested=True, updated_at=bindparam("new_now"))
)
IS_CANCELLED = tasks.c.cancel_requested.is_(True) | (tasks.c.state == TaskState.CANCELLED.value)

#: The counts of what has not ended and of what has, each from one index alone.
COUNT_WAITING, COUNT_FINISHED = (
    select(tasks.c.algorithm, tasks.c.state, func.count())
    .where(column.is_not(None))
    .group_by(tasks.c.algorithm, tasks.c.state)
    for column in (tasks.c.available_at, tasks.c.finished_at)
)
#: Since when a waiting task waits: for a replayed one, since its replay.
WAITS_SINCE = case((tasks.c.replays > 0, tasks.c.updated_at), else_=tasks.c.created_at)
OLDEST_WAITING = (
    select(WAITS_SINCE)
    .where((tasks.c.algorithm == bindparam("the_algorithm")) & (tasks.c.available_at == NOW_CLAIMABLE))
    .order_by(tasks.c.seq)
    .limit(1)
)

#: By the dialect's name: inserts tasks, leaves known ids as they are. Made once: making one costs as much as using it.
INSERT_NEW = MappingProxyType(
    {
        "sqlite": sqlite.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
        "postgresql": postgresql.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
    }
)
#: The same for one task; returns no row if its id is known.
INSERT_ONE = MappingProxyType({name: statement.returning(tasks.c.id) for name, statement in INSERT_NEW.items()})

_NOTES = {name: dialect.insert(waiting_notes) for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))}
#: By the dialect's name: notes why an algorithm's tasks wait.
NOTE: Mapping[str, Any] = MappingProxyType(
    {
        name: note.on_conflict_do_update(
            index_elements=[waiting_notes.c.algorithm],
            set_={"note": note.excluded.note, "noted_at": note.excluded.noted_at},
        )
        for name, note in _NOTES.items()
    }
)

_FILL_TOMBSTONE = (
    update(tasks)
    .where(_this & (tasks.c.digest == ""))
    .values(
        algorithm=bindparam("new_algorithm"),
        payload=bindparam("new_payload"),
        digest=bindparam("new_digest"),
        updated_at=bindparam("new_now"),
    )
)


def fill_tombstone(connection: Connection, task: NewTask, now: float) -> None:
    """The task of a tombstone has arrived: it stays cancelled, and its content is known from now on."""
    values = {
        "the_id": task.id,
        "new_algorithm": task.algorithm,
        "new_payload": task.payload,
        "new_digest": task.digest,
        "new_now": now,
    }
    connection.execute(_FILL_TOMBSTONE, values)


def execute(connection: Connection, statement: Any, values: Any) -> int:
    """Returns the number of rows that the statement wrote."""
    count: int = connection.execute(statement, values).rowcount
    return count
