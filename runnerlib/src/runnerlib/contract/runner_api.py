"""``POST /batch/{algorithm}``: what the controller sends to a runner and what comes back."""

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runnerlib.contract.names import TASK_ID_PATTERN


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
