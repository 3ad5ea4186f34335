"""What the queue and the store in memory share."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from runnerlib.contract import TaskState
from taskqueue.clock import Clock
from taskqueue.feed import LeaseTable, PullFeed
from taskqueue.tasks import DeadLetter, Delivery, NewTask, TaskRow, notes_valid_since
from taskqueue.waiters import Waiters

WAITING = (TaskState.QUEUED, TaskState.RETRYING)


@dataclass(slots=True)
class Entry:
    """A row and its place in the queue; `available_at` is 0 for at once and None once the task has ended."""

    seq: int
    row: TaskRow
    available_at: float | None = 0.0
    token: int | None = None
    delivery_count: int = 0

    @property
    def waits_since(self) -> float:
        """A replayed task has begun anew."""
        return self.row.updated_at if self.row.replays else self.row.created_at

    @property
    def ended(self) -> bool:
        return self.row.state.is_terminal


@dataclass(slots=True)
class Tables:
    """The rows, and who is to be told when one of them changes."""

    clock: Clock
    entries: dict[str, Entry] = field(default_factory=dict)
    #: by dead id, in their order
    dead_letters: dict[int, DeadLetter] = field(default_factory=dict)
    dead_ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    sequence: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    outstanding: LeaseTable = field(default_factory=LeaseTable)
    waiters: Waiters = field(default_factory=Waiters)
    feeds: set[PullFeed] = field(default_factory=set)
    #: by algorithm: why its tasks wait, and when that was noted
    notes: dict[str, tuple[str, float]] = field(default_factory=dict)

    def shown(self, entry: Entry) -> TaskRow:
        """The row as whoever asks for it sees it."""
        note, noted_at = self.notes.get(entry.row.algorithm, ("", 0.0))
        is_shown = note and entry.row.state in WAITING and noted_at >= notes_valid_since(self.clock.wall())
        return replace(entry.row, held_up=note) if is_shown else entry.row

    def arrived(self, algorithms: Collection[str]) -> None:
        for feed in self.feeds:
            if feed.algorithm in algorithms:
                feed.arrived()

    def change(self, entry: Entry, **changes: Any) -> None:
        entry.row = replace(entry.row, updated_at=self.clock.wall(), **changes)

    def end(self, entry: Entry, state: TaskState, **changes: Any) -> None:
        self.change(entry, state=state, finished_at=self.clock.wall(), **changes)
        entry.available_at = entry.token = None
        self.waiters.ended([entry.row.id])

    def next_attempt(self, entry: Entry, attempt: int, available_at: float) -> None:
        self.change(entry, state=TaskState.RETRYING, attempt=attempt, placement=None, progress=None)
        entry.available_at, entry.token, entry.delivery_count = available_at, None, 0


def new_row(task: NewTask | Delivery, state: TaskState, attempt: int, now: float) -> TaskRow:
    return TaskRow(
        id=task.id,
        algorithm=task.algorithm,
        payload=task.payload,
        digest=task.digest,
        state=state,
        attempt=attempt,
        created_at=now,
        updated_at=now,
        expires_at=task.expires_at,
        reply_to=task.reply_to,
        correlation_id=task.correlation_id,
    )
