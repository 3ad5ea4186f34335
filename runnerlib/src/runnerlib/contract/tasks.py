"""A task as its sender sees it: states, failure codes, the answer of ``GET /tasks/{id}``."""

from datetime import datetime
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runnerlib.contract.runner_api import Progress


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


class TaskView(BaseModel):
    """One task, as the gateway tells it and as replies carry it."""

    model_config = ConfigDict(use_enum_values=False)

    id: str
    algorithm: str
    state: TaskState
    attempt: int = Field(description="Number of the current or last attempt; 1 is the first.")
    result: Any = Field(default=None, description="What the handler returned; only when `succeeded`.")
    error: TaskError | None = Field(default=None, description="Why; only when `failed` or `retrying`.")
    progress: Progress | None = None
    cancel_requested: bool = False
    runner: str | None = Field(default=None, description="The runner that has it or had it last, when known.")
    waiting_for: str | None = Field(
        default=None, description="Why a waiting task is not running; null when a runner takes it as soon as it can."
    )
    replays: int = Field(default=0, description="How often it was put back into the queue after it had failed.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class TaskSummaryView(BaseModel):
    """One task in a list: all but its result."""

    id: str
    algorithm: str
    state: TaskState
    attempt: int
    error: TaskError | None = Field(default=None, description="Why; only when `failed` or `retrying`.")
    progress: Progress | None = None
    cancel_requested: bool = False
    runner: str | None = None
    waiting_for: str | None = None
    replays: int = 0
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(default=None, description="It fails as `expired` unless it starts by then.")


class TaskListView(BaseModel):
    """Newest first. `next` is the cursor of the page after this one; null: there is none."""

    tasks: list[TaskSummaryView]
    next: str | None = None
