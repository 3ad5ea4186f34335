"""What a record writes: into its task's row, as the reason of a retry, as a dead letter. Pure.

The fence, which each store puts into its statements: a task that has ended, or has a higher attempt, is not written.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runnerlib.contract import FailureCode, HistoryEntry, TaskState, strict_json
from taskqueue.clock import Now
from taskqueue.messages import clean, clean_or_none, dump_history, original, parse_history
from taskqueue.tasks import Cancelled, Conflicting, Failed, Record, Retrying, Succeeded

#: The records that write their task's row.
Outcome = Succeeded | Failed | Cancelled | Retrying

_SUCCEEDED = TaskState.SUCCEEDED.value
_CANCELLED = TaskState.CANCELLED.value
_FAILED = TaskState.FAILED.value
_RETRYING = TaskState.RETRYING.value

#: What `outcome_values` returns, by column.
OUTCOME_COLUMNS = (
    "state",
    "attempt",
    "available_at",
    "result",
    "error_code",
    "error_message",
    "history",
    "runner",
)


@dataclass(frozen=True, slots=True)
class KnownRow:
    """What the fence and the history need of a task's row."""

    ended: bool
    attempt: int
    history: str | None


def without_repetition(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Groups in which each id occurs once, so that the second record of an id sees what the first one wrote."""
    group: dict[str, Record] = {}
    for record in records:
        if record.delivery.id in group:
            yield list(group.values())
            group = {}
        group[record.delivery.id] = record
    if group:
        yield list(group.values())


def ended_ids(records: Sequence[Record], written: Sequence[bool]) -> list[str]:
    """The tasks that these records have ended."""
    return [
        record.delivery.id
        for record, done in zip(records, written, strict=True)
        if done and not isinstance(record, Retrying | Conflicting)
    ]


def with_history(record: Outcome, row: KnownRow | None, now: Now) -> Outcome:
    """The record with every failed attempt: those it brings, or the row's and its own."""
    if not isinstance(record, Failed | Retrying) or record.history:
        return record
    entry = HistoryEntry(
        attempt=record.delivery.attempt,
        code=record.code,
        message=clean(record.message),
        runner=clean_or_none(record.runner),
        at=datetime.fromtimestamp(now.wall, UTC),
    )
    return replace(record, history=(*parse_history(row.history if row else None), entry))


def outcome_values(record: Outcome, retry_at: Callable[[float], float]) -> tuple[Any, ...]:
    """The row's values, in the order of OUTCOME_COLUMNS, for a record that has its history.

    `retry_at` turns the wall time of the next attempt into the store's `available_at`.
    """
    attempt = record.delivery.attempt
    match record:
        case Succeeded():
            return (_SUCCEEDED, attempt, None, record.result, None, None, None, clean_or_none(record.runner))
        case Cancelled():
            return (_CANCELLED, attempt, None, None, None, None, None, None)
        case Failed():
            return (_FAILED, attempt, None, None, *_reason(record))
        case Retrying():
            return (_RETRYING, attempt + 1, retry_at(record.available_at), None, *_reason(record))


def explain_retry(record: Outcome, row: KnownRow, now: Now) -> dict[str, Any] | None:
    """For `statements.EXPLAIN`: the row has reached the next attempt already, and its history lacks this one.

    A reason is written once; returns None if there is nothing to write.
    """
    if not isinstance(record, Retrying) or row.ended or row.attempt != record.delivery.attempt + 1:
        return None
    if any(entry.attempt == record.delivery.attempt for entry in parse_history(row.history)):
        return None
    values = outcome_values(with_history(record, row, now), float)
    reason = {f"new_{name}": value for name, value in zip(OUTCOME_COLUMNS[4:], values[4:], strict=True)}
    return {"the_id": record.delivery.id, **reason}


def dead_letter_values(record: Failed | Conflicting, now: Now) -> dict[str, Any]:
    """The row of the dead letter of a record that has its history."""
    if isinstance(record, Conflicting):
        record = Failed(record.delivery, FailureCode.ID_CONFLICT, record.message)
    return {
        "task_id": record.delivery.id,
        "algorithm": record.delivery.algorithm,
        "code": record.code.value,
        "message": clean(record.message),
        "traceback": clean_or_none(record.traceback),
        "body": original(record.delivery),
        "headers": strict_json.dumps(record.delivery.headers).decode(),
        "history": dump_history(record.history),
        "created_at": now.wall,
    }


def _reason(record: Failed | Retrying) -> tuple[str | None, ...]:
    return record.code.value, clean(record.message), dump_history(record.history), clean_or_none(record.runner)
