"""Looks at tasks that the queue has just handed out, before anything is sent: one query for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.completer import Completer
from controller.outcomes import Decision
from controller.runs import InFlight, Run
from controller.store_gate import StoreGate
from controller.triage import ISOLATE_AFTER_DELIVERIES, AskAll, Attach, Join, Start, triage
from runnerlib.contract import UnknownField
from runnerlib.service.logs import get_logger
from taskqueue.protocols import TaskStore
from taskqueue.tasks import Delivery, Placement, TaskRow

log = get_logger(__name__)


#: What is told of unknown fields: each name once in so long, and so many names.
TELL_AGAIN_SECONDS = 60.0
MOST_NAMES_TOLD = 20


class UnknownFieldWarnings:
    """Says which fields of senders' messages mean nothing: a broker's sender cannot be refused them, and believes they
    count. A stream of such messages does not flood the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def tell(self, task_id: str, fields: Sequence[UnknownField]) -> None:
        for each in fields:
            now = self._clock()
            self._told_at = {name: at for name, at in self._told_at.items() if now - at < TELL_AGAIN_SECONDS}
            if each.name in self._told_at or len(self._told_at) >= MOST_NAMES_TOLD:
                continue
            self._told_at[each.name] = now
            log.warning(
                "a field of a message means nothing and the task runs without it; others are not told for a minute",
                task_id=task_id,
                why=each.sentence,
            )


@dataclass(slots=True)
class Sorted:
    """Runs that are ours from now on, by what comes next."""

    start: list[Run] = field(default_factory=list)
    ask: list[Run] = field(default_factory=list)
    #: (runner, boot) → where they are and who they are
    attach: dict[tuple[str, str], tuple[Placement, list[Run]]] = field(default_factory=dict)
    #: decided at once
    over: list[tuple[Run, Decision]] = field(default_factory=list)


class Intake:
    def __init__(
        self,
        store: TaskStore,
        gate: StoreGate,
        completer: Completer,
        in_flight: InFlight,
        clock: Callable[[], float] = time.time,
        unknown_fields: UnknownFieldWarnings | None = None,
    ) -> None:
        self._store = store
        self._gate = gate
        self._completer = completer
        self._in_flight = in_flight
        self._clock = clock
        self._unknown_fields = unknown_fields or UnknownFieldWarnings()

    async def sort(self, deliveries: Sequence[Delivery]) -> Sorted:
        """Registers the runs, and settles those on which nothing is to be done."""
        rows = await self._rows({delivery.id for delivery in deliveries})
        result = Sorted()
        for delivery in deliveries:
            self._sort_one(delivery, rows.get(delivery.id), result)
        await self._completer.complete(result.over)
        return result

    async def _rows(self, ids: set[str]) -> dict[str, TaskRow]:
        """What the store knows. A task whose run ended while it was asked is asked for again: the answer may be older
        than that run's outcome, and its second message would start it once more."""
        rows: dict[str, TaskRow] = {}
        with self._in_flight.noting_removed() as removed:
            wanted = list(ids)
            while wanted:
                removed.clear()
                rows |= await self._look_up(wanted)
                wanted = [task_id for task_id in removed if task_id in ids]
        return rows

    async def _look_up(self, ids: list[str]) -> dict[str, TaskRow]:
        return await self._gate.retry_until_available("looking tasks up", lambda: self._store.lookup(ids))

    def _sort_one(self, delivery: Delivery, row: TaskRow | None, result: Sorted) -> None:
        step = triage(delivery, row, self._in_flight.find(delivery), self._clock())
        if isinstance(step, Join):
            step.run.repeated.append(delivery)
            log.info("task handed out again while it is in flight", task_id=delivery.id, attempt=delivery.attempt)
            return
        run = Run(
            delivery,
            history=() if row is None else row.history,
            isolated=delivery.delivery_count >= ISOLATE_AFTER_DELIVERIES,
            cancel_requested=row is not None and row.cancel_requested,
        )
        match step:
            case Start():
                self._unknown_fields.tell(delivery.id, delivery.unknown_fields)
                result.start.append(run)
            case AskAll():
                result.ask.append(run)
            case Attach(placement):
                run.placement, run.boot = placement, placement.boot
                place = (placement.runner, placement.boot)
                result.attach.setdefault(place, (placement, []))[1].append(run)
            case _:
                result.over.append((run, step))
                return
        self._in_flight.add(run)
