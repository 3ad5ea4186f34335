"""What the gateway tells of failed tasks that wait for somebody's decision: replay or discard."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from runnerlib.contract.tasks import FailureCode, HistoryEntry


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
