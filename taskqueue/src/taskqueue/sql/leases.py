"""Claimed rows: what a claim writes and reads, and how it is settled. All runs inside a transaction.

Binds are named `the_*` in WHERE and `new_*` in SET.
"""

from collections.abc import Iterable

from sqlalchemy import bindparam, case, null, update

from runnerlib.contract import TaskState
from taskqueue.feed import Receipt
from taskqueue.sql.rows import PAYLOAD, AnyRow, group_name
from taskqueue.sql.statements import CANCELLED, CLAIMABLE, NEXT_ATTEMPT
from taskqueue.sql.tables import tasks
from taskqueue.tasks import Delivery

#: The state stays as it is: a task runs once a runner has it, which `TaskStore.place` writes.
CLAIMED = {
    "available_at": bindparam("new_available_at"),
    "receipt": bindparam("new_receipt"),
    "delivery_count": tasks.c.delivery_count + 1,
    "updated_at": bindparam("new_now"),
}
#: The columns of a Delivery, in the order `deliveries` reads them.
DELIVERY = (
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
    tasks.c.task_group,
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
        available_at=CLAIMABLE,
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


def deliveries(rows: Iterable[AnyRow], token: int) -> list[Delivery]:
    """What was claimed with this token, in the order of the rows."""
    return [_delivery(row, token) for row in rows]


def _delivery(row: AnyRow, token: int) -> Delivery:
    seq, task_id, algorithm, payload, digest, attempt, count, expires_at, reply_to, correlation_id, *others = row
    history, placed_attempt, group = others
    return Delivery(
        id=task_id,
        algorithm=algorithm,
        payload=payload,
        digest=digest,
        attempt=attempt,
        receipt=Receipt(seq, token),
        delivery_count=count - 1,
        expires_at=expires_at,
        reply_to=reply_to,
        correlation_id=correlation_id,
        # A later attempt may be claimed before the failure of the earlier one is recorded.
        is_clear_to_start=attempt == 1 and count == 1 and history is None and placed_attempt is None,
        group=group_name(group),
        in_turn=group is not None,
    )
