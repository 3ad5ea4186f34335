"""The queue in the table of tasks: publishing, claiming what has no group, sweeping. All runs inside a transaction.

`available_at` is 0 for a task that may be claimed at once, so that these are claimed strictly by `seq`, -1 for one that
waits for its group's turn, and a time for one that is delayed or leased. Binds are named `the_*` in WHERE and `new_*`
in SET.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import BindParameter, Boolean, Connection, bindparam, func, null, select, union_all, update

from runnerlib.contract import TaskState
from taskqueue.clock import Now
from taskqueue.sql.groups import ANY_GROUPED
from taskqueue.sql.leases import CLAIMED, DELIVERY
from taskqueue.sql.statements import CLAIMABLE, IN_TURN, NOW_CLAIMABLE, WAITS_SINCE, fill_tombstones
from taskqueue.sql.tables import tasks
from taskqueue.sqlite.engine import DriverStatement, padded
from taskqueue.tasks import Identity, NewTask, Published, publish_results

_of_algorithm = tasks.c.algorithm == bindparam("the_algorithm")
_at_once = tasks.c.available_at == NOW_CLAIMABLE
_due = (
    (tasks.c.available_at > NOW_CLAIMABLE)
    & (tasks.c.available_at <= bindparam("the_now"))
    & tasks.c.task_group.is_(None)
)
_most: BindParameter[int] = bindparam("the_most")

_ready = select(tasks.c.seq).where(_of_algorithm & _at_once).order_by(tasks.c.seq).limit(_most).subquery()
_late = select(tasks.c.seq).where(_of_algorithm & _due).order_by(tasks.c.available_at).limit(_most).subquery()
_either = union_all(select(_ready.c.seq), select(_late.c.seq)).subquery()
_oldest = select(_either.c.seq).order_by(_either.c.seq).limit(_most)

CLAIM = DriverStatement(update(tasks).where(tasks.c.seq.in_(_oldest)).values(CLAIMED).returning(*DELIVERY))
CLAIM_THESE = (
    update(tasks).where(tasks.c.seq.in_(bindparam("the_seqs", expanding=True))).values(CLAIMED).returning(*DELIVERY)
)
ANY_WITHOUT_GROUP = DriverStatement(
    select(tasks.c.seq)
    .where(
        _of_algorithm
        & (tasks.c.available_at >= NOW_CLAIMABLE)
        & (tasks.c.available_at <= bindparam("the_now"))
        & tasks.c.task_group.is_(None)
    )
    .order_by(tasks.c.available_at)
    .limit(1)
)
NEXT_AVAILABLE = DriverStatement(
    select(func.min(tasks.c.available_at)).where(_of_algorithm & (tasks.c.available_at > bindparam("the_now")))
)

#: One that was published with a delay has the receipt of that.
_is_leased = (tasks.c.available_at > NOW_CLAIMABLE) & tasks.c.receipt.is_not(None) & (tasks.c.delivery_count > 0)
#: What a new owner does first: the leases of the previous one are over.
VOID_LEASES = (
    update(tasks)
    .where(tasks.c.available_at.is_not(None) & ((tasks.c.state == TaskState.RUNNING.value) | _is_leased))
    .values(available_at=CLAIMABLE, receipt=null())
)
#: ... and no delay lasts longer than the longest there can be, whatever the clock said when it was written.
CAP_DELAYS = (
    update(tasks).where(tasks.c.available_at > bindparam("the_latest")).values(available_at=bindparam("the_latest"))
)
#: ... but those that a sender wished, which are by the wall's clock.
KEEP_DELAYS = (
    update(tasks)
    .where(
        (tasks.c.available_at > NOW_CLAIMABLE)
        & tasks.c.not_before.is_not(None)
        & (tasks.c.attempt == 1)
        & (tasks.c.delivery_count == 0)
    )
    .values(available_at=tasks.c.not_before)
)

#: As text for the driver: SQLAlchemy takes longer for the parameters of a row than SQLite takes to write it.
_INSERT, _INSERT_IN_TURN = (
    f"""
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, receipt, delivery_count, created_at,
                   updated_at, expires_at, reply_to, correlation_id, submitted_by{columns})
VALUES (?, ?, ?, ?, '{TaskState.QUEUED.value}', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?{values})
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants
    for columns, values in (("", ""), (", task_group, not_before", ", ?, ?"))
)
_PUBLISHED = select(tasks.c.id, tasks.c.digest, tasks.c.submitted_by, tasks.c.receipt).where(
    tasks.c.id.in_(bindparam("the_ids", expanding=True))
)

#: Waits for its first or next attempt, and was not handed to a controller, which may have sent it to a runner.
_untouched = (tasks.c.state != TaskState.RUNNING.value) & (tasks.c.delivery_count == 0)

#: `the_abandoned_too`: includes what a dead owner had claimed and may have sent, if no feed has claimed it since.
EXPIRED = (
    select(tasks.c.seq)
    .where(
        (tasks.c.expires_at <= bindparam("the_wall"))
        & tasks.c.available_at.is_not(None)
        & (_untouched | (bindparam("the_abandoned_too", type_=Boolean) & (tasks.c.available_at <= NOW_CLAIMABLE)))
    )
    .order_by(tasks.c.expires_at)
    .limit(_most)
)
#: Looks at the oldest few only: if these came too lately, so did all behind them.
_head = (
    select(tasks.c.seq, WAITS_SINCE.label("waits_since"), _untouched.label("untouched"), tasks.c.available_at)
    .where(_of_algorithm & tasks.c.available_at.is_not(None))
    .order_by(tasks.c.available_at, tasks.c.seq)
    .limit(_most)
    .subquery()
)
UNCLAIMED = select(_head.c.seq).where(
    (_head.c.waits_since < bindparam("the_waiting_before"))
    & (_head.c.untouched | (_head.c.available_at <= bindparam("the_now")))
)
#: One step of a walk over the algorithms that have waiting tasks; reads one index entry.
NEXT_ALGORITHM = (
    select(tasks.c.algorithm)
    .where((tasks.c.algorithm > bindparam("the_algorithm")) & tasks.c.available_at.is_not(None))
    .order_by(tasks.c.algorithm)
    .limit(1)
)


def publish(connection: Connection, new: Sequence[NewTask], token: int, now: Now) -> list[Published]:
    """Inserts tasks; `token` is a fresh random number that tells the rows of this call from older ones."""
    if any(task.waits_in_store for task in new):
        statement, rows = _INSERT_IN_TURN, [_row_in_turn(task, token, now) for task in new]
    else:
        statement, rows = _INSERT, [_row(task, token, now.wall) for task in new]
    inserted = connection.exec_driver_sql(statement, rows).rowcount
    if inserted == len(new):
        return [Published.ACCEPTED] * len(new)
    known: dict[str, Identity] = {}
    accepted: set[str] = set()
    found = connection.execute(_PUBLISHED, {"the_ids": padded([task.id for task in new])})
    for task_id, digest, submitted_by, receipt in found:
        known[task_id] = digest, submitted_by
        if receipt == token:
            accepted.add(task_id)
    fill_tombstones(connection, new, known, now.wall)
    return publish_results(new, known, accepted)


def publish_claimed(connection: Connection, task: NewTask, token: int, now: float, until: float) -> int | None:
    """Inserts a task that is claimed with this token until then; its `seq`, or None if its id is known already."""
    result = connection.exec_driver_sql(_INSERT, _row(task, token, now, available_at=until, delivery_count=1))
    return result.lastrowid if result.rowcount else None


def _row_in_turn(task: NewTask, token: int, now: Now) -> tuple[Any, ...]:
    """The values of `_INSERT_IN_TURN`."""
    available_at = NOW_CLAIMABLE if task.group is None else IN_TURN
    if task.not_before is not None and task.not_before > now.wall:
        available_at = now.steady + task.not_before - now.wall
    return (*_row(task, token, now.wall, available_at=available_at), task.group, task.not_before)


def _row(
    task: NewTask, token: int, now: float, *, available_at: float = NOW_CLAIMABLE, delivery_count: int = 0
) -> tuple[Any, ...]:
    """The values of `_INSERT`."""
    return (
        task.id,
        task.algorithm,
        task.payload,
        task.digest,
        task.attempt,
        available_at,
        token,
        delivery_count,
        now,
        now,
        task.expires_at,
        task.reply_to,
        task.correlation_id,
        task.submitted_by,
    )


def find_unwanted(
    connection: Connection,
    known: frozenset[str],
    unknown_before: float,
    limit: int,
    *,
    now: float,
    wall: float,
    abandoned_too: bool,
) -> list[int]:
    """The `seq` of expired tasks, and of those of algorithms not in `known` that have waited since `unknown_before`.

    Reads a few index entries if there are none.
    """
    where = {"the_wall": wall, "the_most": limit, "the_abandoned_too": abandoned_too}
    found = list(connection.scalars(EXPIRED, where))
    for algorithm in _waiting_algorithms(connection):
        if len(found) >= limit:
            break
        if algorithm in known:
            continue
        unclaimed = {
            "the_algorithm": algorithm,
            "the_waiting_before": unknown_before,
            "the_now": now,
            "the_most": limit - len(found),
        }
        seen = set(found)
        found.extend(seq for seq in connection.scalars(UNCLAIMED, unclaimed) if seq not in seen)
    return found


def _waiting_algorithms(connection: Connection) -> Iterator[str]:
    algorithm: str | None = ""
    while (algorithm := connection.scalar(NEXT_ALGORITHM, {"the_algorithm": algorithm})) is not None:
        yield algorithm


def grouped_algorithms(connection: Connection) -> set[str]:
    """The algorithms that have tasks of groups that have not ended."""
    names = _waiting_algorithms(connection)
    return {name for name in names if connection.scalar(ANY_GROUPED, {"the_algorithm": name})}
