"""A task as the queue and the store hold it. All frozen; times are seconds since the epoch, UTC."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from runnerlib.contract import FailureCode, HistoryEntry, Progress, TaskState, UnknownField
from runnerlib.contract.immutable import immutable
from taskqueue.tokens import EVERYTHING, Reach

Item = TypeVar("Item")

#: Of a message in a line of a list.
MAX_SUMMARY_CHARACTERS = 1000
#: A controller renews its notes on why tasks wait well within this time; older notes are those of one that is gone.
NOTE_SECONDS = 60.0
#: What makes two tasks with the same id one: their digest, and the token that submitted them.
Identity = tuple[str, str | None]


@immutable
class NewTask:
    """A task on its way into the queue. `payload` is compact UTF-8 JSON."""

    id: str
    algorithm: str
    payload: bytes
    digest: str
    expires_at: float | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    #: more than 1 for a replay: runners and stores ignore attempts below one they have seen
    attempt: int = 1
    #: whose turn it waits for; None: it waits for its own
    group: str | None = None
    #: when its first attempt may start
    not_before: float | None = None
    #: key id of the token that submits it, if any
    submitted_by: str | None = None
    #: proves that to controllers; see `taskqueue.tokens.OwnerSeal`
    seal: str | None = None

    @property
    def identity(self) -> Identity:
        return self.digest, self.submitted_by

    @property
    def waits_in_store(self) -> bool:
        """Whether it needs a queue in which tasks take turns and may be late: a broker has none."""
        return self.group is not None or self.not_before is not None


class Published(Enum):
    """What became of a published task."""

    ACCEPTED = "accepted"
    #: the same id with the same content is known already: one task
    DUPLICATE = "duplicate"
    #: the same id with other content, or by another token; nothing was queued
    CONFLICT = "conflict"


def publish_results(
    tasks: Sequence[NewTask], known: Mapping[str, Identity], accepted: Collection[str]
) -> list[Published]:
    """One result for each task, given what is known of each id now, and the ids that were new.

    The first task of a new id is accepted; others with that id and identity are duplicates.
    """
    new, results = set(accepted), []
    for task in tasks:
        if known[task.id] != task.identity:
            results.append(Published.CONFLICT)
        elif task.id in new:
            new.discard(task.id)
            results.append(Published.ACCEPTED)
        else:
            results.append(Published.DUPLICATE)
    return results


@immutable
class Delivery:
    """One task handed to a controller, to be settled by `ack`, `retry` or `release`.

    `attempt` is the attempt to run (1 is the first). `receipt` belongs to the queue and fences its settling calls.
    `delivery_count` is how often the task was handed out before without being settled (0: the first time).
    `body` is the message as its sender wrote it, if known; dead letters keep it.
    """

    id: str
    algorithm: str
    payload: bytes
    digest: str
    attempt: int
    receipt: Any
    delivery_count: int = 0
    expires_at: float | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    #: of the sender's message; ignored
    unknown_fields: tuple[UnknownField, ...] = ()
    #: the queue has read the task's row, and nothing there forbids a start
    is_clear_to_start: bool = False
    group: str | None = None
    #: it was claimed in the table of tasks: beside a broker, where `TaskRow.in_turn` tasks wait
    in_turn: bool = False
    #: what its message says of its owner, unchecked, and what the store has found proven by that
    seal: str | None = None
    submitted_by: str | None = None


@immutable
class Arrival:
    """One message from the ingress queue of a broker, as its sender wrote it, not yet parsed.

    `first_seen_at` is when a controller first parked it (None: never). `dead_reason` is why the broker dead-lettered
    it, if it comes from the broker's own dead-letter queue.
    """

    body: bytes
    receipt: Any
    message_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    delivery_count: int = 0
    expires_at: float | None = None
    first_seen_at: float | None = None
    dead_reason: str | None = None
    #: what it says of its owner, unchecked
    seal: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a task, for a sender that named a reply queue. `body` is JSON."""

    reply_to: str
    correlation_id: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Which runner process has a run; written once the task has run for a second.

    An empty boot id: no controller can attach to the run. An empty runner, too: the run is over, and the task waits
    again.
    """

    id: str
    attempt: int
    runner: str
    boot: str


@immutable
class TaskRow:
    """Everything the store knows of a task."""

    id: str
    algorithm: str
    payload: bytes
    digest: str
    state: TaskState
    attempt: int
    created_at: float
    updated_at: float
    finished_at: float | None = None
    expires_at: float | None = None
    not_before: float | None = None
    group: str | None = None
    #: it waits in the table of tasks for its turn or its time, also beside a broker
    in_turn: bool = False
    result: bytes | None = None
    error_code: FailureCode | None = None
    error_message: str | None = None
    history: tuple[HistoryEntry, ...] = ()
    placement: Placement | None = None
    runner: str | None = None
    cancel_requested: bool = False
    progress: Progress | None = None
    replays: int = 0
    reply_to: str | None = None
    correlation_id: str | None = None
    submitted_by: str | None = None
    #: why it waits although runners offer its algorithm, as noted by a controller
    pending_reason: str | None = None


@immutable
class Succeeded:
    """`result` is compact UTF-8 JSON."""

    delivery: Delivery
    result: bytes
    runner: str | None = None


@immutable
class Failed:
    """The task has failed for good. Writing it also writes the dead letter, in the same transaction.

    `history` lists every attempt that failed, the last one included; if it is empty, the store adds an entry to the
    row's history.
    """

    delivery: Delivery
    code: FailureCode
    message: str
    traceback: str | None = None
    history: tuple[HistoryEntry, ...] = ()
    runner: str | None = None


@immutable
class Cancelled:
    delivery: Delivery


@immutable
class Conflicting:
    """The message carries another task's id. It becomes a dead letter (`id_conflict`); that task stays as it is."""

    delivery: Delivery
    message: str


@immutable
class Retrying:
    """Attempt `delivery.attempt` failed; `delivery.attempt + 1` may start at `available_at`.

    `history` is as for `Failed`.
    """

    delivery: Delivery
    code: FailureCode
    message: str
    available_at: float
    history: tuple[HistoryEntry, ...] = ()
    runner: str | None = None


#: What a controller commits before it settles a delivery.
Record = Succeeded | Failed | Cancelled | Retrying | Conflicting


class CancelAnswer(Enum):
    """What `cancel` did."""

    #: it had not started: the row is `cancelled` now (for an unknown id, a new one: a tombstone)
    CANCELLED = "cancelled"
    #: it runs: a durable mark was set, and the controller will ask the runner
    REQUESTED = "requested"
    #: it had ended before; nothing changed
    FINISHED = "finished"
    #: there is none that the caller may cancel; nothing changed
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Part of a list, to be iterated. `next` is the `before` of the next page, or None for the last page.

    A page may be short, even empty, and still have a next one: rows that do not match are passed over in bounded steps.
    """

    items: tuple[Item, ...] = ()
    next: int | None = None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class DeadSummary:
    """A line in a list of dead letters. Long messages are shortened; `attempts` is how many failed."""

    dead_id: int
    task_id: str
    algorithm: str
    code: FailureCode
    message: str
    attempts: int
    created_at: float
    replayed_at: float | None = None
    discarded_at: float | None = None
    submitted_by: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failed task, kept until it is replayed or discarded. `body` is the message as it came."""

    dead_id: int
    task_id: str
    algorithm: str
    code: FailureCode
    message: str
    traceback: str | None
    body: bytes
    headers: dict[str, Any]
    history: tuple[HistoryEntry, ...]
    created_at: float
    replayed_at: float | None = None
    discarded_at: float | None = None
    submitted_by: str | None = None


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters to list; None and empty mean any.

    `waiting_only`: only those that were neither replayed nor discarded.
    """

    algorithm: str | None = None
    codes: frozenset[FailureCode] = frozenset()
    task_id: str | None = None
    created_from: float | None = None
    created_before: float | None = None
    waiting_only: bool = True
    reach: Reach = EVERYTHING


class DeadAnswer(Enum):
    """What a replay or a discard did to one dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    #: there is no such dead letter
    UNKNOWN = "unknown"
    #: it was replayed before; nothing changed
    ALREADY_REPLAYED = "already_replayed"
    #: it was discarded before; nothing changed
    ALREADY_DISCARDED = "already_discarded"
    #: its message can never become a task (malformed, too large), or its id is another task's
    NOT_REPLAYABLE = "not_replayable"
    #: its task is no longer failed: another dead letter of it was replayed, and it waits, runs or has succeeded
    NOT_FAILED = "not_failed"


@dataclass(frozen=True, slots=True)
class Revived:
    """A dead letter's task, as it goes into the queue again; `task` is None unless the answer is REPLAYED."""

    answer: DeadAnswer
    task: NewTask | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None and empty mean any. Tombstones are never listed."""

    algorithm: str | None = None
    states: frozenset[TaskState] = frozenset()
    created_from: float | None = None
    created_before: float | None = None
    reach: Reach = EVERYTHING


@immutable
class TaskSummary:
    """A line in a list of tasks: no payload, result or history. `seq` is its place in the order of arrival.

    Long error messages are shortened.
    """

    seq: int
    id: str
    algorithm: str
    state: TaskState
    attempt: int
    created_at: float
    updated_at: float
    finished_at: float | None = None
    expires_at: float | None = None
    error_code: FailureCode | None = None
    error_message: str | None = None
    runner: str | None = None
    cancel_requested: bool = False
    progress: Progress | None = None
    replays: int = 0
    group: str | None = None
    not_before: float | None = None
    pending_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks of one algorithm are in each state, and since when the oldest waiting one waits."""

    algorithm: str
    by_state: dict[TaskState, int]
    oldest_waiting_at: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when an algorithm is paused, and who did it: the name of a token, empty where there are none."""

    by: str
    at: float


def shortened(message: str) -> str:
    """As much of a message as a line of a list shows."""
    return message if len(message) <= MAX_SUMMARY_CHARACTERS else message[: MAX_SUMMARY_CHARACTERS - 1] + "…"


def notes_valid_since(now: float) -> float:
    """The time before which notes on why tasks wait are out of date; `now` is seconds since the epoch."""
    return now - NOTE_SECONDS
