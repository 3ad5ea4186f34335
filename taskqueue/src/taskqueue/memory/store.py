"""The task store in memory."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runnerlib.contract import FailureCode, HistoryEntry, Progress, TaskState
from taskqueue.memory import dead_letters, summaries
from taskqueue.memory.tables import WAITING, Entry, Tables, new_row
from taskqueue.tasks import (
    CancelAnswer,
    Cancelled,
    Conflicting,
    Counts,
    DeadAnswer,
    DeadFilter,
    DeadLetter,
    DeadSummary,
    Delivery,
    Failed,
    NewTask,
    Page,
    Placement,
    Record,
    Retrying,
    Succeeded,
    TaskFilter,
    TaskRow,
    TaskSummary,
    notes_valid_since,
)


class MemoryStore:
    """See `taskqueue.protocols.TaskStore`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        entries = self._tables.entries
        return {task_id: self._tables.shown(entries[task_id]) for task_id in ids if task_id in entries}

    async def get(self, task_id: str) -> TaskRow | None:
        entry = self._tables.entries.get(task_id)
        return None if entry is None else self._tables.shown(entry)

    async def wait_finished(self, task_id: str, timeout_seconds: float) -> TaskRow | None:
        with self._tables.waiters.waiting(task_id) as ended:
            row = await self.get(task_id)
            if timeout_seconds <= 0 or (row is not None and row.state.is_terminal):
                return row
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await ended.wait()
        return await self.get(task_id)

    async def record(self, records: Sequence[Record]) -> list[bool]:
        written = [self._record(record) for record in records]
        kept = [record for record, done in zip(records, written, strict=True) if done]
        self._tables.outstanding.mark_over(record.delivery for record in kept)
        self._tables.arrived({record.delivery.algorithm for record in kept if isinstance(record, Retrying)})
        return written

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        for delivery, placement in placements:
            self._entry_of(delivery)
            entry = self._open_entry(placement.id, placement.attempt)
            if entry is not None:
                self._tables.change(
                    entry,
                    state=TaskState.RUNNING if placement.runner else TaskState.QUEUED,
                    attempt=placement.attempt,
                    placement=placement if placement.boot else None,
                    runner=placement.runner or None,
                )

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        for task_id, attempt, fraction, message in updates:
            entry = self._open_entry(task_id, attempt)
            if entry is not None:
                self._tables.change(entry, progress=Progress(fraction=fraction, message=message))

    async def cancel(self, task_id: str) -> CancelAnswer:
        entry = self._tables.entries.get(task_id)
        if entry is None:
            unseen = NewTask(id=task_id, algorithm="", payload=b"null", digest="")
            row = new_row(unseen, TaskState.QUEUED, 1, self._tables.clock.wall())
            entry = self._tables.entries[task_id] = Entry(next(self._tables.sequence), row)
        if entry.ended:
            return CancelAnswer.FINISHED
        if entry.row.state in WAITING or (entry.available_at == 0.0 and entry.token is None):
            self._tables.end(entry, TaskState.CANCELLED)
            return CancelAnswer.CANCELLED
        self._tables.change(entry, cancel_requested=True)
        return CancelAnswer.REQUESTED

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        rows = await self.lookup(list(ids))
        return {i for i, row in rows.items() if row.cancel_requested or row.state is TaskState.CANCELLED}

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        now = self._tables.clock.wall()
        kept = {
            n: note for n, note in self._tables.notes.items() if n not in over and note[1] >= notes_valid_since(now)
        }
        self._tables.notes = kept | {name: (reason, now) for name, reason in reasons.items()}

    async def counts(self) -> list[Counts]:
        by_algorithm: dict[str, dict[TaskState, int]] = {}
        oldest: dict[str, float] = {}
        for entry in self._tables.entries.values():
            if not entry.row.algorithm:  # a tombstone has none
                continue
            states = by_algorithm.setdefault(entry.row.algorithm, {})
            states[entry.row.state] = states.get(entry.row.state, 0) + 1
            if entry.available_at == 0.0 and entry.token is None:
                oldest.setdefault(entry.row.algorithm, entry.waits_since)
        return [Counts(name, states, oldest.get(name)) for name, states in sorted(by_algorithm.items())]

    async def list_tasks(self, wanted: TaskFilter, *, limit: int = 100, before: int | None = None) -> Page[TaskSummary]:
        newest_first = sorted(self._tables.entries.values(), key=lambda entry: -entry.seq)
        below = [entry for entry in newest_first if before is None or entry.seq < before]
        found = [
            summaries.summary(entry, self._tables.shown(entry)) for entry in below if summaries.fits(entry, wanted)
        ]
        return Page(tuple(found[:limit]), found[limit - 1].seq if len(found) > limit else None)

    async def dead_letters(
        self, wanted: DeadFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[DeadSummary]:
        wanted = wanted or DeadFilter()
        newest_first = list(self._tables.dead_letters.values())[::-1]
        below = [letter for letter in newest_first if before is None or letter.dead_id < before]
        found = [dead_letters.summary(letter) for letter in below if dead_letters.fits(letter, wanted)]
        return Page(tuple(found[:limit]), found[limit - 1].dead_id if len(found) > limit else None)

    async def dead_letter(self, dead_id: int) -> DeadLetter | None:
        return self._tables.dead_letters.get(dead_id)

    async def discard(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        return [dead_letters.discard(self._tables, dead_id) for dead_id in dead_ids]

    async def check_writing(self) -> None:
        pass

    async def purge(self, finished_before: float, limit: int) -> int:
        ended = [e.row for e in self._tables.entries.values() if e.row.finished_at is not None]
        old = sorted((r.finished_at, r.id) for r in ended if r.finished_at and r.finished_at < finished_before)[:limit]
        for _, task_id in old:
            del self._tables.entries[task_id]
        return len(old) + self._purge_dead_letters(finished_before, limit - len(old))

    def _purge_dead_letters(self, decided_before: float, limit: int) -> int:
        letters = self._tables.dead_letters.values()
        decided = [(min(filter(None, (each.replayed_at, each.discarded_at)), default=None), each) for each in letters]
        old = [each.dead_id for at, each in decided if at is not None and at < decided_before][:limit]
        for dead_id in old:
            del self._tables.dead_letters[dead_id]
        return len(old)

    def _open_entry(self, task_id: str, attempt: int) -> Entry | None:
        """The entry, if the fence lets this attempt through."""
        entry = self._tables.entries.get(task_id)
        return entry if entry is not None and not entry.ended and entry.row.attempt <= attempt else None

    def _entry_of(self, delivery: Delivery) -> Entry:
        """Its entry; one made from it, if there is none."""
        entry = self._tables.entries.get(delivery.id)
        if entry is None:
            row = new_row(delivery, TaskState.RUNNING, delivery.attempt, self._tables.clock.wall())
            entry = self._tables.entries[delivery.id] = Entry(next(self._tables.sequence), row)
        return entry

    def _record(self, record: Record) -> bool:
        if isinstance(record, Conflicting):
            failed = Failed(record.delivery, FailureCode.ID_CONFLICT, record.message)
            dead_letters.write(self._tables, failed, ())
            return True
        delivery = record.delivery
        entry = self._entry_of(delivery)
        if entry.ended:
            return False
        if entry.row.attempt > delivery.attempt:
            return self._explain_retry(record, entry)
        self._write(record, entry)
        return True

    def _explain_retry(self, record: Record, entry: Entry) -> bool:
        """The queue has already moved the row on to the next attempt; the reason is still to be written, once."""
        attempt = record.delivery.attempt
        if not isinstance(record, Retrying) or entry.row.attempt != attempt + 1:
            return False
        if any(past.attempt == attempt for past in entry.row.history):
            return False
        self._tables.change(entry, **self._why(record, entry))
        return True

    def _write(self, record: Record, entry: Entry) -> None:
        attempt = record.delivery.attempt
        match record:
            case Succeeded():
                kept = {"attempt": attempt, "result": record.result, "runner": record.runner or entry.row.runner}
                self._tables.end(entry, TaskState.SUCCEEDED, error_code=None, error_message=None, **kept)
            case Cancelled():
                self._tables.end(entry, TaskState.CANCELLED, attempt=attempt, error_code=None, error_message=None)
            case Retrying():
                self._tables.change(entry, **self._why(record, entry))
                self._tables.next_attempt(entry, attempt + 1, self._tables.clock.to_steady(record.available_at))
            case Failed():
                self._tables.end(entry, TaskState.FAILED, attempt=attempt, **self._why(record, entry))
                dead_letters.write(self._tables, record, entry.row.history)

    def _why(self, record: Retrying | Failed, entry: Entry) -> dict[str, Any]:
        history = record.history or (
            *entry.row.history,
            HistoryEntry(
                attempt=record.delivery.attempt,
                code=record.code,
                message=record.message,
                runner=record.runner,
                at=datetime.fromtimestamp(self._tables.clock.wall(), UTC),
            ),
        )
        runner = record.runner or entry.row.runner
        return {"error_code": record.code, "error_message": record.message, "history": history, "runner": runner}
