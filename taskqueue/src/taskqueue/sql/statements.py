"""The store's statements, for SQLite and PostgreSQL alike. Binds are named `the_*` in WHERE and `new_*` in SET."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Insert, Text, bindparam, case, func, insert, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from runnerlib.contract import TaskState
from taskqueue.sql.rows import TASK_COLUMNS
from taskqueue.sql.tables import dead_letters, tasks, waiting_notes

TERMINAL = tuple(state.value for state in TaskState if state.is_terminal)

_this = tasks.c.id == bindparam("the_id")
_not_ended = tasks.c.finished_at.is_(None)
_fenced = _this & _not_ended & (tasks.c.attempt <= bindparam("the_attempt"))

TASKS_BY_IDS = select(*TASK_COLUMNS).where(tasks.c.id.in_(bindparam("the_ids", expanding=True)))
TASK_BY_ID = select(*TASK_COLUMNS).where(_this)
#: What the fence needs to know; locks the rows where the database has row locks.
FENCE = (
    select(tasks.c.id, tasks.c.finished_at, tasks.c.attempt, tasks.c.history)
    .where(tasks.c.id.in_(bindparam("the_ids", expanding=True)))
    .with_for_update()
)

END = (
    update(tasks)
    .where(_this)
    .values(
        state=bindparam("new_state"),
        attempt=bindparam("new_attempt"),
        available_at=null(),
        receipt=null(),
        updated_at=bindparam("new_now"),
        finished_at=bindparam("new_now"),
        result=bindparam("new_result"),
        error_code=bindparam("new_error_code"),
        error_message=bindparam("new_error_message"),
        history=func.coalesce(bindparam("new_history"), tasks.c.history),
        runner=func.coalesce(bindparam("new_runner"), tasks.c.runner),
    )
)
#: The next attempt waits; whoever had the task loses its receipt.
NEXT_ATTEMPT: dict[str, Any] = {
    "state": TaskState.RETRYING.value,
    "attempt": bindparam("new_attempt"),
    "available_at": bindparam("new_available_at"),
    "receipt": null(),
    "delivery_count": 0,
    "updated_at": bindparam("new_now"),
    "placed_attempt": null(),
    "placed_runner": null(),
    "placed_boot": null(),
    "progress_fraction": null(),
    "progress_message": null(),
}
#: Why an attempt failed, with the task's state left as it is.
_WHY: dict[str, Any] = {
    "error_code": bindparam("new_error_code"),
    "error_message": bindparam("new_error_message"),
    "history": bindparam("new_history"),
    "runner": func.coalesce(bindparam("new_runner"), tasks.c.runner),
}
RETRY = update(tasks).where(_this).values(**NEXT_ATTEMPT, **_WHY)
EXPLAIN = update(tasks).where(_this).values(**_WHY)

#: Without a boot id nobody can attach to the run; without a runner nobody has it any more, and it waits again.
_taken_back = bindparam("new_boot", type_=Text) == ""
_handed_back = bindparam("new_runner", type_=Text) == ""
PLACE = (
    update(tasks)
    .where(_fenced)
    .values(
        state=case((_handed_back, TaskState.QUEUED.value), else_=TaskState.RUNNING.value),
        attempt=bindparam("the_attempt"),
        placed_attempt=case((_taken_back, null()), else_=bindparam("the_attempt")),
        placed_runner=case((_taken_back, null()), else_=bindparam("new_runner")),
        placed_boot=case((_taken_back, null()), else_=bindparam("new_boot", type_=Text)),
        runner=func.nullif(bindparam("new_runner", type_=Text), ""),
        updated_at=bindparam("new_now"),
    )
)
PROGRESS = (
    update(tasks)
    .where(_fenced)
    .values(
        progress_fraction=bindparam("new_fraction"),
        progress_message=bindparam("new_message"),
        updated_at=bindparam("new_now"),
    )
)

#: Also one that is `running` and that nobody holds: a dead owner left it so, and maybe nobody will ever take it up.
CANCEL_WAITING = (
    update(tasks)
    .where(
        _this & (tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value)) | (tasks.c.available_at == 0.0))
    )
    .values(
        state=TaskState.CANCELLED.value,
        available_at=null(),
        receipt=null(),
        updated_at=bindparam("new_now"),
        finished_at=bindparam("new_now"),
    )
)
CANCEL_RUNNING = (
    update(tasks)
    .where(_this & (tasks.c.state == TaskState.RUNNING.value))
    .values(cancel_requested=True, updated_at=bindparam("new_now"))
)
MARKED = select(tasks.c.id).where(
    tasks.c.id.in_(bindparam("the_ids", expanding=True))
    & (tasks.c.cancel_requested.is_(True) | (tasks.c.state == TaskState.CANCELLED.value))
)

INSERT_DEAD_LETTER = insert(dead_letters)

#: The counts of what has not ended and of what has, each from one index alone.
COUNT_WAITING = (
    select(tasks.c.algorithm, tasks.c.state, func.count())
    .where(tasks.c.available_at.is_not(None))
    .group_by(tasks.c.algorithm, tasks.c.state)
)
COUNT_FINISHED = (
    select(tasks.c.algorithm, tasks.c.state, func.count())
    .where(tasks.c.finished_at.is_not(None))
    .group_by(tasks.c.algorithm, tasks.c.state)
)
#: Since when a waiting task waits: a replayed one has begun anew.
WAITS_SINCE = case((tasks.c.replays > 0, tasks.c.updated_at), else_=tasks.c.created_at)
OLDEST_WAITING = (
    select(WAITS_SINCE)
    .where((tasks.c.algorithm == bindparam("the_algorithm")) & (tasks.c.available_at == 0.0))
    .order_by(tasks.c.seq)
    .limit(1)
)


#: By the dialect's name: inserts tasks, leaves known ids as they are. Made once: making one costs as much as using it.
INSERT_NEW: Mapping[str, Insert] = MappingProxyType(
    {
        "sqlite": sqlite.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
        "postgresql": postgresql.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
    }
)

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


def padded(ids: Sequence[str]) -> list[str]:
    """The ids, the last one repeated up to a power of two: few different statements, so that all stay prepared."""
    size = 1
    while size < len(ids):
        size *= 2
    return [*ids, *[ids[-1]] * (size - len(ids))]
