"""Between rows and the frozen data of `taskqueue.tasks`."""

from collections.abc import Sequence
from typing import Any, TypeAlias, Unpack

from pydantic import TypeAdapter
from sqlalchemy import Row

from runnerlib.contract import FailureCode, HistoryEntry, Progress, TaskState, strict_json
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.tasks import DeadLetter, Placement, TaskRow

#: The columns of a TaskRow, in the order `task_row` reads them.
TASK_COLUMNS = (
    tasks.c.id,
    tasks.c.algorithm,
    tasks.c.payload,
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
)

#: A row of any columns.
AnyRow: TypeAlias = "Row[Unpack[tuple[Any, ...]]]"

_HISTORY: TypeAdapter[tuple[HistoryEntry, ...]] = TypeAdapter(tuple[HistoryEntry, ...])


def task_row(row: AnyRow) -> TaskRow:
    return TaskRow(
        id=row.id,
        algorithm=row.algorithm,
        payload=row.payload,
        digest=row.digest,
        state=TaskState(row.state),
        attempt=row.attempt,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        result=row.result,
        error_code=FailureCode(row.error_code) if row.error_code else None,
        error_message=row.error_message,
        history=history_from(row.history),
        placement=_placement(row),
        runner=row.runner,
        cancel_requested=row.cancel_requested,
        progress=_progress(row),
        replays=row.replays,
        reply_to=row.reply_to,
        correlation_id=row.correlation_id,
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


def _placement(row: AnyRow) -> Placement | None:
    if row.placed_attempt is None:
        return None
    return Placement(id=row.id, attempt=row.placed_attempt, runner=row.placed_runner, boot=row.placed_boot)


def _progress(row: AnyRow) -> Progress | None:
    if row.progress_fraction is None:
        return None
    return Progress(fraction=row.progress_fraction, message=row.progress_message or "")
