"""The queue's statements. Binds are named `the_*` in WHERE and `new_*` in SET.

`available_at` is 0 for a task that may be claimed at once, so that these are claimed strictly by `seq`, and a time for
one that is delayed or leased.
"""

from sqlalchemy import BindParameter, Boolean, LargeBinary, bindparam, case, cast, func, null, select, union_all, update

from runnerlib.contract import TaskState
from taskqueue.sql.statements import NEXT_ATTEMPT, WAITS_SINCE
from taskqueue.sql.tables import tasks

NOW_CLAIMABLE = 0.0

_of_algorithm = tasks.c.algorithm == bindparam("the_algorithm")
_at_once = tasks.c.available_at == NOW_CLAIMABLE
_due = (tasks.c.available_at > NOW_CLAIMABLE) & (tasks.c.available_at <= bindparam("the_now"))
_most: BindParameter[int] = bindparam("the_most")

#: The state stays as it is: a task runs once a runner has it, which `place` writes.
_CLAIMED = {
    "available_at": bindparam("new_available_at"),
    "receipt": bindparam("new_receipt"),
    "delivery_count": tasks.c.delivery_count + 1,
    "updated_at": bindparam("new_now"),
}
#: The columns of a Delivery, in the order `sqlite_queue` reads them.
_DELIVERY = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.algorithm,
    # also of a row that somebody put in by hand, as text
    cast(tasks.c.payload, LargeBinary),
    tasks.c.digest,
    tasks.c.attempt,
    tasks.c.delivery_count,
    tasks.c.expires_at,
    tasks.c.reply_to,
    tasks.c.correlation_id,
)

_ready = select(tasks.c.seq).where(_of_algorithm & _at_once).order_by(tasks.c.seq).limit(_most).subquery()
_late = select(tasks.c.seq).where(_of_algorithm & _due).order_by(tasks.c.available_at).limit(_most).subquery()
_either = union_all(select(_ready.c.seq), select(_late.c.seq)).subquery()
_oldest = select(_either.c.seq).order_by(_either.c.seq).limit(_most)

CLAIM = update(tasks).where(tasks.c.seq.in_(_oldest)).values(_CLAIMED).returning(*_DELIVERY)
CLAIM_THESE = (
    update(tasks).where(tasks.c.seq.in_(bindparam("the_seqs", expanding=True))).values(_CLAIMED).returning(*_DELIVERY)
)
NEXT_AVAILABLE = select(func.min(tasks.c.available_at)).where(
    _of_algorithm & (tasks.c.available_at > bindparam("the_now"))
)

#: An old receipt meets no row.
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
RETRY = update(tasks).where(_held).values(NEXT_ATTEMPT)
DROP = (
    update(tasks)
    .where(_held)
    .values(
        state=TaskState.CANCELLED.value,
        available_at=null(),
        receipt=null(),
        updated_at=bindparam("new_now"),
        finished_at=bindparam("new_now"),
    )
)

_has_receipt = tasks.c.receipt.is_not(None)
#: What a new owner does first: nobody holds anything.
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

PUBLISHED = select(tasks.c.id, tasks.c.digest, tasks.c.receipt).where(
    tasks.c.id.in_(bindparam("the_ids", expanding=True))
)
#: The task of a tombstone has arrived: it stays cancelled, and is known from now on.
FILL_TOMBSTONE = (
    update(tasks)
    .where((tasks.c.id == bindparam("the_id")) & (tasks.c.digest == ""))
    .values(
        algorithm=bindparam("new_algorithm"),
        payload=bindparam("new_payload"),
        digest=bindparam("new_digest"),
        updated_at=bindparam("new_now"),
    )
)

#: Waits for its first or next attempt, and nobody has been handed it who may have sent it to a runner.
_untouched = (tasks.c.state != TaskState.RUNNING.value) & (tasks.c.delivery_count == 0)

#: `the_abandoned_too`: also what a dead owner was handed and may have sent, and nobody has taken up since.
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
#: Looks at the oldest few only: when these came too lately, so did all behind them.
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
