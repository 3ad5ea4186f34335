"""What to do with a task that the queue has just handed out. Pure: the store's row and our own runs are given."""

from controller.outcomes import AwaitDuplicate, Cancel, Conflict, Fail, Ignore, id_conflict
from controller.runs import Run
from runnerlib.contract import FailureCode
from runnerlib.contract.immutable import immutable
from taskqueue.tasks import Delivery, Placement, TaskRow

#: A task that was handed out so often without an outcome may be what ends the controllers that take it: it runs alone,
ISOLATE_AFTER_DELIVERIES = 3
#: and in the end not at all.
POISON_AFTER_DELIVERIES = 20

EXPIRED = Fail(FailureCode.EXPIRED, "its time was over before it could start")


@immutable
class Join:
    """This very attempt is already in flight here: the delivery ends together with it."""

    run: Run


@immutable
class Attach:
    """The store knows which runner process has it."""

    placement: Placement


@immutable
class AskAll:
    """It was handed out before, so any of the runners may have it."""


@immutable
class Start:
    """It has never run."""


Step = Join | Attach | AskAll | Start | Ignore | AwaitDuplicate | Fail | Conflict | Cancel


def triage(delivery: Delivery, row: TaskRow | None, ours: Run | None, now: float) -> Step:
    """`ours` is the run of the same task and attempt in this process; `now` is seconds since the epoch."""
    if ours is not None:
        return Join(ours) if ours.delivery.digest == delivery.digest else id_conflict(delivery)
    cancelled = False
    if row is not None:
        over = settled_by(delivery, row)
        if over is not None:
            return over
        if row.in_turn and not delivery.in_turn:
            return already_waits(delivery, row) or Ignore("it waits for its turn or its time")
        if row.placement is not None and row.placement.attempt == delivery.attempt:
            return Attach(row.placement)
        cancelled = row.cancel_requested
    if delivery.delivery_count > 0:
        return AskAll()
    return before_start(delivery, cancelled=cancelled, now=now) or Start()


def settled_by(delivery: Delivery, row: TaskRow) -> Conflict | Ignore | AwaitDuplicate | None:
    """What the store's row decides about a task; None while the task is open."""
    # a task that was cancelled before it was ever seen has a row without a digest
    if row.digest and row.digest != delivery.digest:
        return id_conflict(delivery)
    if row.state.is_terminal:
        return Ignore(f"it is {row.state.value} already")
    if delivery.attempt >= row.attempt:
        return None
    why = f"attempt {row.attempt} is on record already"
    return Ignore(why) if delivery.reply_to is None or _same_sender(delivery, row) else AwaitDuplicate(why)


def already_waits(delivery: Delivery, row: TaskRow) -> AwaitDuplicate | None:
    """What becomes of another message of an open task that waits in the table; None: nothing is left to do for it."""
    if delivery.reply_to is None or _same_sender(delivery, row):
        return None
    return AwaitDuplicate("it waits for its turn or its time, by another sender's message")


def _same_sender(delivery: Delivery, row: TaskRow) -> bool:
    return (delivery.reply_to, delivery.correlation_id) == (row.reply_to, row.correlation_id)


def before_start(delivery: Delivery, *, cancelled: bool, now: float) -> Fail | Cancel | None:
    """Why a task that no runner has must not be started; None when it may."""
    if cancelled:
        return Cancel()
    if delivery.expires_at is not None and delivery.expires_at <= now:
        return EXPIRED
    if delivery.delivery_count >= POISON_AFTER_DELIVERIES:
        return poison(delivery.delivery_count)
    return None


def poison(deliveries: int) -> Fail:
    """For a task that was handed out too often."""
    return Fail(
        FailureCode.CONTROLLER_LOST,
        f"it was handed out {deliveries} times without being settled; it probably ends the controller that takes it",
    )
