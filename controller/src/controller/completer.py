"""From decisions to committed outcomes to acknowledged deliveries, in the one order that loses nothing."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.metrics import ControllerMetrics
from controller.outcomes import AwaitDuplicate, Cancel, Conflict, Decision, Done, Fail, Ignore, Requeue, Retry
from controller.replies import ReplySender, ReplySource, asks, senders
from controller.runs import InFlight, Run, deliveries_of
from controller.store_gate import StoreGate
from controller.triage import conflict
from runnerlib.contract import FailureCode, HistoryEntry
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Record, Retrying, Succeeded, TaskRow

log = get_logger(__name__)

Outcome = tuple[Run, Decision]
#: How soon a message that only waits for another's outcome looks again.
AWAIT_DUPLICATE_SECONDS = 5.0


class Completer:
    """Commits outcomes. Retries are put back durably first, then all is recorded, answered, acknowledged.

    `is_known` tells the names of algorithms from what strangers write: metrics have no labels of the latter.
    """

    def __init__(
        self,
        queue: TaskQueue,
        store: TaskStore,
        gate: StoreGate,
        in_flight: InFlight,
        metrics: ControllerMetrics,
        is_known: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._store = store
        self._gate = gate
        self._in_flight = in_flight
        self._metrics = metrics
        self._is_known = is_known
        self._clock = clock
        self._replies = ReplySender(queue, gate)

    async def complete(self, outcomes: Sequence[Outcome]) -> list[Run]:
        """Returns the runs whose decision was `Again`; the others are over for this process.

        The first decision on a run counts, whoever brings it.
        """
        outcomes = [(run, decision) for run, decision in outcomes if not run.is_decided]
        again: list[Run] = []
        final: list[Outcome] = []
        for run, decision in outcomes:
            if isinstance(decision, Requeue):
                again.append(run)
                run.isolated = run.isolated or decision.isolated
                tell = log.debug if decision.expected else log.info
                tell("task starts again, uncounted", task_id=run.id, attempt=run.delivery.attempt, why=decision.why)
            else:
                final.append((run, decision))
        if final:
            await self._commit(final)
        self._count(outcomes)
        return again

    async def _commit(self, final: list[Outcome]) -> None:
        runs = [run for run, _ in final]
        for run in runs:
            run.is_decided = True
        try:
            final = await self._without_cancelled(final)
            published = await self._publish_retries(final, ())
            told = await self._record(final)
            # Messages of the same task may have joined meanwhile, whose senders want an answer, too.
            while (more := await self._publish_retries(final, published)) != published:
                published = more
        except BaseException:
            for run in runs:
                run.is_decided = False
            raise
        # First: what is handed out again from now on meets the committed outcome, and not a run that is over.
        self._in_flight.remove(runs)
        await self._replies.answer(told)
        await self.acknowledge(deliveries_of(runs))

    async def rows(self, runs: Sequence[Run]) -> dict[str, TaskRow]:
        """What the store knows of these tasks, however long it takes to answer."""
        ids = list({run.id for run in runs})
        return await self._gate.retry_until_available("looking tasks up", lambda: self._store.lookup(ids))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """A failing one does no harm: the delivery comes again and meets its committed outcome."""
        try:
            await self._queue.ack(deliveries)
        except QueueUnavailable as error:
            log.warning("tasks could not be acknowledged; they come again", count=len(deliveries), reason=str(error))

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Hands back, uncounted, what was never looked at. A failing one does no harm: a lost taker's come again."""
        try:
            await self._queue.release(deliveries)
        except QueueUnavailable as error:
            log.warning("messages could not be given back", count=len(deliveries), reason=str(error))

    async def release(self, runs: Sequence[Run], why: str) -> None:
        """Hands runs back to the queue, uncounted. Where they run is written first, so that others can attach."""
        runs = [run for run in runs if not run.is_decided]
        if not runs:
            return
        placements = [
            (run.delivery, placement)
            for run in runs
            if (placement := run.current_placement) and placement != run.placement
        ]
        log.info("tasks are handed back, uncounted", count=len(runs), why=why, task_ids=[run.id for run in runs][:20])
        if placements:
            await self._gate.retry_until_available("placing runs", lambda: self._store.place(placements))
        self._in_flight.remove(runs)
        deliveries = deliveries_of(runs)
        await self._gate.retry_until_available("releasing tasks", lambda: self._queue.release(deliveries))

    async def _without_cancelled(self, outcomes: list[Outcome]) -> list[Outcome]:
        """A task with a cancel mark is not retried."""
        ids = [run.id for run, decision in outcomes if isinstance(decision, Retry)]
        if not ids:
            return outcomes
        marked = await self._gate.retry_until_available(
            "reading cancel marks", lambda: self._store.cancel_requested(ids)
        )
        return [
            (run, Cancel() if isinstance(decision, Retry) and run.id in marked else decision)
            for run, decision in outcomes
        ]

    async def _publish_retries(self, outcomes: Sequence[Outcome], published: Collection[Any]) -> Collection[Any]:
        """Returns the receipts of all that is published now; those in `published` are so already."""
        again: list[tuple[Delivery, float]] = []
        for run, decision in outcomes:
            if isinstance(decision, Retry):
                # every sender's message goes on: each of them will get its answer
                again += [(each, decision.after_seconds) for each in senders(run.deliveries)]
            elif isinstance(decision, AwaitDuplicate):
                again.append((replace(run.delivery, attempt=run.delivery.attempt - 1), AWAIT_DUPLICATE_SECONDS))
        again = [(each, seconds) for each, seconds in again if each.receipt not in published]
        if not again:
            return published
        deliveries, delays = [each for each, _ in again], [seconds for _, seconds in again]
        await self._gate.retry_until_available(
            "publishing retries", lambda: self._queue.retry(deliveries, delays), stops_intake=False
        )
        return [*published, *(each.receipt for each in deliveries)]

    async def _record(self, outcomes: Sequence[Outcome]) -> list[ReplySource]:
        """Returns what decides on the answers: each run's outcome, or the row where another one was first."""
        recorded = [(run, record) for run, decision in outcomes if (record := self._record_of(run, decision))]
        records = [record for _, record in recorded]
        written = [True] * len(records)
        if records:
            written = await self._gate.retry_until_available("recording outcomes", lambda: self._store.record(records))
        told: list[ReplySource] = [each for each, was_written in zip(recorded, written, strict=True) if was_written]
        late = [each for each, was_written in zip(recorded, written, strict=True) if not was_written]
        dropped = [run for run, decision in outcomes if isinstance(decision, Ignore) and asks(run)]
        if late or dropped:
            told += await self._on_record(late, dropped)
        return told

    async def _on_record(self, late: Sequence[tuple[Run, Record]], dropped: Sequence[Run]) -> list[ReplySource]:
        ids = list({run.id for run, _ in late} | {run.id for run in dropped})
        rows = await self._gate.retry_until_available("looking outcomes up", lambda: self._store.lookup(ids))
        told: list[ReplySource] = [(run, rows[run.id]) for run in dropped if run.id in rows]
        conflicting: list[tuple[Run, Record]] = []
        for run, record in late:
            row = rows.get(run.id)
            if row is not None and row.digest and row.digest != run.delivery.digest:
                conflicting.append((run, Conflicting(run.delivery, conflict(run.delivery).message)))
            elif row is not None and not isinstance(record, Retrying):
                told.append((run, row))
            _tell_late(run, record, row)
        if conflicting:
            await self._gate.retry_until_available(
                "recording conflicts", lambda: self._store.record([record for _, record in conflicting])
            )
        return [*told, *conflicting]

    def _record_of(self, run: Run, decision: Decision) -> Record | None:
        runner = run.runner.id if run.runner is not None else None
        match decision:
            case Done(result):
                return Succeeded(run.delivery, result, runner)
            case Retry(after_seconds, code, message):
                at = self._clock() + after_seconds
                return Retrying(run.delivery, code, message, at, self._history(run, decision), runner)
            case Fail(code, message, traceback):
                return Failed(run.delivery, code, message, traceback, self._history(run, decision), runner)
            case Conflict(message):
                return Conflicting(run.delivery, message)
            case Cancel():
                return Cancelled(run.delivery)
            case _:
                return None

    def _history(self, run: Run, failure: Retry | Fail) -> tuple[HistoryEntry, ...]:
        entry = HistoryEntry(
            attempt=run.delivery.attempt,
            code=failure.code,
            message=failure.message,
            whole_runner=failure.whole_runner,
            runner=run.runner.id if run.runner is not None else None,
            at=datetime.fromtimestamp(self._clock(), UTC),
        )
        return (*run.history, entry)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        counts: Counter[tuple[str, str, str]] = Counter()
        for run, decision in outcomes:
            outcome, code = _label(decision)
            algorithm = run.delivery.algorithm
            counts[algorithm if self._is_known(algorithm) else "", outcome, code] += 1
            if isinstance(decision, Fail | Retry | Conflict | Ignore):
                log.warning(
                    f"task {outcome}",
                    task_id=run.id,
                    algorithm=run.delivery.algorithm,
                    attempt=run.delivery.attempt,
                    code=code or None,
                    why=decision.why if isinstance(decision, Ignore) else decision.message,
                )
        for labels, count in counts.items():
            self._metrics.outcomes.labels(*labels).inc(count)


def _label(decision: Decision) -> tuple[str, str]:
    match decision:
        case Done():
            return "succeeded", ""
        case Retry():
            return "retrying", decision.code.value
        case Fail():
            return "failed", decision.code.value
        case Conflict():
            return "failed", FailureCode.ID_CONFLICT.value
        case Cancel():
            return "cancelled", ""
        case Requeue():
            return "again", ""
        case Ignore():
            return "dropped", ""
        case AwaitDuplicate():
            return "following", ""


def _tell_late(run: Run, record: Record, row: TaskRow | None) -> None:
    log.info(
        "outcome not recorded: the task has ended or a higher attempt is on record",
        task_id=run.id,
        attempt=run.delivery.attempt,
        outcome=type(record).__name__.lower(),
        on_record=None if row is None else row.state.value,
    )
