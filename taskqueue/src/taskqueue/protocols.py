"""The protocols. Every implementation passes the same conformance suite (`taskqueue/tests/conformance`).

A queue is a table (memory, SQLite), whose waiting tasks can be swept, or a broker, with a front door for strangers.
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
    Placement,
    Published,
    Record,
    Reply,
    Revived,
    TaskFilter,
    TaskRow,
    TaskSummary,
)


class Feed(Protocol):
    """The tasks of one algorithm, flowing to one controller. One owner; close it when done."""

    async def set_prefetch(self, count: int) -> None:
        """Most tasks that may be out at the same time (buffered here or taken, not yet settled). 0 pauses."""

    async def take(self, most: int) -> list[Delivery]:
        """Waits until at least one task is here, then gives up to `most`, oldest first.

        Raises QueueClosed once the feed or the queue is closed, also when it was waiting. Cancelling it loses nothing.
        """

    @property
    def trouble(self) -> str:
        """Why nothing flows for some time now; empty when it does."""

    def waiting(self) -> int:
        """Tasks that are here, fetched but not taken."""

    async def close(self) -> None:
        """Gives back what was not taken. What was taken is still its taker's to settle."""


class TaskQueue(Protocol):
    """Tasks between their sender and a controller. At-least-once: what is not settled is handed out again.

    A task that is handed out is still `queued` or `retrying`: it runs once `TaskStore.place` says so.
    """

    async def publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        """Returns only when every task is durable. Raises QueueUnavailable; then nothing is known of any of them."""

    async def feed(self, algorithm: str) -> Feed:
        """Opens the flow of one algorithm's tasks; nothing flows before `set_prefetch`."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done: their outcome is committed in the store. An old receipt is ignored.

        Where queue and store are one table, a task acknowledged without an outcome becomes `cancelled`.
        """

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        """Puts attempt + 1 of each back into the queue, durably, to be handed out after its delay. Not acknowledged."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hands these back unrun and uncounted, to be handed out again at once (to anybody)."""

    async def reply(self, replies: Sequence[Reply]) -> None:
        """Sends answers, durably as far as their receivers are; one whose receiver is gone is lost.

        A queue that is a table has no reply queues and drops them.
        """


class Sweeper(Protocol):
    """Something that sees waiting tasks before they are handed out."""

    async def sweep(self, known: Collection[str], unknown_before: float, limit: int) -> list[Delivery]:
        """Takes waiting tasks that nobody will take: expired ones, and those whose algorithm is not in `known` and
        that have waited since before `unknown_before`. The caller tells them apart by `expires_at`."""


class FrontDoor(Protocol):
    """Where a broker brings what strangers send, tasks of algorithms that nobody serves yet, and its own dead letters.

    One owner; close it when done. An arrival is settled by `forward`, by `park`, or by `TaskQueue.ack` and `release`
    with a delivery that carries its receipt.
    """

    async def take(self, most: int) -> list[Arrival]:
        """Waits until something is here. Raises QueueClosed once the door or the queue is closed."""

    async def forward(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Puts each into its algorithm's queue, which is made when it is missing; durable, then acknowledged.

        `tasks[n]` is what was read from `arrivals[n]`; the message goes on as its sender wrote it, with its id.
        """

    async def park(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Puts each aside for some seconds; it comes again, to the door or to its algorithm's queue if there is one.

        `first_seen_at` is set once and kept.
        """

    async def close(self) -> None:
        """Gives back what was not taken."""


class TaskStore(Protocol):
    """What is known of every task. First terminal state wins; only a replay may change it."""

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]:
        """Rows of the ids that are known, in one SELECT."""

    async def get(self, task_id: str) -> TaskRow | None:
        """One row."""

    async def wait_finished(self, task_id: str, timeout_seconds: float) -> TaskRow | None:
        """The row, as soon as it is terminal or when the time is over; None when the id is unknown by then.

        It waits for an unknown id, too: its task may be on its way.
        """

    async def record(self, records: Sequence[Record]) -> list[bool]:
        """Commits outcomes, all in one transaction. Fence: not terminal and row.attempt <= delivery.attempt.

        False for a record that the fence kept out. A row that does not exist yet is made from the delivery. A
        Retrying may come before or after the queue's `retry` of the same delivery. A Conflicting writes a dead letter
        and no row; it is always True.
        """

    async def place(self, placements: Sequence[tuple[Delivery, Placement]]) -> None:
        """Marks runs as running, with their runner and boot id, or takes that back: `queued` again.

        Same fence. A row that does not exist yet is made from the delivery.
        """

    async def report_progress(self, updates: Sequence[tuple[str, int, float, str]]) -> None:
        """(id, attempt, fraction, message). Same fence."""

    async def cancel(self, task_id: str) -> CancelAnswer:
        """Durable: a task that is cancelled before its delivery is met later is never run."""

    async def cancel_requested(self, ids: Collection[str]) -> set[str]:
        """Which of these carry a cancel mark or are cancelled already: a run of such a task is to be stopped."""

    async def note_waiting(self, reasons: Mapping[str, str], over: Collection[str]) -> None:
        """Notes by algorithm why tasks wait that runners could take; rows that wait show it as `held_up`.

        The notes of the algorithms in `over` are dropped. What nobody has noted again for a minute is not shown any
        more, and is dropped with the next note.
        """

    async def counts(self) -> list[Counts]:
        """Tasks by algorithm and state. Cheap enough for a metrics scrape, not for every request."""

    async def list_tasks(self, wanted: TaskFilter, *, limit: int = 100, before: int | None = None) -> Page[TaskSummary]:
        """Newest first; `before` is the `next` of the page before. Bounded work, however many rows there are: a page
        that is short, or empty, may have a next one."""

    async def dead_letters(
        self, wanted: DeadFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[DeadSummary]:
        """The same for dead letters. `wanted` None: those that wait for a decision."""

    async def dead_letter(self, dead_id: int) -> DeadLetter | None:
        """One of them with all it holds, also when it was replayed or discarded."""

    async def discard(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        """Notes that nothing more will become of them. They stay readable until retention drops them."""

    async def check_writing(self) -> None:
        """Writes something that changes nothing. Raises StoreUnavailable where nothing can be written: a full disk."""

    async def purge(self, finished_before: float, limit: int) -> int:
        """Drops up to `limit` rows that ended before that time, and dead letters that were replayed or discarded
        before it; returns how many. Dead letters that wait for a decision are kept for ever."""


class Replayer(Protocol):
    """Puts failed tasks back into the queue. A table does it in one transaction, a broker with the help of a Ledger."""

    async def replay(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        """Each one's task runs again under its own id: `replays` + 1, attempt + 1, fresh retry budgets, no expiry.

        Returns when they are durable. Raises QueueUnavailable or StoreUnavailable; then the same call again does no
        task twice.
        """


class Ledger(Protocol):
    """The part of a store that a broker's publishers need: the queue is not in the database, the row is."""

    async def lookup(self, ids: Sequence[str]) -> dict[str, TaskRow]: ...

    async def admit(self, tasks: Sequence[NewTask]) -> list[Published]:
        """Makes `queued` rows of those that are unknown; tells known ones. A tombstone takes the task's content."""

    async def revive(self, dead_ids: Sequence[int]) -> list[Revived]:
        """Makes `queued` rows of the failed tasks behind these dead letters, with the next attempt's number.

        A row that retention dropped is made anew from the dead letter. Called again before `mark_replayed`, it answers
        the same, with the same attempt: nobody knows whether the message went out.
        """

    async def mark_replayed(self, dead_ids: Sequence[int]) -> None:
        """Their tasks are in the queue."""
