"""Lists of tasks in memory."""

from taskqueue.memory.tables import Entry
from taskqueue.tasks import TaskFilter, TaskRow, TaskSummary, shortened


def fits(entry: Entry, wanted: TaskFilter) -> bool:
    row = entry.row
    return (
        # a tombstone, cancelled before anybody has seen its task, has no digest
        row.digest != ""
        and wanted.algorithm in (None, row.algorithm)
        and (not wanted.states or row.state in wanted.states)
        and (wanted.created_from is None or row.created_at >= wanted.created_from)
        and (wanted.created_before is None or row.created_at < wanted.created_before)
    )


def summary(entry: Entry, row: TaskRow) -> TaskSummary:
    """`row` is the entry's, as it is shown."""
    return TaskSummary(
        seq=entry.seq,
        id=row.id,
        algorithm=row.algorithm,
        state=row.state,
        attempt=row.attempt,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        error_code=row.error_code,
        error_message=None if row.error_message is None else shortened(row.error_message),
        runner=row.runner,
        cancel_requested=row.cancel_requested,
        progress=row.progress,
        replays=row.replays,
        held_up=row.held_up,
    )
