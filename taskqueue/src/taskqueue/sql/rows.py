"""From a row to `taskqueue.tasks.TaskRow`, and texts that every database can store."""

import time
from collections.abc import Sequence
from typing import Any, TypeAlias, Unpack

from pydantic import TypeAdapter
from sqlalchemy import Double, LargeBinary, Row, bindparam, case, cast, select

from runnerlib.contract import FailureCode, HistoryEntry, Progress, TaskState
from taskqueue.sql.tables import tasks, waiting_notes
from taskqueue.tasks import Placement, TaskRow, notes_valid_since

#: A row of any columns.
AnyRow: TypeAlias = "Row[Unpack[tuple[Any, ...]]]"

_STATES = {state.value: state for state in TaskState}
_HISTORY: TypeAdapter[tuple[HistoryEntry, ...]] = TypeAdapter(tuple[HistoryEntry, ...])

#: Computed each time a statement that has it is run.
_valid_since = bindparam("the_notes_valid_since", type_=Double, callable_=lambda: notes_valid_since(time.time()))
#: Why a task waits; looked up for waiting tasks only.
HELD_UP = case(
    (
        tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value)),
        select(waiting_notes.c.note)
        .where((waiting_notes.c.algorithm == tasks.c.algorithm) & (waiting_notes.c.noted_at >= _valid_since))
        .scalar_subquery(),
    )
).label("held_up")
#: The columns of a TaskRow, in the order `task_row` reads them.
TASK_COLUMNS = (
    tasks.c.id,
    tasks.c.algorithm,
    # a row that somebody inserted by hand may hold text
    cast(tasks.c.payload, LargeBinary).label("payload"),
    tasks.c.digest,
    tasks.c.state,
    tasks.c.attempt,
    tasks.c.created_at,
    tasks.c.updated_at,
    tasks.c.finished_at,
    tasks.c.expires_at,
    tasks.c.result,
    tasks.c.error_code,
    tasks.c.error_message,
    tasks.c.history,
    tasks.c.placed_attempt,
    tasks.c.placed_runner,
    tasks.c.placed_boot,
    tasks.c.runner,
    tasks.c.cancel_requested,
    tasks.c.progress_fraction,
    tasks.c.progress_message,
    tasks.c.replays,
    tasks.c.reply_to,
    tasks.c.correlation_id,
    HELD_UP,
)


def task_row(row: AnyRow) -> TaskRow:
    task_id, algorithm, payload, digest, state, attempt, created_at, updated_at, finished_at, expires_at, *rest = row
    result, code, message, history, placed_attempt, placed_runner, placed_boot, runner, cancel_requested, *rest = rest
    fraction, progress_message, replays, reply_to, correlation_id, held_up = rest
    return TaskRow(
        id=task_id,
        algorithm=algorithm,
        payload=payload,
        digest=digest,
        state=_STATES[state],
        attempt=attempt,
        created_at=created_at,
        updated_at=updated_at,
        finished_at=finished_at,
        expires_at=expires_at,
        result=result,
        error_code=failure_code(code),
        error_message=message,
        history=parse_history(history),
        placement=None if placed_attempt is None else Placement(task_id, placed_attempt, placed_runner, placed_boot),
        runner=runner,
        cancel_requested=cancel_requested,
        progress=progress(fraction, progress_message),
        replays=replays,
        reply_to=reply_to,
        correlation_id=correlation_id,
        held_up=held_up,
    )


def failure_code(code: str | None) -> FailureCode | None:
    return None if code is None else FailureCode(code)


def progress(fraction: float | None, message: str) -> Progress | None:
    return None if fraction is None else Progress(fraction=fraction, message=message)


def parse_history(text: str | None) -> tuple[HistoryEntry, ...]:
    return _HISTORY.validate_json(text) if text else ()


def dump_history(history: Sequence[HistoryEntry]) -> str | None:
    return clean(_HISTORY.dump_json(tuple(history)).decode()) if history else None


def clean(text: str) -> str:
    """Text that every database stores: no NUL (PostgreSQL refuses it), no lone surrogate (it cannot be encoded)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)
