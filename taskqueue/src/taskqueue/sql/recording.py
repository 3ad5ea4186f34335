"""Commits outcomes: which records the fence lets through, and what each of them writes. Runs inside a transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from runnerlib.contract import FailureCode, HistoryEntry, TaskState, strict_json
from taskqueue.messages import original
from taskqueue.sql import statements
from taskqueue.sql.rows import clean, clean_or_none, history_from, history_text
from taskqueue.tasks import Cancelled, Conflicting, Delivery, Failed, Placement, Record, Retrying, Succeeded

#: What concerns the row of its task.
Outcome = Succeeded | Failed | Cancelled | Retrying


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by both clocks."""

    wall: float
    steady: float


@dataclass(slots=True)
class Known:
    ended: bool
    attempt: int
    history: str | None


@dataclass(slots=True)
class _Writes:
    ends: list[dict[str, Any]] = field(default_factory=list)
    retries: list[dict[str, Any]] = field(default_factory=list)
    explanations: list[dict[str, Any]] = field(default_factory=list)
    new: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)


def write_records(connection: Connection, records: Sequence[Record], now: Moment) -> list[bool]:
    """True for each record that was written; the fence: the task has not ended and has no higher attempt."""
    written: list[bool] = []
    for group in without_repetition(records):
        known = fence(connection, [record.delivery.id for record in group])
        writes = _Writes()
        written.extend(_decide(record, known.get(record.delivery.id), writes, now) for record in group)
        _execute(connection, writes)
    return written


def without_repetition(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Groups in which each id is met once, so that the second record of an id sees what the first one wrote."""
    group: dict[str, Record] = {}
    for record in records:
        if record.delivery.id in group:
            yield list(group.values())
            group = {}
        group[record.delivery.id] = record
    if group:
        yield list(group.values())


def fence(connection: Connection, ids: Sequence[str]) -> dict[str, Known]:
    rows = connection.execute(statements.FENCE, {"the_ids": statements.padded(ids)}).all()
    return {
        task_id: Known(finished_at is not None, attempt, history) for task_id, finished_at, attempt, history in rows
    }


def _decide(record: Record, row: Known | None, writes: _Writes, now: Moment) -> bool:
    delivery = record.delivery
    if isinstance(record, Conflicting):
        failed = Failed(delivery, FailureCode.ID_CONFLICT, record.message)
        writes.dead_letters.append(dead_letter_values(failed, None, now))
        return True
    if row is not None and row.ended:
        return False
    if row is not None and row.attempt > delivery.attempt:
        explanation = explain_retry(record, row, now)
        if explanation is not None:
            writes.explanations.append(explanation)
        return explanation is not None
    values = _values(record, row, now)
    if row is None:
        writes.new.append(_new_row(record, values, now))
    elif isinstance(record, Retrying):
        writes.retries.append({"the_id": delivery.id, **values})
    else:
        writes.ends.append({"the_id": delivery.id, **values})
    if isinstance(record, Failed):
        writes.dead_letters.append(dead_letter_values(record, values["new_history"], now))
    return True


def explain_retry(record: Record, row: Known, now: Moment) -> dict[str, Any] | None:
    """For EXPLAIN: the row has moved on to the next attempt already; the reason is still to be written, once."""
    if not isinstance(record, Retrying) or row.ended or row.attempt != record.delivery.attempt + 1:
        return None
    if any(entry.attempt == record.delivery.attempt for entry in history_from(row.history)):
        return None
    return {"the_id": record.delivery.id, **why(record, row, now)}


def _values(record: Outcome, row: Known | None, now: Moment) -> dict[str, Any]:
    if isinstance(record, Retrying):
        return {
            "new_attempt": record.delivery.attempt + 1,
            "new_available_at": now.steady + max(0.0, record.available_at - now.wall),
            "new_now": now.wall,
            **why(record, row, now),
        }
    end: dict[str, Any] = {
        "new_attempt": record.delivery.attempt,
        "new_now": now.wall,
        "new_result": None,
        "new_error_code": None,
        "new_error_message": None,
        "new_history": None,
        "new_runner": None,
    }
    match record:
        case Succeeded():
            end |= {
                "new_state": TaskState.SUCCEEDED.value,
                "new_result": record.result,
                "new_runner": clean_or_none(record.runner),
            }
        case Failed():
            end |= {"new_state": TaskState.FAILED.value, **why(record, row, now)}
        case Cancelled():
            end |= {"new_state": TaskState.CANCELLED.value}
    return end


def why(record: Retrying | Failed, row: Known | None, now: Moment) -> dict[str, Any]:
    return {
        "new_error_code": record.code.value,
        "new_error_message": clean(record.message),
        "new_history": history_text(full_history(record, row, now)),
        "new_runner": clean_or_none(record.runner),
    }


def full_history(record: Retrying | Failed, row: Known | None, now: Moment) -> tuple[HistoryEntry, ...]:
    """The record's own, or the row's with one more entry."""
    if record.history:
        return record.history
    entry = HistoryEntry(
        attempt=record.delivery.attempt,
        code=record.code,
        message=clean(record.message),
        runner=clean_or_none(record.runner),
        at=datetime.fromtimestamp(now.wall, UTC),
    )
    return (*history_from(row.history if row else None), entry)


def _new_row(record: Outcome, values: dict[str, Any], now: Moment) -> dict[str, Any]:
    """A task that the store meets for the first time: the queue is not in this database, or the row was purged."""
    row = new_task_values(record.delivery, now)
    row |= {name.removeprefix("new_"): value for name, value in values.items() if name != "new_now"}
    if isinstance(record, Retrying):
        row["state"] = TaskState.RETRYING.value
    else:
        row["finished_at"] = now.wall
    return row


def new_task_values(delivery: Delivery, now: Moment) -> dict[str, Any]:
    """All columns that an inserted row may need, so that one prepared statement serves all."""
    return {
        "id": delivery.id,
        "algorithm": delivery.algorithm,
        "payload": delivery.payload,
        "digest": delivery.digest,
        "available_at": None,
        "created_at": now.wall,
        "updated_at": now.wall,
        "finished_at": None,
        "expires_at": delivery.expires_at,
        "result": None,
        "reply_to": delivery.reply_to,
        "correlation_id": delivery.correlation_id,
    }


def dead_letter_values(record: Failed, history: str | None, now: Moment) -> dict[str, Any]:
    delivery = record.delivery
    return {
        "task_id": delivery.id,
        "algorithm": delivery.algorithm,
        "code": record.code.value,
        "message": clean(record.message),
        "traceback": clean_or_none(record.traceback),
        "body": original(delivery),
        "headers": strict_json.dumps(delivery.headers).decode(),
        "history": history,
        "created_at": now.wall,
    }


def place_runs(connection: Connection, placements: Sequence[tuple[Delivery, Placement]], now: Moment) -> None:
    """Marks runs as running; what the database has not seen yet is put in."""
    known = fence(connection, [delivery.id for delivery, _ in placements])
    missing = [delivery for delivery, _ in placements if delivery.id not in known]
    if missing:
        running = {"state": TaskState.RUNNING.value, "available_at": now.steady}
        rows = [new_task_values(each, now) | running | {"attempt": each.attempt} for each in missing]
        connection.execute(statements.INSERT_NEW[connection.dialect.name], rows)
    values = [
        {
            "the_id": placement.id,
            "the_attempt": placement.attempt,
            "new_runner": clean(placement.runner),
            "new_boot": clean(placement.boot),
            "new_now": now.wall,
        }
        for _, placement in placements
    ]
    connection.execute(statements.PLACE, values)


def _execute(connection: Connection, writes: _Writes) -> None:
    if writes.ends:
        connection.execute(statements.END, writes.ends)
    if writes.retries:
        connection.execute(statements.RETRY, writes.retries)
    if writes.explanations:
        connection.execute(statements.EXPLAIN, writes.explanations)
    for kind in (True, False):
        # one executemany needs the same columns in every row: ended ones and retrying ones differ
        rows = [row for row in writes.new if (row["finished_at"] is None) is kind]
        if rows:
            connection.execute(statements.INSERT_NEW[connection.dialect.name], rows)
    if writes.dead_letters:
        connection.execute(statements.INSERT_DEAD_LETTER, writes.dead_letters)
