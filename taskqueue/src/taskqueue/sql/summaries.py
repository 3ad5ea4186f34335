"""Lists of tasks and of dead letters: their lines, and what is looked for."""

from sqlalchemy import ColumnElement, and_, func

from runnerlib.contract import FailureCode, Progress, TaskState
from taskqueue.shortening import MOST_CHARACTERS, shortened
from taskqueue.sql.rows import HELD_UP, AnyRow, history_from
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.sql.walking import Walk
from taskqueue.tasks import DeadFilter, DeadSummary, TaskFilter, TaskSummary

_MOST = MOST_CHARACTERS + 1

#: The columns of a TaskSummary, in the order `task_summary` reads them.
TASK_SUMMARY_COLUMNS: tuple[ColumnElement[object], ...] = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.algorithm,
    tasks.c.state,
    tasks.c.attempt,
    tasks.c.created_at,
    tasks.c.updated_at,
    tasks.c.finished_at,
    tasks.c.expires_at,
    tasks.c.error_code,
    func.substr(tasks.c.error_message, 1, _MOST),
    tasks.c.runner,
    tasks.c.cancel_requested,
    tasks.c.progress_fraction,
    tasks.c.progress_message,
    tasks.c.replays,
    HELD_UP,
)
#: The columns of a DeadSummary, in the order `dead_summary` reads them.
DEAD_SUMMARY_COLUMNS: tuple[ColumnElement[object], ...] = (
    dead_letters.c.dead_id,
    dead_letters.c.task_id,
    dead_letters.c.algorithm,
    dead_letters.c.code,
    func.substr(dead_letters.c.message, 1, _MOST),
    dead_letters.c.history,
    dead_letters.c.created_at,
    dead_letters.c.replayed_at,
    dead_letters.c.discarded_at,
)


def wanted_tasks(wanted: TaskFilter) -> Walk[TaskSummary]:
    # a tombstone, cancelled before anybody has seen its task, has no digest
    conditions: list[ColumnElement[bool]] = [tasks.c.digest != ""]
    if wanted.algorithm is not None:
        conditions.append(tasks.c.algorithm == wanted.algorithm)
    if wanted.states:
        conditions.append(tasks.c.state.in_(sorted(state.value for state in wanted.states)))
    return Walk(tasks, TASK_SUMMARY_COLUMNS, task_summary, conditions, wanted.created_from, wanted.created_before)


def wanted_dead_letters(wanted: DeadFilter) -> Walk[DeadSummary]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.algorithm is not None:
        conditions.append(dead_letters.c.algorithm == wanted.algorithm)
    if wanted.codes:
        conditions.append(dead_letters.c.code.in_(sorted(code.value for code in wanted.codes)))
    if wanted.task_id is not None:
        conditions.append(dead_letters.c.task_id == wanted.task_id)
    if wanted.waiting_only:
        conditions.append(and_(dead_letters.c.replayed_at.is_(None), dead_letters.c.discarded_at.is_(None)))
    return Walk(
        dead_letters,
        DEAD_SUMMARY_COLUMNS,
        dead_summary,
        conditions,
        wanted.created_from,
        wanted.created_before,
        few=wanted.task_id is not None,
    )


def task_summary(row: AnyRow) -> TaskSummary:
    seq, task_id, algorithm, state, attempt, created_at, updated_at, finished_at, expires_at, *rest = row
    error_code, error_message, runner, cancel_requested, fraction, progress_message, replays, held_up = rest
    return TaskSummary(
        seq=seq,
        id=task_id,
        algorithm=algorithm,
        state=TaskState(state),
        attempt=attempt,
        created_at=created_at,
        updated_at=updated_at,
        finished_at=finished_at,
        expires_at=expires_at,
        error_code=None if error_code is None else FailureCode(error_code),
        error_message=None if error_message is None else shortened(error_message),
        runner=runner,
        cancel_requested=cancel_requested,
        progress=None if fraction is None else Progress(fraction=fraction, message=progress_message),
        replays=replays,
        held_up=held_up,
    )


def dead_summary(row: AnyRow) -> DeadSummary:
    dead_id, task_id, algorithm, code, message, history, created_at, replayed_at, discarded_at = row
    return DeadSummary(
        dead_id=dead_id,
        task_id=task_id,
        algorithm=algorithm,
        code=FailureCode(code),
        message=shortened(message),
        attempts=len(history_from(history)),
        created_at=created_at,
        replayed_at=replayed_at,
        discarded_at=discarded_at,
    )
