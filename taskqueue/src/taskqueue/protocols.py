"""The protocols. Every implementation passes the same conformance suite (`taskqueue/tests/conformance`).

A queue is a table (SQLite), whose waiting tasks can be swept, or a broker, which has an ingress queue for messages
of senders that do not use this package.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from taskqueue.tasks import (
    Arrival,
    CancelAnswer,
    Counts,
    DeadAnswer,
    DeadFilter,
    DeadLetter,
    DeadSummary,
    Delivery,
    NewTask,
    Page,
    Pause,
    Placement,
    Published,
    Record,
    Reply,
    Revived,
    TaskFilter,
    TaskRow,
    TaskSummary,
)
from taskqueue.tokens import EVERYTHING, AuditEntry, AuditFilter, AuditNote, Reach, Session, Token


class Feed(Protocol):
    """The tasks of one algorithm, flowing to one controller. One owner; close it when done."""

    async def set_prefetch(self, count: int, *, in_turn: int | None = None, group_slots: int | None = None) -> None:
        """The most tasks that may be out at the same time (buffered here, or taken and not yet settled). 0 pauses.

        `in_turn`: the same while groups take turns: what is out cannot be overtaken any more. `group_slots`: the most
        tasks of one group that may be out, over all feeds of the algorithm.
        """

    async def take(self, most: int) -> list[Delivery]:
        """Waits for at least one task, then returns up to `most`, oldest first.

        Raises QueueClosed once the feed or the queue is closed, also while it waits. Cancelling it loses nothing.
        """

    @property
    def trouble(self) -> str:
        """Why no tasks have come for some time; empty if all is well."""

    @property
    def has_groups(self) -> bool:
        """Whether groups take turns now: some of their tasks wait, or are out."""

    def waiting(self) -> int:
        """How many tasks are buffered here and not taken."""

    async def close(self) -> None:
        """Gives back what was not taken. What was taken is still to be settled by its taker."""


class TaskQueue(Protocol):
    """Tasks between their sender and a controller. At-least-once: what is not settled is delivered again.

    A delivered task is still `queued` or `retrying`; `TaskStore.place` makes it `running`.
    """

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        """Returns only when every task is durable. Raises QueueUnavailable; then each may have arrived or not.

        `durable=False` is for a caller that waits for the end of the task: as long as neither an outcome of it is
        recorded nor `flush` has returned, a power failure may undo it (a killed process never does).
        """

    async def flush(self) -> None:
        """Makes all that was published before durable. Raises QueueUnavailable."""

    async def feed(self, algorithm: str) -> Feed:
        """Opens the flow of one algorithm's tasks; nothing flows before `set_prefetch`."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges tasks whose outcome is committed in the store. An old receipt is ignored.

        Where queue and store are one table, a task acknowledged without an outcome becomes `cancelled`.
        """

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        """Puts attempt + 1 of each into the queue, durably, to be delivered after its delay. Does not acknowledge."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Gives tasks back that were not run; they are delivered again at once, without counting as redelivered."""

    async def reply(self, replies: Sequence[Reply]) -> None:
        """Sends replies, durably if their queues are durable; a reply whose queue is gone is lost.

        A queue that is a table has no reply queues and drops them.
        """


class Sweeper(Protocol):
    """Finds waiting tasks that no controller will take."""

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        """Takes expired tasks, and those whose algorithm is not in `known` that have waited since `unknown_before`.

        The caller tells them apart by `expires_at`.
        """


class IngressFeed(Protocol):
    """What other senders publish to a broker, tasks of algorithms without a queue yet, and the broker's dead letters.

    One owner; close it when done. An arrival is settled by `forward`, by `park`, or by `TaskQueue.ack` and `release`
    with a delivery that carries its receipt.
    """

    async def take(self, most: int) -> list[Arrival]:
        """Waits for at least one message. Raises QueueClosed once the door or the queue is closed."""

    async def forward(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Puts each into its algorithm's queue, which is made if it is missing; durably, then acknowledges it.

        `tasks[n]` is what was read from `arrivals[n]`; the message goes on as its sender wrote it, with its id.
        """

    async def park(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Puts each aside for some seconds; it comes back to the door, or to its algorithm's queue if there is one.

        `first_seen_at` is set once and kept.
        """

    async def close(self) -> None:
        """Gives back what was not taken."""


class TaskStore(Protocol):
    """What is known of every task. The first terminal state wins; only a replay may change it.

    A `note` is written to the audit in the transaction of what it tells of, unless nothing changes.
    """

    @property
    def tokens(self) -> "TokenStore":
        """Tokens and the audit, in the same database."""

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        """The rows of those ids that are known, by one SELECT."""

    async def get(self, task_id: str) -> TaskRow | None:
        """One row."""

    async def wait_finished(self, task_id: str, timeout_seconds: float, *, is_new: bool = False) -> TaskRow | None:
        """Returns the row as soon as it is terminal, or when the time is over; None if the id is unknown by then.

        Waits for an unknown id, too: its task may be on its way. `is_new`: it was queued a moment ago, so that its row
        need not be read before the wait.
        """

    async def rows_that_forbid_start(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        """The rows, by id, of those tasks that must not simply be started.

        These are tasks that have ended, carry a cancel mark, are at a runner, failed before, or whose row has another
        attempt or another content than the delivery. Others may be left out, as are unknown tasks.
        """

    async def record(self, records: Sequence[Record]) -> list[bool]:
        """Commits outcomes, all in one transaction. Fence: not terminal and row.attempt <= delivery.attempt.

        False for a record that the fence kept out. A row that does not exist yet is made from the delivery. A
        Retrying may come before or after the queue's `retry` of the same delivery. A Conflicting writes a dead letter
        and no row; it is always True.
        """

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        """Marks runs as running, with their runner and boot id, or as `queued` again; see `Placement`.

        Same fence. A row that does not exist yet is made from the delivery.
        """

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        """(id, attempt, fraction, message). Same fence."""

    async def cancel(self, task_id: str, *, reach: Reach = EVERYTHING, note: AuditNote | None = None) -> CancelAnswer:
        """Cancels a task durably: one that is cancelled before its message arrives never runs.

        It belongs to `reach.owner` then. UNKNOWN for one that `reach` does not include.
        """

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that carry a cancel mark or are cancelled: their runs are to be stopped."""

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        """Notes by algorithm why tasks wait although runners offer it; rows that wait show it as `pending_reason`.

        Drops the notes of the algorithms in `over`. A note that is not renewed for a minute is no longer shown, and is
        dropped with the next call.
        """

    async def pause(self, algorithm: str, by: str, *, note: AuditNote | None = None) -> Pause:
        """From now on controllers hand out no tasks of the algorithm; returns the pause, maybe an earlier one."""

    async def resume(self, algorithm: str, *, note: AuditNote | None = None) -> None:
        """Ends a pause, if there is one."""

    async def paused(self) -> dict[str, Pause]:
        """The paused algorithms."""

    async def counts(self, reach: Reach = EVERYTHING) -> list[Counts]:
        """Tasks by algorithm and state. A `reach` that includes others may leave out the caller's own tasks of
        algorithms that do not fit. Cheap enough for a metrics scrape, not for every request."""

    async def count_waiting(self, most: int, *, algorithm: str | None = None, submitted_by: str | None = None) -> int:
        """How many tasks of this algorithm, or of this token, wait; those beyond `most` are not counted."""

    async def list_tasks(self, wanted: TaskFilter, *, limit: int = 100, before: int | None = None) -> Page[TaskSummary]:
        """Newest first; `before` is the `next` of the previous page. Bounded work, however many rows there are."""

    async def dead_letters(
        self, wanted: DeadFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[DeadSummary]:
        """The same for dead letters; by default those that wait for a decision."""

    async def dead_letter(self, dead_id: int) -> DeadLetter | None:
        """One dead letter in full, also if it was replayed or discarded."""

    async def discard(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[DeadAnswer]:
        """Marks dead letters as discarded. They stay readable until retention drops them.

        UNKNOWN for those that `reach` does not include.
        """

    async def check_writing(self) -> None:
        """Writes something that changes nothing. Raises StoreUnavailable if nothing can be written: a full disk."""

    async def purge(self, finished_before: float, limit: int) -> int:
        """Drops up to `limit` rows that ended before that time, and dead letters that were decided on before it.

        Returns how many. Dead letters that wait for a decision are never dropped.
        """


class TokenStore(Protocol):
    """Tokens, and the audit of what callers have changed."""

    async def add(self, token: Token, note: AuditNote) -> Token:
        """Stores a token with a new key id; its `created_at` is set here."""

    async def get(self, key_id: str) -> Token | None:
        """Also one that has expired or was revoked."""

    async def list(self, *, limit: int = 100, before: int | None = None) -> Page[Token]:
        """All tokens, the newest first."""

    async def revoke(self, key_id: str, note: AuditNote) -> Token | None:
        """From now on it is not valid. None if there is none; one that was revoked before stays as it is."""

    async def used(self, key_id: str) -> None:
        """Notes that it is used; written at most once a minute."""

    async def open_session(self, session: Session, note: AuditNote) -> None:
        """Stores a session, and drops those that are over."""

    async def session(self, session_hash: str) -> Session | None:
        """Also one that is over, or whose token is."""

    async def end_session(self, session_hash: str) -> None:
        """From now on it is not there."""

    async def audit(
        self, wanted: AuditFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[AuditEntry]:
        """What was changed, the newest first."""

    async def purge_audit(self, created_before: float, limit: int) -> int:
        """Drops up to `limit` entries that are older than that time. Returns how many."""


class Replayer(Protocol):
    """Puts failed tasks back into the queue: a table in one transaction, a broker with the help of a Ledger."""

    async def replay(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[DeadAnswer]:
        """Runs each one's task again under its own id: `replays` + 1, attempt + 1, fresh retry budgets, no expiry.

        It goes on to belong to the token that submitted it. UNKNOWN for those that `reach` does not include.

        Returns when they are durable. Raises QueueUnavailable or StoreUnavailable; repeating the call then runs no task
        twice.
        """


class Ledger(Protocol):
    """The part of a store that a broker's publishers need: the queue is not in the database, the row is."""

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]: ...

    async def admit(self, tasks: Sequence[NewTask]) -> list[Published]:
        """Inserts `queued` rows for unknown tasks. A tombstone takes its task's content."""

    def sealed(self, task: NewTask) -> NewTask:
        """The task with the proof of its owner that its message carries, if it has an owner."""

    async def revive(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[Revived]:
        """Makes the failed tasks of these dead letters `queued`, with the next attempt's number.

        A row that retention dropped is made again from the dead letter. Until `mark_replayed`, repeating the call
        returns the same attempt: the message may or may not have been sent.
        """

    async def mark_replayed(self, dead_ids: Sequence[int]) -> None:
        """Marks dead letters as replayed, once their tasks are in the queue."""
