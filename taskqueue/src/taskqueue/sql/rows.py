"""From a row of the database to `taskqueue.tasks.TaskRow`."""

import time
from typing import Any, TypeAlias, Unpack

from sqlalchemy import Double, LargeBinary, Row, bindparam, case, cast, select

from runnerlib.contract import FailureCode, Progress, TaskState
from taskqueue.messages import parse_history
from taskqueue.sql.tables import NO_GROUP, tasks, waiting_notes
from taskqueue.tasks import Placement, TaskRow, notes_valid_since

#: A row of any columns.
AnyRow: TypeAlias = "Row[Unpack[tuple[Any, ...]]]"

_STATES = {state.value: state for state in TaskState}

#: Computed each time a statement that has it is run.
_valid_since = bindparam("the_notes_valid_since", type_=Double, callable_=lambda: notes_valid_since(time.time()))
#: Why a task waits; looked up for waiting tasks only.
PENDING_REASON = case(
    (
        (tasks.c.state == TaskState.QUEUED.value) | (tasks.c.state == TaskState.RETRYING.value),
        select(waiting_notes.c.note)
        .where((waiting_notes.c.algorithm == tasks.c.algorithm) & (waiting_notes.c.noted_at >= _valid_since))
        .scalar_subquery(),
    )
).label("pending_reason")
#: A row that somebody inserted by hand may hold text.
PAYLOAD = cast(tasks.c.payload, LargeBinary).label("payload")
#: Columns of the queue alone.
_NOT_IN_TASK_ROW = ("seq", "available_at", "receipt", "delivery_count")
#: The columns of a TaskRow, in the order `task_row` reads them.
TASK_COLUMNS = (
    *(PAYLOAD if column.name == "payload" else column for column in tasks.c if column.name not in _NOT_IN_TASK_ROW),
    PENDING_REASON,
)


def notes_valid_now() -> dict[str, float]:
    """The value of the same parameter, for a statement that is sent to the driver as text."""
    return {"the_notes_valid_since": notes_valid_since(time.time())}


def task_row(row: AnyRow) -> TaskRow:
    task_id, algorithm, payload, digest, state, attempt, created_at, updated_at, finished_at, expires_at, *rest = row
    result, code, message, history, placed_attempt, placed_runner, placed_boot, runner, cancel_requested, *rest = rest
    fraction, progress_message, replays, reply_to, correlation_id, submitted_by, group, not_before, reason = rest
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
        not_before=not_before,
        group=group_name(group),
        in_turn=group is not None,
        result=result,
        error_code=failure_code(code),
        error_message=message,
        history=parse_history(history),
        placement=None if placed_attempt is None else Placement(task_id, placed_attempt, placed_runner, placed_boot),
        runner=runner,
        cancel_requested=bool(cancel_requested),
        progress=progress(fraction, progress_message),
        replays=replays,
        reply_to=reply_to,
        correlation_id=correlation_id,
        submitted_by=submitted_by,
        pending_reason=reason,
    )


def group_name(group: str | None) -> str | None:
    return None if group == NO_GROUP else group


def failure_code(code: str | None) -> FailureCode | None:
    return None if code is None else FailureCode(code)


def progress(fraction: float | None, message: str) -> Progress | None:
    return None if fraction is None else Progress(fraction=fraction, message=message)
