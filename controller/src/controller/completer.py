"""From decisions to committed outcomes to acknowledged deliveries, in the one order that loses nothing.

1. Retries are published durably. 2. Outcomes are recorded; the store's fence drops those that come too late. 3. Senders
get their replies. 4. Deliveries are acknowledged. What stops in between comes again, and meets what was committed.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.commit_gate import CommitGate
from controller.metrics import ControllerMetrics
from controller.outcomes import (
    AwaitDuplicate,
    Cancel,
    Conflict,
    Decision,
    Done,
    Fail,
    Ignore,
    Retry,
    StartAgain,
    id_conflict,
)
from controller.replies import ReplySender, ReplySource, senders, wants_reply
from controller.runs import InFlight, Run
from runnerlib.contract import HistoryEntry
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueUnavailable
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Published, Record, Retrying, Succeeded, TaskRow

log = get_logger(__name__)

Decided = tuple[Run, Decision]
#: For metrics and the log.
_LABELS = {
    Done: "succeeded",
    Retry: "retrying",
    Fail: "failed",
    Conflict: "failed",
    Cancel: "cancelled",
    StartAgain: "again",
    Ignore: "dropped",
    AwaitDuplicate: "following",
}
#: How soon a message that only waits for another's outcome looks again.
AWAIT_DUPLICATE_SECONDS = 5.0


class Completer:
    """Commits outcomes.

    `is_known` says whether a name is an algorithm's: other names that senders write never become labels of metrics.
    """

    def __init__(
        self,
        queue: TaskQueue,
        store: TaskStore,
        gate: CommitGate,
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

    async def complete(self, decided: Iterable[Decided]) -> list[Run]:
        """Returns the runs whose decision was `StartAgain`; the others are over for this process.

        The first decision on a run counts, whoever brings it.
        """
        decided = [each for each in decided if not each[0].is_committing]
        requeued: list[Run] = []
        final: list[Decided] = []
        for run, decision in decided:
            if isinstance(decision, StartAgain):
                run.isolated = run.isolated or decision.isolated
                requeued.append(run)
                tell, task = log.debug if decision.expected else log.info, run.delivery
                tell("task starts again, uncounted", task_id=task.id, attempt=task.attempt, why=decision.why)
            else:
                final.append((run, decision))
        if final:
            await self._commit(final)
        self._report(decided)
        return requeued

    async def _commit(self, final: list[Decided]) -> None:
        runs = [run for run, _ in final]
        for run in runs:
            run.is_committing = True
        try:
            if not [run for run, decision in final if isinstance(decision, Retry | AwaitDuplicate)]:
                sources = await self._record(final)
            else:
                final = await self._without_cancelled(final)
                published = await self._publish_retries(final, ())
                sources = await self._record(final)
                # Messages of the same task may have joined meanwhile, whose senders want a reply too.
                while (more := await self._publish_retries(final, published)) != published:
                    published = more
        except BaseException:
            for run in runs:
                run.is_committing = False
            self._in_flight.end_commit(runs)
            raise
        # First: what is handed out again from now on meets the committed outcome, and not a run that is over.
        self._in_flight.remove(runs)
        self._in_flight.end_commit(runs)
        await self._replies.send(sources)
        await self.acknowledge([delivery for run in runs for delivery in run.deliveries])

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """A failure does no harm: the delivery comes again and meets what was committed."""
        try:
            await self._queue.ack(deliveries)
        except QueueUnavailable as error:
            log.warning("tasks could not be acknowledged; they come again", count=len(deliveries), reason=str(error))

    async def admitted(self, admit: Callable[[], Awaitable[list[Published]]]) -> list[Published]:
        """What became of tasks that are put into the store, however long it takes to answer."""
        return await self._gate.retry_until_available("taking tasks in", admit, stops_intake=False)

    async def lookup(self, ids: Iterable[str]) -> dict[str, TaskRow]:
        """What the store knows of these tasks, however long it takes to answer."""
        unique = list(dict.fromkeys(ids))
        return await self._gate.retry_until_available("looking tasks up", lambda: self._store.lookup(unique))

    async def rows_that_forbid_start(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        """See `TaskStore`: those of tasks that have ended, are cancelled, at a runner, or failed before."""
        return await self._gate.retry_until_available(
            "looking tasks up", lambda: self._store.rows_that_forbid_start(deliveries)
        )

    async def return_unread(self, deliveries: Sequence[Delivery]) -> None:
        """Hands back, uncounted, what no run was made of. A failure does no harm: a lost consumer's come again."""
        try:
            await self._queue.release(deliveries)
        except QueueUnavailable as error:
            log.warning("messages could not be given back", count=len(deliveries), reason=str(error))

    async def release(self, runs: Iterable[Run], why: str) -> None:
        """Hands runs back to the queue, uncounted. Their placement is written first, so that others can attach."""
        runs = [run for run in runs if not run.is_committing]
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
        deliveries = [delivery for run in runs for delivery in run.deliveries]
        await self._gate.retry_until_available("releasing tasks", lambda: self._queue.release(deliveries))

    async def _without_cancelled(self, final: list[Decided]) -> list[Decided]:
        """A task with a cancel mark is not retried."""
        ids = [run.id for run, decision in final if isinstance(decision, Retry)]
        if not ids:
            return final
        marked = await self._gate.retry_until_available(
            "reading cancel marks", lambda: self._store.cancel_requested(ids)
        )
        return [
            (run, Cancel() if isinstance(decision, Retry) and run.id in marked else decision) for run, decision in final
        ]

    async def _publish_retries(self, final: Sequence[Decided], published: Collection[Any]) -> Collection[Any]:
        """Returns the receipts of all that is published now; those in `published` are so already."""
        due: list[tuple[Delivery, float]] = []
        for run, decision in final:
            if isinstance(decision, Retry):
                # The message of each sender is retried, since each of them will get a reply.
                due += [(each, decision.after_seconds) for each in senders(run.deliveries)]
            elif isinstance(decision, AwaitDuplicate):
                due.append((replace(run.delivery, attempt=run.delivery.attempt - 1), AWAIT_DUPLICATE_SECONDS))
        due = [(each, seconds) for each, seconds in due if each.receipt not in published]
        if not due:
            return published
        deliveries, delays = [each for each, _ in due], [seconds for _, seconds in due]
        await self._gate.retry_until_available(
            "publishing retries", lambda: self._queue.retry(deliveries, delays), stops_intake=False
        )
        return [*published, *(each.receipt for each in deliveries)]

    async def _record(self, final: Sequence[Decided]) -> list[ReplySource]:
        """Returns what the replies are made from: each run's outcome, or the row where another one was first."""
        recorded = [(run, record) for run, decision in final if (record := self._record_of(run, decision))]
        late: list[tuple[Run, Record]] = []
        sources: list[ReplySource] = []
        if recorded:
            records = [record for _, record in recorded]
            written = await self._gate.retry_until_available("recording outcomes", lambda: self._store.record(records))
            for each, was_written in zip(recorded, written, strict=True):
                (sources if was_written else late).append(each)
        ignored = [run for run, decision in final if isinstance(decision, Ignore) and wants_reply(run)]
        if late or ignored:
            sources += await self._sources_on_record(late, ignored)
        return sources

    async def _sources_on_record(self, late: Sequence[tuple[Run, Record]], ignored: Sequence[Run]) -> list[ReplySource]:
        rows = await self.lookup([run.id for run, _ in late] + [run.id for run in ignored])
        sources: list[ReplySource] = [(run, rows[run.id]) for run in ignored if run.id in rows]
        conflicts: list[tuple[Run, Record]] = []
        for run, record in late:
            row = rows.get(run.id)
            if row is not None and row.digest and row.digest != run.delivery.digest:
                conflicts.append((run, Conflicting(run.delivery, id_conflict(run.delivery).message)))
            elif row is not None and not isinstance(record, Retrying):
                sources.append((run, row))
            log.info(
                "outcome not recorded: the task has ended or a higher attempt is on record",
                task_id=run.id,
                attempt=run.delivery.attempt,
                outcome=type(record).__name__.lower(),
                on_record=None if row is None else row.state.value,
            )
        if conflicts:
            records = [record for _, record in conflicts]
            await self._gate.retry_until_available("recording conflicts", lambda: self._store.record(records))
        return [*sources, *conflicts]

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

    def _report(self, decided: Sequence[Decided]) -> None:
        """Logs what is unusual, and counts everything."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for run, decision in decided:
            task, label = run.delivery, _LABELS[type(decision)]
            code = decision.code.value if isinstance(decision, Fail | Retry | Conflict) else ""
            counts[task.algorithm, label, code] += 1
            if isinstance(decision, Fail | Retry | Conflict | Ignore):
                log.warning(
                    f"task {label}",
                    task_id=task.id,
                    algorithm=task.algorithm,
                    attempt=task.attempt,
                    code=code or None,
                    why=decision.why if isinstance(decision, Ignore) else decision.message,
                )
        for (algorithm, label, code), count in counts.items():
            known = algorithm if self._is_known(algorithm) else ""
            self._metrics.outcomes.labels(known, label, code).inc(count)
