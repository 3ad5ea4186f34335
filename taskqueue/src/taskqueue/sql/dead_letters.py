"""Decisions on dead letters: replay and discard. Runs inside a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, null, select, update

from runnerlib.contract import FailureCode, TaskState, strict_json
from taskqueue.messages import parse_history
from taskqueue.replays import decided, objection, task_of
from taskqueue.sql import audit
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.statements import CANCELLED, CLAIMABLE, IN_TURN, INSERT_ONE, NEXT_ATTEMPT, NOW_CLAIMABLE, execute
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.tasks import DeadAnswer, DeadLetter, NewTask, Revived
from taskqueue.tokens import AuditNote, Reach

#: The highest id that a column holds; a caller may ask for a higher one.
_HIGHEST_ID = 2**63 - 1

_this = dead_letters.c.dead_id == bindparam("the_id")
_these = dead_letters.c.dead_id.in_(bindparam("the_ids", expanding=True))
_ONE = select(dead_letters).where(_this)
#: Locked in one order everywhere, so that two processes never wait for one another: letters first, then tasks.
_LOCK_LETTERS = select(dead_letters).where(_these).order_by(dead_letters.c.dead_id).with_for_update()
#: The same without their contents.
_LOCK_DECISIONS = _LOCK_LETTERS.with_only_columns(
    dead_letters.c.dead_id,
    dead_letters.c.task_id,
    dead_letters.c.replayed_at,
    dead_letters.c.discarded_at,
    dead_letters.c.replay_attempt,
    dead_letters.c.algorithm,
    dead_letters.c.submitted_by,
)
_LOCK_TASKS = (
    select(
        tasks.c.id,
        tasks.c.digest,
        tasks.c.state,
        tasks.c.attempt,
        tasks.c.reply_to,
        tasks.c.correlation_id,
        tasks.c.task_group,
    )
    .where(tasks.c.id.in_(bindparam("the_ids", expanding=True)))
    .order_by(tasks.c.id)
    .with_for_update()
)
#: A fresh start under the old id: only the count of attempts goes on.
_REVIVE = (
    update(tasks)
    .where((tasks.c.id == bindparam("the_id")) & (tasks.c.state == TaskState.FAILED.value))
    .values(
        **NEXT_ATTEMPT,
        state=TaskState.QUEUED.value,
        replays=tasks.c.replays + 1,
        available_at=CLAIMABLE,
        finished_at=null(),
        expires_at=null(),
        not_before=null(),
        result=null(),
        error_code=null(),
        error_message=null(),
        history=null(),
        runner=null(),
        cancel_requested=False,
    )
)
_BEGIN_REPLAY = update(dead_letters).where(_this).values(replay_attempt=bindparam("new_attempt"))
_MARK_REPLAYED = (
    update(dead_letters).where(_these & dead_letters.c.replayed_at.is_(None)).values(replayed_at=bindparam("new_now"))
)
_DISCARD = update(dead_letters).where(_these).values(discarded_at=bindparam("new_now"))
#: A replay was begun, and its message may never have been sent: nothing else would ever end this row.
_CANCEL_BEGUN = (
    update(tasks)
    .where(
        (tasks.c.id == bindparam("the_id"))
        & (tasks.c.state == TaskState.QUEUED.value)
        & (tasks.c.attempt == bindparam("the_attempt"))
    )
    .values(**CANCELLED)
)


def read_one(connection: Connection, dead_id: int) -> DeadLetter | None:
    row = connection.execute(_ONE, {"the_id": dead_id}).first() if _can_exist(dead_id) else None
    return None if row is None else _dead_letter(row)


def discard(
    connection: Connection, dead_ids: Sequence[int], now: float, reach: Reach, note: AuditNote | None
) -> dict[int, DeadAnswer]:
    """Discards those that wait for a decision. Cancels the task of one whose replay was begun and not finished."""
    locked = connection.execute(_LOCK_DECISIONS, {"the_ids": _possible(dead_ids)}).all()
    found = [row for row in locked if reach.includes(row.submitted_by, row.algorithm)]
    before = {row.dead_id: decided(row.replayed_at, row.discarded_at) for row in found}
    waiting = [row for row in found if before[row.dead_id] is None]
    if waiting:
        execute(connection, _DISCARD, {"the_ids": [row.dead_id for row in waiting], "new_now": now})
    begun = sorted((row.task_id, row.replay_attempt) for row in waiting if row.replay_attempt is not None)
    if begun:
        values = [{"the_id": task_id, "the_attempt": attempt, "new_now": now} for task_id, attempt in begun]
        connection.execute(_CANCEL_BEGUN, values)
    audit.write(connection, note, [row.dead_id for row in waiting], now)
    answers = dict.fromkeys(dead_ids, DeadAnswer.UNKNOWN)
    return answers | {dead_id: answer or DeadAnswer.DISCARDED for dead_id, answer in before.items()}


def revive(
    connection: Connection,
    dead_ids: Sequence[int],
    now: float,
    reach: Reach,
    note: AuditNote | None,
    *,
    max_payload_bytes: int | None = None,
) -> dict[int, Revived]:
    """See `taskqueue.protocols.Ledger`. A dead letter whose payload is above the limit cannot be replayed."""
    rows = connection.execute(_LOCK_LETTERS, {"the_ids": _possible(dead_ids)}).all()
    reached = [row for row in rows if reach.includes(row.submitted_by, row.algorithm)]
    letters = {row.dead_id: _letter(row, max_payload_bytes) for row in reached}
    reviver = _Reviver(connection, [each.task.id for each in letters.values() if each.task is not None], now)
    answers = {}
    for dead_id in dict.fromkeys(dead_ids):
        letter = letters.get(dead_id)
        answers[dead_id] = Revived(DeadAnswer.UNKNOWN) if letter is None else reviver.revive(letter)
    reviver.write()
    audit.write(connection, note, [dead_id for dead_id, each in answers.items() if each.task is not None], now)
    return answers


def mark_replayed(connection: Connection, dead_ids: Sequence[int], now: float) -> None:
    if dead_ids:
        execute(connection, _MARK_REPLAYED, {"the_ids": _possible(dead_ids), "new_now": now})


@dataclass(frozen=True, slots=True)
class _Letter:
    dead_id: int
    #: what was decided on it before
    decided: DeadAnswer | None
    #: the attempt of a replay that was begun and not finished
    begun: int | None
    #: what its message asks for, if it can be a task
    task: NewTask | None


def _letter(row: AnyRow, max_payload_bytes: int | None) -> _Letter:
    task = task_of(_dead_letter(row))
    if task is not None and max_payload_bytes is not None and len(task.payload) > max_payload_bytes:
        task = None
    return _Letter(row.dead_id, decided(row.replayed_at, row.discarded_at), row.replay_attempt, task)


@dataclass(slots=True)
class _TaskState:
    digest: str
    state: TaskState
    attempt: int
    reply_to: str | None = None
    correlation_id: str | None = None
    group: str | None = None


class _Reviver:
    """Decides on one letter after the other, with the rows of their tasks locked.

    What follows is written at the end, in as few statements as possible: each is a round trip to the server.
    """

    def __init__(self, connection: Connection, ids: Sequence[str], now: float) -> None:
        self._connection = connection
        self._now = now
        rows = connection.execute(_LOCK_TASKS, {"the_ids": list(dict.fromkeys(ids))}).all() if ids else ()
        self._tasks = {row[0]: _TaskState(row[1], TaskState(row[2]), *row[3:]) for row in rows}
        self._revivals: list[dict[str, Any]] = []
        self._begun: list[dict[str, Any]] = []
        self._finished: list[int] = []

    def revive(self, letter: _Letter) -> Revived:
        if letter.decided is not None:
            return Revived(letter.decided)
        if letter.task is None:
            return Revived(DeadAnswer.NOT_REPLAYABLE)
        row = self._tasks.get(letter.task.id)
        if row is None:
            return self._insert(letter, letter.task)
        task = replace(letter.task, reply_to=row.reply_to, correlation_id=row.correlation_id, group=row.group)
        if letter.begun is not None and row.digest == task.digest and row.attempt >= letter.begun:
            return self._finish(letter, letter.begun, task, row)
        answer = objection(task, digest=row.digest, state=row.state)
        if answer is not None:
            return Revived(answer)
        row.attempt, row.state = max(task.attempt, row.attempt + 1), TaskState.QUEUED
        self._revivals.append({"the_id": task.id, "new_attempt": row.attempt, "new_now": self._now})
        return self._begin(letter, replace(task, attempt=row.attempt))

    def write(self) -> None:
        if self._revivals:
            self._connection.execute(_REVIVE, self._revivals)
        if self._begun:
            self._connection.execute(_BEGIN_REPLAY, self._begun)
        mark_replayed(self._connection, self._finished, self._now)

    def _insert(self, letter: _Letter, task: NewTask) -> Revived:
        """Retention has dropped the row."""
        task = replace(task, attempt=max(task.attempt, letter.begun or 0))
        new_row = {
            "id": task.id,
            "algorithm": task.algorithm,
            "payload": task.payload,
            "digest": task.digest,
            "state": TaskState.QUEUED.value,
            "attempt": task.attempt,
            "replays": 1,
            "available_at": NOW_CLAIMABLE if task.group is None else IN_TURN,
            "created_at": self._now,
            "updated_at": self._now,
            "submitted_by": task.submitted_by,
            "task_group": task.group,
        }
        if self._connection.scalar(INSERT_ONE[self._connection.dialect.name], new_row) is None:
            # just inserted by others: a replay of another dead letter, or a sender that sent the task again
            return Revived(DeadAnswer.NOT_FAILED)
        self._tasks[task.id] = _TaskState(task.digest, TaskState.QUEUED, task.attempt)
        return self._begin(letter, task)

    def _finish(self, letter: _Letter, attempt: int, task: NewTask, row: _TaskState) -> Revived:
        """A replay was begun before. If the task has gone on since, only the letter's mark is missing."""
        if row.state is TaskState.QUEUED and row.attempt == attempt:
            # its message may or may not have been sent
            return Revived(DeadAnswer.REPLAYED, replace(task, attempt=attempt))
        self._finished.append(letter.dead_id)
        return Revived(DeadAnswer.ALREADY_REPLAYED)

    def _begin(self, letter: _Letter, task: NewTask) -> Revived:
        self._begun.append({"the_id": letter.dead_id, "new_attempt": task.attempt})
        return Revived(DeadAnswer.REPLAYED, task)


def _dead_letter(row: AnyRow) -> DeadLetter:
    values = dict(row._mapping)
    del values["replay_attempt"]
    values["code"] = FailureCode(row.code)
    values["headers"] = strict_json.loads(row.headers)
    values["history"] = parse_history(row.history)
    return DeadLetter(**values)


def _possible(dead_ids: Sequence[int]) -> list[int]:
    return [dead_id for dead_id in dead_ids if _can_exist(dead_id)]


def _can_exist(dead_id: int) -> bool:
    return 0 < dead_id <= _HIGHEST_ID
