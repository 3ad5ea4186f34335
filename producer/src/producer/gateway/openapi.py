"""What the gateway's OpenAPI document says of requests and answers that the routes read and write themselves."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runnerlib.contract import ALGORITHM_PATTERN, PROBLEM_MEDIA_TYPE, TASK_ID_PATTERN, Problem, TaskState, TaskView
from runnerlib.contract.envelope import MAX_EXPIRES_SECONDS

Responses = dict[int | str, dict[str, Any]]


class Message(BaseModel):
    """A task as a producer sends it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"algorithm": "upper", "payload": {"text": "plug and play"}}]}
    )

    algorithm: str = Field(pattern=f"^{ALGORITHM_PATTERN}$")
    payload: Any = Field(description="What the algorithm takes; see GET /algorithms.")
    id: str | None = Field(
        default=None,
        pattern=f"^{TASK_ID_PATTERN}$",
        description="The same id with the same content is one task, however often it is sent.",
    )
    expires_seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_EXPIRES_SECONDS,
        description="A task that has not started by then fails as `expired`.",
    )


class BatchAnswer(BaseModel):
    """What became of one message of a batch: its state, or a problem."""

    id: str | None = None
    state: TaskState | None = None
    problem: Problem | None = None


_WHY = {
    400: "`malformed`: the message can never become a task.",
    404: "There is no such thing.",
    409: "`id_conflict`: the id belongs to a task with another content.",
    413: "`too_large`: store the data elsewhere and send a reference.",
    415: "`unsupported_media_type`: the body must be JSON, and say so.",
    422: "Something does not fit; `errors` names the fields.",
    503: "The queue or the store cannot be reached; nothing was accepted. `Retry-After` says when to ask again.",
}

TASK_ID: dict[str, Any] = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
}
ALGORITHM: dict[str, Any] = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{ALGORITHM_PATTERN}$"},
}
PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=20`: answer when the task has ended, or after 20 s (60 at most).",
    "schema": {"type": "string"},
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Serves as the task's id when the message has none.",
    "schema": {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
}

_MESSAGE = Message.model_json_schema()
ONE_MESSAGE: dict[str, Any] = {"required": True, "content": {"application/json": {"schema": _MESSAGE}}}
#: Lines of messages (NDJSON) are told in the operation's description: few tools can write them from a schema.
MANY_MESSAGES: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"type": "array", "items": _MESSAGE, "maxItems": 1000}},
    },
}


def problems(*statuses: int) -> Responses:
    """The answers of an operation that are problems."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHY[status], "content": content} for status in statuses}


def task(description: str) -> dict[str, Any]:
    """An answer that is a task."""
    return {"model": TaskView, "description": description}
