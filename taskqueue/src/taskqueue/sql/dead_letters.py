"""Decisions on dead letters: replay and discard. Runs inside a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, null, select, update

from runnerlib.contract import TaskState
from taskqueue.replays import decided, objection, task_of
from taskqueue.sql.queries import execute
from taskqueue.sql.rows import DEAD_LETTER_COLUMNS, dead_letter
from taskqueue.sql.statements import INSERT_NEW
from taskqueue.sql.tables import dead_letters, tasks
from taskqueue.tasks import DeadAnswer, DeadLetter, NewTask, Revived

#: The highest id that a column holds; anybody may ask for a higher one.
_HIGHEST_ID = 2**63 - 1

_these = dead_letters.c.dead_id.in_(bindparam("the_ids", expanding=True))
ONE = select(*DEAD_LETTER_COLUMNS).where(dead_letters.c.dead_id == bindparam("the_id"))
#: Locked in one order everywhere, so that two processes never wait for one another: letters first, then tasks.
LETTERS = select(*DEAD_LETTER_COLUMNS).where(_these).order_by(dead_letters.c.dead_id).with_for_update()
DECISIONS = (
    select(
        dead_letters.c.dead_id,
        dead_letters.c.task_id,
        dead_letters.c.replayed_at,
        dead_letters.c.discarded_at,
        dead_letters.c.replay_attempt,
    )
    .where(_these)
    .order_by(dead_letters.c.dead_id)
    .with_for_update()
)
ROWS = (
    select(tasks.c.id, tasks.c.digest, tasks.c.state, tasks.c.attempt, tasks.c.reply_to, tasks.c.correlation_id)
    .where(tasks.c.id.in_(bindparam("the_ids", expanding=True)))
    .order_by(tasks.c.id)
    .with_for_update()
)

#: A fresh start under the old id: only the count of attempts goes on.
REVIVE = (
    update(tasks)
    .where((tasks.c.id == bindparam("the_id")) & (tasks.c.state == TaskState.FAILED.value))
    .values(
        state=TaskState.QUEUED.value,
        attempt=bindparam("new_attempt"),
        replays=tasks.c.replays + 1,
        available_at=0.0,
        receipt=null(),
        delivery_count=0,
        updated_at=bindparam("new_now"),
        finished_at=null(),
        expires_at=null(),
        result=null(),
        error_code=null(),
        error_message=null(),
        history=null(),
        placed_attempt=null(),
        placed_runner=null(),
        placed_boot=null(),
        runner=null(),
        cancel_requested=False,
        progress_fraction=null(),
        progress_message=null(),
    )
)
#: Returns nothing for an id that is known.
_INSERT = MappingProxyType({dialect: statement.returning(tasks.c.id) for dialect, statement in INSERT_NEW.items()})
BEGIN_REPLAY = (
    update(dead_letters)
    .where(dead_letters.c.dead_id == bindparam("the_id"))
    .values(replay_attempt=bindparam("new_attempt"))
)
MARK_REPLAYED = (
    update(dead_letters).where(_these & dead_letters.c.replayed_at.is_(None)).values(replayed_at=bindparam("new_now"))
)
DISCARD = update(dead_letters).where(_these).values(discarded_at=bindparam("new_now"))
#: A replay was begun, and its message may never have gone out: nobody else would ever end this row.
CANCEL_BEGUN = (
    update(tasks)
    .where(
        (tasks.c.id == bindparam("the_id"))
        & (tasks.c.state == TaskState.QUEUED.value)
        & (tasks.c.attempt == bindparam("the_attempt"))
    )
    .values(
        state=TaskState.CANCELLED.value,
        available_at=null(),
        receipt=null(),
        updated_at=bindparam("new_now"),
        finished_at=bindparam("new_now"),
    )
)


@dataclass(slots=True)
class _Letter:
    letter: DeadLetter
    #: the attempt of a replay that was begun and not finished
    begun: int | None
    #: what its message asks for
    task: NewTask | None


@dataclass(slots=True)
class _Row:
    digest: str
    state: TaskState
    attempt: int
    reply_to: str | None = None
    correlation_id: str | None = None


def read_one(connection: Connection, dead_id: int) -> DeadLetter | None:
    row = connection.execute(ONE, {"the_id": dead_id}).first() if _can_exist(dead_id) else None
    return None if row is None else dead_letter(row)


def discard(connection: Connection, dead_ids: Sequence[int], now: float) -> dict[int, DeadAnswer]:
    """What became of each. The task of one whose replay was cut short is cancelled."""
    found = connection.execute(DECISIONS, {"the_ids": _possible(dead_ids)}).all()
    before = {row.dead_id: decided(row.replayed_at, row.discarded_at) for row in found}
    waiting = [dead_id for dead_id, answer in before.items() if answer is None]
    if waiting:
        execute(connection, DISCARD, {"the_ids": waiting, "new_now": now})
    begun = sorted(
        (row.task_id, row.replay_attempt)
        for row in found
        if before[row.dead_id] is None and row.replay_attempt is not None
    )
    if begun:
        values = [{"the_id": task_id, "the_attempt": attempt, "new_now": now} for task_id, attempt in begun]
        connection.execute(CANCEL_BEGUN, values)
    answers = dict.fromkeys(dead_ids, DeadAnswer.UNKNOWN)
    return answers | {dead_id: answer or DeadAnswer.DISCARDED for dead_id, answer in before.items()}


def replay(connection: Connection, dead_ids: Sequence[int], now: float) -> dict[int, Revived]:
    """Where the row is the queue entry: all of it."""
    revived = revive(connection, dead_ids, now)
    mark_replayed(connection, [dead_id for dead_id, each in revived.items() if each.answer is DeadAnswer.REPLAYED], now)
    return revived


def revive(
    connection: Connection, dead_ids: Sequence[int], now: float, *, most_payload_bytes: int | None = None
) -> dict[int, Revived]:
    """See `taskqueue.protocols.Ledger`. A payload above the limit is none that can be sent."""
    rows = connection.execute(LETTERS, {"the_ids": _possible(dead_ids)}).all()
    letters = {row.dead_id: _read(dead_letter(row), row.replay_attempt, most_payload_bytes) for row in rows}
    reviver = _Reviver(connection, [each.task.id for each in letters.values() if each.task is not None], now)
    answers = {}
    for dead_id in dict.fromkeys(dead_ids):
        letter = letters.get(dead_id)
        answers[dead_id] = Revived(DeadAnswer.UNKNOWN) if letter is None else reviver.revive(letter)
    reviver.write()
    return answers


def mark_replayed(connection: Connection, dead_ids: Sequence[int], now: float) -> None:
    if dead_ids:
        execute(connection, MARK_REPLAYED, {"the_ids": _possible(dead_ids), "new_now": now})


def _read(letter: DeadLetter, begun: int | None, most_payload_bytes: int | None) -> _Letter:
    task = task_of(letter)
    if task is not None and most_payload_bytes is not None and len(task.payload) > most_payload_bytes:
        task = None
    return _Letter(letter, begun, task)


class _Reviver:
    """Decides on one letter after the other, with the rows of their tasks locked; what follows is written at the end,
    in as few statements as possible: each is a way to the server and back."""

    def __init__(self, connection: Connection, ids: Sequence[str], now: float) -> None:
        self._connection = connection
        self._now = now
        self._rows = _lock_rows(connection, ids)
        self._revivals: list[dict[str, Any]] = []
        self._begun: list[dict[str, Any]] = []
        self._finished: list[int] = []

    def revive(self, letter: _Letter) -> Revived:
        answer = decided(letter.letter.replayed_at, letter.letter.discarded_at)
        if answer is not None:
            return Revived(answer)
        if letter.task is None:
            return Revived(DeadAnswer.NOT_REPLAYABLE)
        row = self._rows.get(letter.task.id)
        if row is None:
            return self._make_anew(letter, letter.task)
        task = replace(letter.task, reply_to=row.reply_to, correlation_id=row.correlation_id)
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
            self._connection.execute(REVIVE, self._revivals)
        if self._begun:
            self._connection.execute(BEGIN_REPLAY, self._begun)
        mark_replayed(self._connection, self._finished, self._now)

    def _make_anew(self, letter: _Letter, task: NewTask) -> Revived:
        """Retention has dropped the row."""
        task = replace(task, attempt=max(task.attempt, letter.begun or 0))
        insert = _INSERT[self._connection.dialect.name]
        if self._connection.scalar(insert, _new_row(task, self._now)) is None:
            # it came into being at this moment: by a replay of another dead letter, or because it was sent again
            return Revived(DeadAnswer.NOT_FAILED)
        self._rows[task.id] = _Row(task.digest, TaskState.QUEUED, task.attempt)
        return self._begin(letter, task)

    def _finish(self, letter: _Letter, attempt: int, task: NewTask, row: _Row) -> Revived:
        """A replay that was begun before: where the task has gone on since, only its mark is missing."""
        if row.state is TaskState.QUEUED and row.attempt == attempt:
            # nobody knows whether its message went out
            return Revived(DeadAnswer.REPLAYED, replace(task, attempt=attempt))
        self._finished.append(letter.letter.dead_id)
        return Revived(DeadAnswer.ALREADY_REPLAYED)

    def _begin(self, letter: _Letter, task: NewTask) -> Revived:
        self._begun.append({"the_id": letter.letter.dead_id, "new_attempt": task.attempt})
        return Revived(DeadAnswer.REPLAYED, task)


def _lock_rows(connection: Connection, ids: Sequence[str]) -> dict[str, _Row]:
    if not ids:
        return {}
    rows = connection.execute(ROWS, {"the_ids": list(dict.fromkeys(ids))}).all()
    return {
        row.id: _Row(row.digest, TaskState(row.state), row.attempt, row.reply_to, row.correlation_id) for row in rows
    }


def _new_row(task: NewTask, now: float) -> dict[str, Any]:
    return {
        "id": task.id,
        "algorithm": task.algorithm,
        "payload": task.payload,
        "digest": task.digest,
        "state": TaskState.QUEUED.value,
        "attempt": task.attempt,
        "replays": 1,
        "available_at": 0.0,
        "created_at": now,
        "updated_at": now,
    }


def _possible(dead_ids: Sequence[int]) -> list[int]:
    return [dead_id for dead_id in dead_ids if _can_exist(dead_id)]


def _can_exist(dead_id: int) -> bool:
    return 0 < dead_id <= _HIGHEST_ID
