"""The queue in the table of tasks: publishing, claiming, settling, sweeping. All runs inside a transaction.

`available_at` is 0 for a task that may be claimed at once, so that these are claimed strictly by `seq`, and a time for
one that is delayed or leased. Binds are named `the_*` in WHERE and `new_*` in SET.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    Connection,
    bindparam,
    case,
    func,
    null,
    select,
    union_all,
    update,
)

from runnerlib.contract import TaskState
from taskqueue.sql.rows import PAYLOAD
from taskqueue.sql.statements import (
    CANCELLED,
    NEXT_ATTEMPT,
    NOW_CLAIMABLE,
    WAITS_SINCE,
    fill_tombstones,
)
from taskqueue.sql.tables import tasks
from taskqueue.sqlite.engine import DriverStatement, padded
from taskqueue.tasks import Identity, NewTask, Published, publish_results

_of_algorithm = tasks.c.algorithm == bindparam("the_algorithm")
_at_once = tasks.c.available_at == NOW_CLAIMABLE
_due = (tasks.c.available_at > NOW_CLAIMABLE) & (tasks.c.available_at <= bindparam("the_now"))
_most: BindParameter[int] = bindparam("the_most")

#: The state stays as it is: a task runs once a runner has it, which `TaskStore.place` writes.
_CLAIMED = {
    "available_at": bindparam("new_available_at"),
    "receipt": bindparam("new_receipt"),
    "delivery_count": tasks.c.delivery_count + 1,
    "updated_at": bindparam("new_now"),
}
#: The columns of a Delivery, in the order `SqliteQueue` reads them.
_DELIVERY = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.algorithm,
    PAYLOAD,
    tasks.c.digest,
    tasks.c.attempt,
    tasks.c.delivery_count,
    tasks.c.expires_at,
    tasks.c.reply_to,
    tasks.c.correlation_id,
    # not whether they are NULL: SQLite 3.40 answers that wrongly after an update
    tasks.c.history,
    tasks.c.placed_attempt,
)

_ready = select(tasks.c.seq).where(_of_algorithm & _at_once).order_by(tasks.c.seq).limit(_most).subquery()
_late = select(tasks.c.seq).where(_of_algorithm & _due).order_by(tasks.c.available_at).limit(_most).subquery()
_either = union_all(select(_ready.c.seq), select(_late.c.seq)).subquery()
_oldest = select(_either.c.seq).order_by(_either.c.seq).limit(_most)

CLAIM = DriverStatement(update(tasks).where(tasks.c.seq.in_(_oldest)).values(_CLAIMED).returning(*_DELIVERY))
CLAIM_THESE = (
    update(tasks).where(tasks.c.seq.in_(bindparam("the_seqs", expanding=True))).values(_CLAIMED).returning(*_DELIVERY)
)
NEXT_AVAILABLE = DriverStatement(
    select(func.min(tasks.c.available_at)).where(_of_algorithm & (tasks.c.available_at > bindparam("the_now")))
)

#: An old receipt matches no row.
_held = (
    (tasks.c.seq == bindparam("the_seq"))
    & (tasks.c.receipt == bindparam("the_receipt"))
    & (tasks.c.finished_at.is_(None))
)
RENEW = update(tasks).where(_held).values(available_at=bindparam("new_available_at"))
RELEASE = (
    update(tasks)
    .where(_held)
    .values(
        state=case(
            (tasks.c.placed_attempt.is_(None) & (tasks.c.state == TaskState.RUNNING.value), TaskState.QUEUED.value),
            else_=tasks.c.state,
        ),
        available_at=NOW_CLAIMABLE,
        receipt=null(),
        delivery_count=tasks.c.delivery_count - 1,
        updated_at=bindparam("new_now"),
    )
)
RETRY = (
    update(tasks)
    .where(_held)
    .values(**NEXT_ATTEMPT, state=TaskState.RETRYING.value, available_at=bindparam("new_available_at"))
)
DROP = update(tasks).where(_held).values(**CANCELLED)

_has_receipt = tasks.c.receipt.is_not(None)
#: What a new owner does first: the leases of the previous one are over.
VOID_LEASES = (
    update(tasks)
    .where(
        tasks.c.available_at.is_not(None)
        & ((tasks.c.state == TaskState.RUNNING.value) | (tasks.c.available_at > NOW_CLAIMABLE) & _has_receipt)
    )
    .values(available_at=NOW_CLAIMABLE, receipt=null())
)
#: ... and no delay lasts longer than the longest there can be, whatever the clock said when it was written.
CAP_DELAYS = (
    update(tasks).where(tasks.c.available_at > bindparam("the_latest")).values(available_at=bindparam("the_latest"))
)

#: As text for the driver: SQLAlchemy takes longer for the parameters of a row than SQLite takes to write it.
_INSERT = f"""
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, receipt, delivery_count, created_at,
                   updated_at, expires_at, reply_to, correlation_id, submitted_by)
VALUES (?, ?, ?, ?, '{TaskState.QUEUED.value}', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants
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
        & (_untouched | (bindparam("the_abandoned_too", type_=Boolean) & _at_once))
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


def publish(connection: Connection, new: Sequence[NewTask], token: int, now: float) -> list[Published]:
    """Inserts tasks; `token` is a fresh random number that tells the rows of this call from older ones."""
    rows = [_row(task, token, now) for task in new]
    inserted = connection.exec_driver_sql(_INSERT, rows).rowcount
    if inserted == len(new):
        return [Published.ACCEPTED] * len(new)
    known: dict[str, Identity] = {}
    accepted: set[str] = set()
    found = connection.execute(_PUBLISHED, {"the_ids": padded([task.id for task in new])})
    for task_id, digest, submitted_by, receipt in found:
        known[task_id] = digest, submitted_by
        if receipt == token:
            accepted.add(task_id)
    fill_tombstones(connection, new, known, now)
    return publish_results(new, known, accepted)


def publish_claimed(connection: Connection, task: NewTask, token: int, now: float, until: float) -> int | None:
    """Inserts a task that is claimed with this token until then; its `seq`, or None if its id is known already."""
    result = connection.exec_driver_sql(_INSERT, _row(task, token, now, available_at=until, delivery_count=1))
    return result.lastrowid if result.rowcount else None


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
