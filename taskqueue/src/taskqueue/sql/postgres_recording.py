"""Commits outcomes, placements and new tasks on PostgreSQL. Runs inside a transaction.

An outcome is one statement for all of a call, in the order of the ids, so that two processes never wait for one
another: whoever comes second finds the fence closed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from runnerlib.contract import FailureCode, TaskState
from taskqueue.sql import postgres_statements as statements
from taskqueue.sql.postgres_statements import DEAD_LETTER_ARRAYS, PLACE_ARRAYS, RECORD_ARRAYS, TASK_ARRAYS, write_rows
from taskqueue.sql.publishing import fill_tombstone
from taskqueue.sql.recording import (
    Known,
    Moment,
    Outcome,
    dead_letter_values,
    explain_retry,
    full_history,
    without_repetition,
)
from taskqueue.sql.rows import clean, clean_or_none, history_text
from taskqueue.sql.statements import EXPLAIN
from taskqueue.tasks import (
    Cancelled,
    Conflicting,
    Delivery,
    Failed,
    NewTask,
    Placement,
    Published,
    Record,
    Retrying,
    Succeeded,
)

#: Of the column; a stranger's message may name an algorithm that cannot exist.
_LONGEST_NAME = 63
_SUCCEEDED = TaskState.SUCCEEDED.value
_CANCELLED = TaskState.CANCELLED.value
_FAILED = TaskState.FAILED.value
_RETRYING = TaskState.RETRYING.value


def write_records(connection: Connection, records: Sequence[Record], now: Moment) -> list[bool]:
    """True for each record that was written; the fence: the task has not ended and has no higher attempt."""
    verdicts: list[bool] = []
    for group in without_repetition(records):
        outcomes = [each for each in group if not isinstance(each, Conflicting)]
        conflicts = [each for each in group if isinstance(each, Conflicting)]
        written = _write(connection, outcomes, now) if outcomes else {}
        letters = [each for each in written.values() if isinstance(each, Failed)]
        letters += [Failed(each.delivery, FailureCode.ID_CONFLICT, each.message) for each in conflicts]
        if letters:
            rows = [_letter(each, now) for each in letters]
            write_rows(connection, statements.INSERT_DEAD_LETTERS, DEAD_LETTER_ARRAYS, rows)
        verdicts.extend(isinstance(each, Conflicting) or each.delivery.id in written for each in group)
    return verdicts


def ended_ids(records: Sequence[Record], written: Sequence[bool]) -> list[str]:
    """The tasks that these records have ended."""
    return [
        record.delivery.id
        for record, done in zip(records, written, strict=True)
        if done and not isinstance(record, Retrying | Conflicting)
    ]


def place_runs(connection: Connection, placements: Sequence[tuple[Delivery, Placement]], now: float) -> None:
    """Marks runs as running; what the database has not seen yet is put in."""
    latest = {placement.id: (delivery, placement) for delivery, placement in placements}
    rows = [
        (*_task(delivery), placement.attempt, clean(placement.runner), clean(placement.boot))
        for _, (delivery, placement) in sorted(latest.items(), key=_first)
    ]
    write_rows(connection, statements.PLACE, PLACE_ARRAYS, rows, now=now)


def admit(connection: Connection, tasks: Sequence[NewTask], now: float) -> list[Published]:
    """What became of each; see `taskqueue.protocols.Ledger`."""
    first = {task.id: task for task in reversed(tasks)}
    rows = [_task(task) for _, task in sorted(first.items(), key=_first)]
    inserted = write_rows(connection, statements.ADMIT, TASK_ARRAYS, rows, now=now)
    digests = {task_id: task.digest for task_id, task in first.items()}
    if len(inserted) < len(first):
        digests |= _known_digests(connection, [task for task in first.values() if task.id not in inserted], now)
    verdicts = []
    for task in tasks:
        if digests[task.id] != task.digest:
            verdicts.append(Published.CONFLICT)
        elif task.id in inserted:
            verdicts.append(Published.ACCEPTED)
            inserted.discard(task.id)
        else:
            verdicts.append(Published.DUPLICATE)
    return verdicts


def _known_digests(connection: Connection, tasks: Sequence[NewTask], now: float) -> dict[str, str]:
    """By id; the content of a tombstone's task is put in first."""
    found = connection.execute(statements.DIGESTS, {"the_ids": [task.id for task in tasks]})
    digests: dict[str, str] = dict(found.all())
    for task in tasks:
        if digests.get(task.id) == "":
            fill_tombstone(connection, task, now)
            digests[task.id] = task.digest
    return digests


def _write(connection: Connection, records: Sequence[Outcome], now: Moment) -> dict[str, Outcome]:
    """Those that the fence let through, by id, with the history they were given."""
    complete = sorted(_with_history(connection, records, now), key=lambda record: record.delivery.id)
    rows = [_row(record, now.wall) for record in complete]
    done = write_rows(connection, statements.RECORD, RECORD_ARRAYS, rows, now=now.wall)
    written = {record.delivery.id: record for record in complete if record.delivery.id in done}
    if len(written) < len(records):
        late = [each for each in records if isinstance(each, Retrying) and each.delivery.id not in written]
        written |= _explain(connection, late, now)
    return written


def _with_history(connection: Connection, records: Sequence[Outcome], now: Moment) -> Iterable[Outcome]:
    """A record that brings no history goes on from the row's."""
    if not any(isinstance(each, Failed | Retrying) and not each.history for each in records):
        return records
    known = _known(connection, records)
    return [
        replace(each, history=full_history(each, known.get(each.delivery.id), now))
        if isinstance(each, Failed | Retrying)
        else each
        for each in records
    ]


def _explain(connection: Connection, late: Sequence[Retrying], now: Moment) -> dict[str, Outcome]:
    """Retries whose next attempt is known already: their reason is still to be written, once."""
    explained: dict[str, Outcome] = {}
    if late:
        known = _known(connection, late)
        for record in late:
            row = known.get(record.delivery.id)
            explanation = None if row is None else explain_retry(record, row, now)
            if explanation is not None:
                connection.execute(EXPLAIN, explanation)
                explained[record.delivery.id] = record
    return explained


def _known(connection: Connection, records: Sequence[Outcome]) -> dict[str, Known]:
    ids = [record.delivery.id for record in records]
    rows = connection.execute(statements.HISTORIES, {"the_ids": ids})
    return {
        task_id: Known(finished_at is not None, attempt, history) for task_id, finished_at, attempt, history in rows
    }


def _task(task: NewTask | Delivery) -> tuple[Any, ...]:
    """In the order of TASK_ARRAYS."""
    return (
        task.id,
        clean(task.algorithm)[:_LONGEST_NAME],
        task.payload,
        task.digest,
        task.expires_at,
        clean_or_none(task.reply_to),
        clean_or_none(task.correlation_id),
    )


def _row(record: Outcome, now: float) -> tuple[Any, ...]:
    """In the order of RECORD_ARRAYS: … state, attempt, available_at, result, code, message, history, runner."""
    task, attempt = _task(record.delivery), record.delivery.attempt
    end: tuple[Any, ...]
    match record:
        case Succeeded():
            end = (_SUCCEEDED, attempt, None, record.result, None, None, None, clean_or_none(record.runner))
        case Cancelled():
            end = (_CANCELLED, attempt, None, None, None, None, None, None)
        case Failed():
            end = (_FAILED, attempt, None, None, *_why(record))
        case Retrying():
            end = (_RETRYING, attempt + 1, max(now, record.available_at), None, *_why(record))
    return task + end


def _why(record: Failed | Retrying) -> tuple[str | None, ...]:
    return record.code.value, clean(record.message), history_text(record.history), clean_or_none(record.runner)


def _letter(record: Failed, now: Moment) -> tuple[Any, ...]:
    values = dead_letter_values(record, history_text(record.history), now)
    values["algorithm"] = clean(values["algorithm"])[:_LONGEST_NAME]
    return tuple(values[name] for name in DEAD_LETTER_ARRAYS)


def _first(item: tuple[str, Any]) -> str:
    return item[0]
