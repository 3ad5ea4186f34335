"""Dead letters in memory: writing them, lists of them, decisions on them."""

from dataclasses import replace

from runnerlib.contract import HistoryEntry, TaskState
from taskqueue.memory.tables import Entry, Tables, new_row
from taskqueue.messages import original
from taskqueue.replays import decided, objection, task_of
from taskqueue.tasks import DeadAnswer, DeadFilter, DeadLetter, DeadSummary, Failed, shortened


def write(tables: Tables, record: Failed, history: tuple[HistoryEntry, ...]) -> None:
    dead_id = next(tables.dead_ids)
    tables.dead_letters[dead_id] = DeadLetter(
        dead_id=dead_id,
        task_id=record.delivery.id,
        algorithm=record.delivery.algorithm,
        code=record.code,
        message=record.message,
        traceback=record.traceback,
        body=original(record.delivery),
        headers=record.delivery.headers,
        history=history,
        created_at=tables.clock.wall(),
    )


def fits(letter: DeadLetter, wanted: DeadFilter) -> bool:
    return (
        wanted.algorithm in (None, letter.algorithm)
        and (not wanted.codes or letter.code in wanted.codes)
        and wanted.task_id in (None, letter.task_id)
        and (wanted.created_from is None or letter.created_at >= wanted.created_from)
        and (wanted.created_before is None or letter.created_at < wanted.created_before)
        and not (wanted.waiting_only and decided(letter.replayed_at, letter.discarded_at))
    )


def summary(letter: DeadLetter) -> DeadSummary:
    return DeadSummary(
        dead_id=letter.dead_id,
        task_id=letter.task_id,
        algorithm=letter.algorithm,
        code=letter.code,
        message=shortened(letter.message),
        attempts=len(letter.history),
        created_at=letter.created_at,
        replayed_at=letter.replayed_at,
        discarded_at=letter.discarded_at,
    )


def discard(tables: Tables, dead_id: int) -> DeadAnswer:
    letter = tables.dead_letters.get(dead_id)
    if letter is None:
        return DeadAnswer.UNKNOWN
    answer = decided(letter.replayed_at, letter.discarded_at)
    if answer is None:
        tables.dead_letters[dead_id] = replace(letter, discarded_at=tables.clock.wall())
    return answer or DeadAnswer.DISCARDED


def replay(tables: Tables, dead_id: int) -> DeadAnswer:
    letter = tables.dead_letters.get(dead_id)
    if letter is None:
        return DeadAnswer.UNKNOWN
    answer = decided(letter.replayed_at, letter.discarded_at)
    if answer is not None:
        return answer
    task = task_of(letter)
    if task is None:
        return DeadAnswer.NOT_REPLAYABLE
    now = tables.clock.wall()
    entry = tables.entries.get(task.id)
    if entry is None:
        row = new_row(task, TaskState.QUEUED, task.attempt, now)
        tables.entries[task.id] = Entry(next(tables.sequence), replace(row, replays=1))
    else:
        row = entry.row
        answer = objection(task, digest=row.digest, state=row.state)
        if answer is not None:
            return answer
        fresh = new_row(
            replace(task, reply_to=row.reply_to, correlation_id=row.correlation_id),
            TaskState.QUEUED,
            max(task.attempt, row.attempt + 1),
            now,
        )
        entry.row = replace(fresh, created_at=row.created_at, replays=row.replays + 1)
        entry.available_at, entry.token, entry.delivery_count = 0.0, None, 0
    tables.dead_letters[dead_id] = replace(letter, replayed_at=now)
    return DeadAnswer.REPLAYED
