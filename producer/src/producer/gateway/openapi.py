"""What the gateway's OpenAPI document says of requests and answers that the routes read and write themselves."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from producer.gateway.problem_codes import ProblemCode
from producer.gateway.wanted import LAST_DEAD_ID
from runnerlib.contract import ALGORITHM_PATTERN, PROBLEM_MEDIA_TYPE, TASK_ID_PATTERN, Problem, TaskState, TaskView
from runnerlib.contract.envelope import MAX_EXPIRES_SECONDS

Responses = dict[int | str, dict[str, Any]]


class Message(BaseModel):
    """A task as a producer sends it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"algorithm": "upper", "payload": {"text": "plug and play"}}]}
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
DEAD_ID: dict[str, Any] = {
    "name": "dead_id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": LAST_DEAD_ID},
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
    "description": "Serves as the task's id. A message with an id of its own needs none, or the same.",
    "schema": {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
}

_MESSAGE = Message.model_json_schema()
ONE_MESSAGE: dict[str, Any] = {"required": True, "content": {"application/json": {"schema": _MESSAGE}}}
#: Lines of messages (NDJSON) are told in the operation's description: few tools can write them from a schema.
MANY_MESSAGES: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "description": "At most 1,000.",
                "items": {"anyOf": [_MESSAGE, {"description": "Anything else gets a problem of its own."}]},
            }
        },
    },
}


#: Codes of every call that submits one task; `unknown_algorithm` aside.
SUBMITTING = (
    ProblemCode.MALFORMED,
    ProblemCode.ID_CONFLICT,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID_PAYLOAD,
    ProblemCode.INVALID_ID,
    ProblemCode.INVALID_REQUEST,
    ProblemCode.QUEUE_UNAVAILABLE,
    ProblemCode.STORE_UNAVAILABLE,
)


def problems(*codes: ProblemCode) -> Responses:
    """The answers of an operation that are problems, by status."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    words: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        words.setdefault(code.status, []).append(f"`{code.value}`: {code.meaning}")
    return {status: {"description": " ".join(words[status]), "content": content} for status in sorted(words)}


def answer(model: Any, description: str) -> dict[str, Any]:
    """An answer of this shape."""
    return {"model": model, "description": description}


def task(description: str) -> dict[str, Any]:
    """An answer that is a task."""
    return answer(TaskView, description)


SUBMITTED: Responses = {
    200: task("It has ended: the sender waited for it, or it was known before."),
    202: task("It is queued, durably. `Location` is its address."),
}


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a model that is read from the query."""
    schema = model.model_json_schema()
    parameters = []
    for name, field in schema["properties"].items():
        shape = _without_null(_inlined(field, schema.get("$defs", {})))
        about = {"description": shape.pop("description")} if "description" in shape else {}
        parameters.append({"name": name, "in": "query", "required": False, **about, "schema": shape})
    return parameters


def one_of(*models: type[BaseModel]) -> dict[str, Any]:
    """A body that is one of these."""
    schemas = []
    for model in models:
        schema = model.model_json_schema()
        definitions = schema.pop("$defs", {})
        schemas.append(_inlined(schema, definitions))
    return {"required": True, "content": {"application/json": {"schema": {"oneOf": schemas}}}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """The same schema without references; ours do not refer to themselves."""
    if isinstance(node, list):
        return [_inlined(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inlined(definitions[node["$ref"].removeprefix("#/$defs/")], definitions), **rest}
    return {key: _inlined(value, definitions) for key, value in node.items()}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out; it cannot be null."""
    shape = {key: value for key, value in field.items() if key not in ("anyOf", "title")}
    for choice in field.get("anyOf", ()):
        if choice != {"type": "null"}:
            shape |= choice
    if shape.get("default", "") is None:
        del shape["default"]
    return shape
