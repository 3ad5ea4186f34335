"""Wire models of runs, tasks, dead letters and errors."""

from datetime import datetime
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runnerlib.contract.names import TASK_ID_PATTERN

#: Errors over HTTP (RFC 9457).
PROBLEM_MEDIA_TYPE = "application/problem+json"


# ``POST /batch/{algorithm}``: what the controller sends to a runner and what comes back.


class EntryState(str, Enum):
    """State of one run (task id, attempt) on a runner.

    ``waiting`` and ``running`` mean "ask again"; ``unknown`` means that this process has no such run (it never had,
    or gave it up uncounted while draining), so that the same attempt may start elsewhere.
    """

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    #: a higher attempt of this task has been seen; the answer to a lower one
    STALE_ATTEMPT = "stale_attempt"

    @property
    def is_final(self) -> bool:
        return self not in (EntryState.WAITING, EntryState.RUNNING)


class Progress(BaseModel):
    """How far a run is, as its handler last reported."""

    fraction: float = Field(ge=0, le=1)
    message: str = ""


class RunError(BaseModel):
    """Why a run failed. `code` is a failure code of the contract; `traceback` is for operators only."""

    code: str
    message: str
    retryable: bool = False
    traceback: str | None = None
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Of a payload that does not fit: one entry for each field at fault, at most 20."
    )


class BatchItem(BaseModel):
    """One run to start or to ask for. Without `payload` it is attach-only: never starts anything."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(pattern=f"^{TASK_ID_PATTERN}$")
    attempt: int = Field(ge=1)
    deadline: float | None = Field(default=None, description="Seconds left for this task, never a clock time.")
    payload: Any = None


class BatchEntry(BaseModel):
    """What the runner knows of one item, in the order of the request."""

    id: str
    attempt: int
    state: EntryState
    result: Any = None
    error: RunError | None = None
    progress: Progress | None = None
    seconds: float | None = Field(default=None, description="How long the handler ran, when it has ended.")


# A task as its sender sees it.


class TaskState(str, Enum):
    """``queued → running → succeeded | failed | cancelled``, with ``retrying`` between attempts."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


class FailureCode(str, Enum):
    """Why a task failed. The only codes that a failed task, a dead letter or a reply can carry."""

    MALFORMED = "malformed"
    INVALID_PAYLOAD = "invalid_payload"
    UNKNOWN_ALGORITHM = "unknown_algorithm"
    TOO_LARGE = "too_large"
    ID_CONFLICT = "id_conflict"
    EXPIRED = "expired"
    HANDLER_ERROR = "handler_error"
    BAD_RESULT = "bad_result"
    TIMEOUT = "timeout"
    RUNNER_LOST = "runner_lost"
    CONTROLLER_LOST = "controller_lost"


class TaskError(BaseModel):
    """What the sender is told of a failure: the author's message, never a traceback."""

    code: FailureCode
    message: str


class HistoryEntry(BaseModel):
    """One attempt that did not succeed."""

    attempt: int
    code: FailureCode
    message: str
    runner: str | None = None
    at: datetime
    whole_runner: bool = Field(
        default=False, description="With `runner_lost`: the whole runner was gone, not the one process of this task."
    )


class _Task(BaseModel):
    id: str
    algorithm: str
    state: TaskState
    attempt: int = Field(description="Number of the current or last attempt; 1 is the first.")
    error: TaskError | None = Field(default=None, description="Why; only when `failed` or `retrying`.")
    progress: Progress | None = None
    cancel_requested: bool = False
    runner: str | None = Field(default=None, description="The runner that has it or had it last, when known.")
    waiting_for: str | None = Field(
        default=None, description="Why a waiting task is not running; null when a runner takes it as soon as it can."
    )
    replays: int = Field(default=0, description="How often it was put back into the queue after it had failed.")
    group: str | None = Field(default=None, description="Whom it is for: groups take turns. Null without one.")
    not_before: datetime | None = Field(
        default=None, description="Its first attempt starts no earlier. Null without a delay."
    )
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class TaskView(_Task):
    """One task, as the gateway tells it and as replies carry it."""

    result: Any = Field(default=None, description="What the handler returned; only when `succeeded`.")


class TaskSummaryView(_Task):
    """One task in a list: all but its result."""

    expires_at: datetime | None = Field(default=None, description="It fails as `expired` unless it starts by then.")


class TaskListView(BaseModel):
    """Newest first. `next` is the cursor of the page after this one; null: there is none."""

    tasks: list[TaskSummaryView]
    next: str | None = None


# Dead letters: failed tasks that are kept until they are replayed or discarded.


class DeadLetterView(BaseModel):
    """One dead letter in a list. It is open until it is replayed or discarded."""

    dead_id: int
    task_id: str
    algorithm: str = Field(description="Empty when the message never named one.")
    code: FailureCode
    message: str
    attempts: int = Field(description="Attempts that failed; `history` of the dead letter tells each.")
    created_at: datetime
    replayed_at: datetime | None = None
    discarded_at: datetime | None = None


class DeadLetterListView(BaseModel):
    """Newest first. `next` is the cursor of the page after this one; null: there is none."""

    dead_letters: list[DeadLetterView]
    next: str | None = None


class DeadLetterDetail(DeadLetterView):
    """All of a dead letter. `body` is the message as it came, when it is text; `body_base64` is it in any case."""

    history: list[HistoryEntry]
    traceback: str | None = None
    headers: dict[str, Any] = Field(default_factory=dict)
    body: str | None = None
    body_base64: str


class SkippedDeadLetter(BaseModel):
    """One that was neither replayed nor discarded, and why."""

    dead_id: int
    code: str
    detail: str


class DeadLettersDone(BaseModel):
    """The answer to many at once. `next` is the cursor to go on with; null: that was all."""

    done: int = Field(description="How many were replayed, or discarded.")
    skipped: list[SkippedDeadLetter] = Field(default_factory=list)
    next: str | None = None


class Problem(BaseModel):
    """One error. `code` never changes for the same cause; `detail` is a sentence that says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = Field(default=None, description="One entry for each field at fault.")
