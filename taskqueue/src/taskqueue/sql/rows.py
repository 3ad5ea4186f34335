"""Between rows and the frozen data of `taskqueue.tasks`."""

import time
from collections.abc import Sequence
from typing import Any, TypeAlias, Unpack

from pydantic import TypeAdapter
from sqlalchemy import Double, LargeBinary, Row, bindparam, case, cast, select

from runnerlib.contract import FailureCode, HistoryEntry, Progress, TaskState, strict_json
from taskqueue.sql.tables import dead_letters, tasks, waiting_notes
from taskqueue.tasks import DeadLetter, Placement, TaskRow
from taskqueue.waiting_notes import believed_since

#: Asked for each time a statement that has it is run.
_believed_since = bindparam("the_believed_since", type_=Double, callable_=lambda: believed_since(time.time()))
#: Looked up for tasks that wait alone.
HELD_UP = case(
    (
        tasks.c.state.in_((TaskState.QUEUED.value, TaskState.RETRYING.value)),
        select(waiting_notes.c.note)
        .where((waiting_notes.c.algorithm == tasks.c.algorithm) & (waiting_notes.c.noted_at >= _believed_since))
        .scalar_subquery(),
    )
).label("held_up")
#: The columns of a TaskRow, in the order `task_row` reads them.
TASK_COLUMNS = (
    tasks.c.id,
    tasks.c.algorithm,
    # also of a row that somebody put in by hand, as text
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

#: A row of any columns.
AnyRow: TypeAlias = "Row[Unpack[tuple[Any, ...]]]"

_STATES = {state.value: state for state in TaskState}
_HISTORY: TypeAdapter[tuple[HistoryEntry, ...]] = TypeAdapter(tuple[HistoryEntry, ...])


def task_row(row: AnyRow) -> TaskRow:
    (
        task_id,
        algorithm,
        payload,
        digest,
        state,
        attempt,
        created_at,
        updated_at,
        finished_at,
        expires_at,
        result,
        error_code,
        error_message,
        history,
        placed_attempt,
        placed_runner,
        placed_boot,
        runner,
        cancel_requested,
        progress_fraction,
        progress_message,
        replays,
        reply_to,
        correlation_id,
        held_up,
    ) = row
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
        error_code=None if error_code is None else FailureCode(error_code),
        error_message=error_message,
        history=history_from(history),
        placement=None if placed_attempt is None else Placement(task_id, placed_attempt, placed_runner, placed_boot),
        runner=runner,
        cancel_requested=cancel_requested,
        progress=None if progress_fraction is None else Progress(fraction=progress_fraction, message=progress_message),
        replays=replays,
        reply_to=reply_to,
        correlation_id=correlation_id,
        held_up=held_up,
    )


def dead_letter(row: AnyRow) -> DeadLetter:
    return DeadLetter(
        dead_id=row.dead_id,
        task_id=row.task_id,
        algorithm=row.algorithm,
        code=FailureCode(row.code),
        message=row.message,
        traceback=row.traceback,
        body=row.body,
        headers=strict_json.loads(row.headers),
        history=history_from(row.history),
        created_at=row.created_at,
        replayed_at=row.replayed_at,
        discarded_at=row.discarded_at,
    )


DEAD_LETTER_COLUMNS = tuple(dead_letters.c)


def history_from(text: str | None) -> tuple[HistoryEntry, ...]:
    return _HISTORY.validate_json(text) if text else ()


def history_text(history: Sequence[HistoryEntry]) -> str | None:
    return clean(_HISTORY.dump_json(tuple(history)).decode()) if history else None


def clean(text: str) -> str:
    """Text that every database stores: no NUL (PostgreSQL refuses it), no lone surrogate (nobody can encode it)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)
