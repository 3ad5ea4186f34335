"""The statements that both databases share. Binds are named `the_*` in WHERE and `new_*` in SET."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, String, bindparam, case, func, null, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from runnerlib.contract import TaskState
from taskqueue.sql.recording import KnownRow
from taskqueue.sql.rows import TASK_COLUMNS, task_row
from taskqueue.sql.tables import paused_algorithms, tasks
from taskqueue.tasks import Identity, NewTask, TaskRow

_this = tasks.c.id == bindparam("the_id")
#: The fence of everything that is written for a delivery.
FENCED = _this & tasks.c.finished_at.is_(None) & (tasks.c.attempt <= bindparam("the_attempt"))
#: `available_at` of a task that may be claimed at once; these are claimed strictly by `seq`.
NOW_CLAIMABLE = 0.0
#: ... of one that may be claimed in its group's turn.
IN_TURN = -1.0
#: One of both for a row that is there.
CLAIMABLE = case((tasks.c.task_group.is_(None), NOW_CLAIMABLE), else_=IN_TURN)

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
#: SET of a task whose next attempt waits; its previous receipt is no longer valid.
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


class IdStatements:
    """Statements that find rows by many ids, `:the_ids`.

    Parameters:
        condition: that a row's id is one of them, in the way that is fast on the database.
        values: turns the ids into the value of `:the_ids`.
    """

    def __init__(self, condition: ColumnElement[bool], values: Callable[[Sequence[str]], Sequence[str]]) -> None:
        self._values = values
        self.tasks = select(*TASK_COLUMNS).where(condition)
        self.marked = select(tasks.c.id).where(
            condition & (tasks.c.cancel_requested.is_(True) | (tasks.c.state == TaskState.CANCELLED.value))
        )
        #: what the fence and the history need; locked in one order everywhere, so that two processes never wait for
        #: one another
        self.known = (
            select(tasks.c.id, tasks.c.finished_at, tasks.c.attempt, tasks.c.history)
            .where(condition)
            .order_by(tasks.c.id)
            .with_for_update()
        )

    def read_tasks(self, connection: Connection, ids: Sequence[str]) -> dict[str, TaskRow]:
        return {row[0]: task_row(row) for row in connection.execute(self.tasks, self._bound(ids)).all()}

    def read_marked(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Those of the ids that carry a cancel mark or are cancelled."""
        return set(connection.scalars(self.marked, self._bound(ids)))

    def lock_known(self, connection: Connection, ids: Sequence[str]) -> dict[str, KnownRow]:
        rows = connection.execute(self.known, self._bound(ids)).all()
        return {
            task_id: KnownRow(ended_at is not None, attempt, history) for task_id, ended_at, attempt, history in rows
        }

    def _bound(self, ids: Sequence[str]) -> dict[str, Sequence[str]]:
        return {"the_ids": self._values(ids)}


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
LOCK_TO_CANCEL = select(tasks.c.finished_at, tasks.c.submitted_by, tasks.c.algorithm).where(_this).with_for_update()
#: Includes `running` rows without a lease: their owner died, and maybe no other will ever claim them.
CANCEL_WAITING = (
    update(tasks)
    .where(
        _this
        & (
            tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value))
            | (tasks.c.available_at <= NOW_CLAIMABLE)
        )
    )
    .values(**CANCELLED)
)
CANCEL_RUNNING = (
    update(tasks)
    .where(_this & (tasks.c.state == TaskState.RUNNING.value))
    .values(cancel_requested=True, updated_at=bindparam("new_now"))
)

#: The counts of what has not ended and of what has, each from one index alone.
COUNT_WAITING, COUNT_FINISHED = (
    select(tasks.c.algorithm, tasks.c.state, func.count())
    .where(column.is_not(None))
    .group_by(tasks.c.algorithm, tasks.c.state)
    for column in (tasks.c.available_at, tasks.c.finished_at)
)
#: The counts of one token's tasks.
_own = tasks.c.submitted_by == bindparam("the_owner", type_=String)
COUNT_OWN = (
    select(tasks.c.algorithm, tasks.c.state, func.count()).where(_own).group_by(tasks.c.algorithm, tasks.c.state)
)
#: How many tasks of one algorithm, or of one token, wait, up to `:the_most`; from an index of what has not ended.
WAITING_OF_ALGORITHM, WAITING_OF_TOKEN = (
    select(func.count()).select_from(
        select(tasks.c.seq)
        .where(
            (column == bindparam("the_one", type_=String))
            & tasks.c.available_at.is_not(None)
            & (tasks.c.state != TaskState.RUNNING.value)
        )
        .limit(bindparam("the_most", type_=Integer))
        .subquery()
    )
    for column in (tasks.c.algorithm, tasks.c.submitted_by)
)
#: Since when a waiting task waits: for a replayed one, since its replay.
WAITS_SINCE = case((tasks.c.replays > 0, tasks.c.updated_at), else_=tasks.c.created_at)
OLDEST_WAITING = (
    select(WAITS_SINCE)
    .where((tasks.c.algorithm == bindparam("the_algorithm")) & (tasks.c.available_at == bindparam("the_kind")))
    .order_by(tasks.c.seq)
    .limit(1)
)
OLDEST_OWN_WAITING = OLDEST_WAITING.where(_own)

#: By the dialect's name: inserts tasks, leaves known ids as they are. Made once: making one costs as much as using it.
INSERT_NEW = MappingProxyType(
    {
        "sqlite": sqlite.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
        "postgresql": postgresql.insert(tasks).on_conflict_do_nothing(index_elements=[tasks.c.id]),
    }
)
#: The same for one task; returns no row if its id is known.
INSERT_ONE = MappingProxyType({name: statement.returning(tasks.c.id) for name, statement in INSERT_NEW.items()})

#: Notes why an algorithm's tasks wait.
NOTE = text(
    "INSERT INTO waiting_notes (algorithm, note, noted_at) VALUES (:algorithm, :note, :noted_at)"
    " ON CONFLICT (algorithm) DO UPDATE SET note = excluded.note, noted_at = excluded.noted_at"
)

#: A pause that is in force stays as it is.
PAUSE = text(
    "INSERT INTO paused_algorithms (algorithm, paused_by, paused_at) VALUES (:algorithm, :paused_by, :paused_at)"
    " ON CONFLICT (algorithm) DO NOTHING"
)
PAUSED = select(paused_algorithms.c.algorithm, paused_algorithms.c.paused_by, paused_algorithms.c.paused_at)

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


def fill_tombstones(connection: Connection, arrived: Sequence[NewTask], known: dict[str, Identity], now: float) -> None:
    """Tasks of tombstones have arrived: they stay cancelled, and their content is known from now on, in `known` too.

    A tombstone of another token stays as it is.
    """
    for task in arrived:
        if known.get(task.id) == ("", task.submitted_by):
            values = {
                "the_id": task.id,
                "new_algorithm": task.algorithm,
                "new_payload": task.payload,
                "new_digest": task.digest,
                "new_now": now,
            }
            connection.execute(_FILL_TOMBSTONE, values)
            known[task.id] = task.identity


def execute(connection: Connection, statement: Any, values: Any) -> int:
    """Returns the number of rows that the statement wrote."""
    count: int = connection.execute(statement, values).rowcount
    return count
