"""What to do with a task that the queue has just handed out. Pure; the store's row and our own runs are given."""

from dataclasses import dataclass

from controller.outcomes import AwaitDuplicate, Cancel, Conflict, Fail, Ignore
from controller.runs import Run
from runnerlib.contract import FailureCode
from taskqueue.tasks import Delivery, Placement, TaskRow

#: Handed out so often without being settled, a task is suspected of killing whoever works for it: it runs alone,
ISOLATE_AFTER_DELIVERIES = 3
#: and in the end not at all.
POISON_AFTER_DELIVERIES = 20

EXPIRED = Fail(FailureCode.EXPIRED, "its time was over before it could start")


@dataclass(frozen=True, slots=True)
class Join:
    """This very attempt is already ours: the delivery is settled together with it."""

    run: Run


@dataclass(frozen=True, slots=True)
class Attach:
    """A runner process has it, as the store knows."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class AskAll:
    """It was handed out before; one of the runners may have it."""


@dataclass(frozen=True, slots=True)
class Start:
    """It has never run, as far as anybody can know."""


Step = Join | Attach | AskAll | Start | Ignore | AwaitDuplicate | Fail | Conflict | Cancel


def triage(delivery: Delivery, row: TaskRow | None, ours: Run | None, now: float) -> Step:
    """`ours` is the same task and attempt in this process; `now` is seconds since the epoch."""
    if ours is not None:
        return Join(ours) if ours.delivery.digest == delivery.digest else conflict(delivery)
    placement = None
    cancelled = False
    if row is not None:
        over = settled_by(delivery, row)
        if over is not None:
            return over
        placement, cancelled = row.placement, row.cancel_requested
    if placement is not None and placement.attempt == delivery.attempt:
        return Attach(placement)
    if delivery.delivery_count > 0:
        return AskAll()
    return before_start(delivery, cancelled=cancelled, now=now) or Start()


def settled_by(delivery: Delivery, row: TaskRow) -> Conflict | Ignore | AwaitDuplicate | None:
    """What is to be done with a task on which the store's row has decided; None while it is open."""
    # a tombstone (cancelled before it was ever seen) has no digest
    if row.digest and row.digest != delivery.digest:
        return conflict(delivery)
    if row.state.is_terminal:
        return Ignore(f"it is {row.state.value} already")
    if delivery.attempt < row.attempt:
        return _stale(delivery, row)
    return None


def before_start(delivery: Delivery, *, cancelled: bool, now: float) -> Fail | Cancel | None:
    """Why a task that no runner has must not be started; None when it may."""
    if cancelled:
        return Cancel()
    if delivery.expires_at is not None and delivery.expires_at <= now:
        return EXPIRED
    if delivery.delivery_count >= POISON_AFTER_DELIVERIES:
        return poison(delivery.delivery_count)
    return None


def _stale(delivery: Delivery, row: TaskRow) -> Ignore | AwaitDuplicate:
    why = f"attempt {row.attempt} is on record already"
    senders = [(each.reply_to, each.correlation_id) for each in (delivery, row)]
    return Ignore(why) if delivery.reply_to is None or senders[0] == senders[1] else AwaitDuplicate(why)


def poison(deliveries: int) -> Fail:
    """For a task that was handed out too often."""
    return Fail(
        FailureCode.CONTROLLER_LOST,
        f"it was handed out {deliveries} times without being settled; it probably ends the controller that takes it",
    )


def conflict(delivery: Delivery) -> Conflict:
    """For a message whose id is another task's."""
    return Conflict(f"{delivery.id!r} is the id of another task; give every task an id of its own")
