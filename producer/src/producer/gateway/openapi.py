"""The gateway's OpenAPI document: what it says of requests and responses, and of each algorithm that is known now.

Routes read requests and write responses themselves, so they describe both with the constants and functions above
:class:`Document`, which adds two calls for each algorithm, with its own fields, example and result.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from producer.gateway.admission import CatalogueView
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.query_params import DELAY_MEANING, EXPIRES_MEANING, GROUP_MEANING, MAX_DEAD_ID, SubmitQuery
from producer.gateway.schema_placing import COMPONENTS, Unplaceable, has_reference, place
from runnerlib.contract import (
    ALGORITHM_PATTERN,
    GROUP_PATTERN,
    PROBLEM_MEDIA_TYPE,
    TASK_ID_PATTERN,
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    Problem,
    StrictJsonError,
    TaskState,
    TaskView,
    strict_json,
)
from runnerlib.contract.envelope import MAX_DELAY_SECONDS, MAX_EXPIRES_SECONDS

Responses = dict[int | str, dict[str, Any]]

#: Characters of a runner's texts,
_MAX_SUMMARY = 200
_MAX_DESCRIPTION = 10_000
#: and bytes of its example.
_MAX_EXAMPLE_BYTES = 32 * 1024


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
    expires_seconds: float | None = Field(default=None, gt=0, le=MAX_EXPIRES_SECONDS, description=EXPIRES_MEANING)
    delay_seconds: float | None = Field(default=None, ge=0, le=MAX_DELAY_SECONDS, description=DELAY_MEANING)
    group: str | None = Field(default=None, pattern=f"^{GROUP_PATTERN}$", description=GROUP_MEANING)


class BatchAnswer(BaseModel):
    """What became of one message of a batch: its state, or a problem."""

    id: str | None = None
    state: TaskState | None = None
    problem: Problem | None = None


class FoundTasks(BaseModel):
    """The tasks in the order of the ids; of ids that nobody knows there is none."""

    tasks: list[TaskView]
    left_out: list[str] = Field(description="Ids of tasks for which the answer had no room; ask for them again.")


def _path(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


TASK_ID = _path("task_id", type="string", pattern=f"^{TASK_ID_PATTERN}$")
ALGORITHM = _path("name", type="string", pattern=f"^{ALGORITHM_PATTERN}$")
DEAD_ID = _path("dead_id", type="integer", minimum=1, maximum=MAX_DEAD_ID)
PREFER = _header("Prefer", "`wait=20`: answer when the task has ended, or after 20 s (60 at most).")
IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "Serves as the task's id. A message with an id of its own needs none, or the same.",
    pattern=f"^{TASK_ID_PATTERN}$",
)


def _body(schema: dict[str, Any], **content: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, **content}}}


_MESSAGE = Message.model_json_schema()
ONE_MESSAGE = _body(_MESSAGE)
#: Lines of messages (NDJSON) are mentioned in the operation's description: few tools can write them from a schema.
MANY_MESSAGES = _body(
    {
        "type": "array",
        "description": "At most 1,000.",
        "items": {"anyOf": [_MESSAGE, {"description": "Anything else gets a problem of its own."}]},
    }
)

#: Codes of every call that reads a JSON body.
READING_A_BODY = (
    ProblemCode.MALFORMED,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID_REQUEST,
)
#: Codes of every call that submits one task; `unknown_algorithm` aside.
SUBMITTING = (
    ProblemCode.MALFORMED,
    ProblemCode.ID_CONFLICT,
    ProblemCode.TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID_PAYLOAD,
    ProblemCode.INVALID_ID,
    ProblemCode.INVALID_REQUEST,
    ProblemCode.RATE_LIMITED,
    ProblemCode.TOO_MANY_WAITING,
    ProblemCode.QUEUE_UNAVAILABLE,
    ProblemCode.STORE_UNAVAILABLE,
)
#: Codes of a batch as a whole.
SUBMITTING_MANY = (
    *READING_A_BODY,
    ProblemCode.RATE_LIMITED,
    ProblemCode.TOO_MANY_WAITING,
    ProblemCode.QUEUE_UNAVAILABLE,
    ProblemCode.STORE_UNAVAILABLE,
)


def problems(*codes: ProblemCode) -> Responses:
    """The responses of an operation that are problems, by status."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"{COMPONENTS}Problem"}}}
    meanings: defaultdict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys(codes):
        meanings[code.status].append(f"`{code.value}`: {code.meaning}")
    return {status: {"description": " ".join(meanings[status]), "content": content} for status in sorted(meanings)}


def answer(model: Any, description: str) -> dict[str, Any]:
    """A response of this shape."""
    return {"model": model, "description": description}


def task(description: str) -> dict[str, Any]:
    """A response that is a task."""
    return answer(TaskView, description)


SUBMITTED: Responses = {
    200: task("It has ended: the sender waited for it, or it was known before."),
    202: task("It is queued, durably. `Location` is its address."),
}


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a model that is read from the query."""
    parameters = []
    for name, field in _inlined(model)["properties"].items():
        # a parameter can be left out, but not null
        schema = {key: value for key, value in field.items() if key not in ("anyOf", "title")}
        for choice in field.get("anyOf", ()):
            if choice != {"type": "null"}:
                schema |= choice
        if schema.get("default", "") is None:
            del schema["default"]
        about = {"description": schema.pop("description")} if "description" in schema else {}
        parameters.append({"name": name, "in": "query", "required": False, **about, "schema": schema})
    return parameters


def one_of(*models: type[BaseModel]) -> dict[str, Any]:
    """A body that is one of these."""
    return _body({"oneOf": [_inlined(model) for model in models]})


def _inlined(model: type[BaseModel]) -> Any:
    """The model's schema without references; our models do not refer to themselves."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return {**inline(definitions[node["$ref"].removeprefix("#/$defs/")]), **rest}
        return {key: inline(value) for key, value in node.items()}

    return inline(schema)


class Document:
    """The document as JSON: written again when the catalogue has changed. `static` returns the part that never does.

    `finish` is given all of it before it is written.
    """

    def __init__(
        self,
        static: Callable[[], dict[str, Any]],
        view: CatalogueView,
        finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: document,
    ) -> None:
        self._static = static
        self._finish = finish
        self._view = view
        self._lock = asyncio.Lock()
        self._written_for: tuple[str, int] | None = None
        self._bytes = b""
        self._schemas: dict[tuple[str, str], AlgorithmSchemas] = {}

    async def current(self) -> bytes:
        """The document for the catalogue of this moment."""
        catalogue = self._view.catalogue
        version = None if catalogue is None else (catalogue.epoch, catalogue.index)
        async with self._lock:
            if not self._bytes or version != self._written_for:
                # hundreds of algorithms take a while: others are served meanwhile
                self._bytes = await asyncio.to_thread(self._write, catalogue)
                self._written_for = version
            return self._bytes

    def _write(self, catalogue: Catalogue | None) -> bytes:
        views = [] if catalogue is None else [catalogue.algorithms[name] for name in sorted(catalogue.algorithms)]
        before, self._schemas = self._schemas, {}
        static = self._static()
        components = static.get("components", {})
        tags: list[dict[str, Any]] = []
        paths: dict[str, Any] = {}
        schemas = dict(components.get("schemas", {}))
        for view in views:
            about = view.description
            key = about.name, view.schema_digest
            placed = self._schemas[key] = before.get(key) or algorithm_schemas(about)
            # no algorithm's name has a space: it cannot be mistaken for another section
            tags.append({"name": f"algorithm {about.name}", "description": _text(about.summary, _MAX_SUMMARY)})
            paths |= _operations(view, placed)
            schemas |= placed.components
        document = {
            **static,
            # the algorithms come first: they are what the environment is for
            "tags": [*tags, *static.get("tags", [])],
            "paths": {**paths, **static["paths"]},
            "components": {**components, "schemas": schemas},
        }
        return strict_json.dumps(self._finish(document))


_CODES = (*SUBMITTING, ProblemCode.UNKNOWN_ALGORITHM, ProblemCode.INVALID_REQUEST)
_PARAMETERS = [PREFER, IDEMPOTENCY_KEY, *query_parameters(SubmitQuery)]
_RUN_PREFER = {**PREFER, "description": "`wait=5`: how long to wait, in seconds; 20 without it, 60 at most."}


class AlgorithmSchemas(NamedTuple):
    """An algorithm's schemas as components. `notes` say which one was left out, and why."""

    components: dict[str, Any]
    notes: tuple[str, ...]


def algorithm_schemas(about: AlgorithmDescription) -> AlgorithmSchemas:
    """Takes some milliseconds; worth keeping for as long as the schemas are the same."""
    components: dict[str, Any] = {}
    notes = []
    task: dict[str, Any] = {"$ref": f"{COMPONENTS}TaskView"}
    for part, schema in (("payload", about.input_schema), ("result", about.output_schema)):
        owner = f"{about.name}.{part}"
        if schema is not None:
            try:
                components |= place(schema, owner)
            except Unplaceable as error:
                notes.append(f"The schema of its {part} is not shown: it {error}.")
    if f"{about.name}.result" in components:
        # null until it has succeeded
        result = {"anyOf": [{"$ref": f"{COMPONENTS}{about.name}.result"}, {"type": "null"}]}
        task = {"allOf": [task, {"type": "object", "properties": {"result": result}}]}
    components[f"{about.name}.task"] = task
    return AlgorithmSchemas(components, tuple(notes))


def _operations(view: AlgorithmView, schemas: AlgorithmSchemas) -> dict[str, Any]:
    """Both calls of an algorithm, by path."""
    name, example = view.description.name, view.description.example
    payload = {"$ref": f"{COMPONENTS}{name}.payload"} if f"{name}.payload" in schemas.components else {}
    shown = {"example": example.payload} if example is not None and _is_plain(example.payload) else {}
    content = {"application/json": {"schema": {"$ref": f"{COMPONENTS}{name}.task"}}}
    queued = "It is queued, durably, and has not ended yet. `Location` is its address."
    shared: dict[str, Any] = {
        "tags": [f"algorithm {name}"],
        "description": _description(view, schemas.notes),
        "requestBody": _body(payload, **shown),
        "responses": {
            "200": {"description": "It has ended: read `state`; it may have failed.", "content": content},
            "202": {"description": queued, "content": content},
            **{str(status): response for status, response in problems(*_CODES).items()},
        },
    }
    run = {"operationId": f"run_{name}", "summary": f"Run {name} and wait for its result"}
    queue = {"operationId": f"queue_{name}", "summary": f"Queue a task for {name}"}
    return {
        f"/algorithms/{name}/run": {"post": {**run, "parameters": [_RUN_PREFER, *_PARAMETERS[1:]], **shared}},
        f"/algorithms/{name}/tasks": {"post": {**queue, "parameters": _PARAMETERS, **shared}},
    }


def _is_plain(example: Any) -> bool:
    try:
        return len(strict_json.dumps(example)) <= _MAX_EXAMPLE_BYTES and not has_reference(example)
    except (StrictJsonError, RecursionError):
        return False


def _description(view: AlgorithmView, notes: tuple[str, ...]) -> str:
    about = view.description
    parts = [about.summary, about.description.removeprefix(about.summary).strip(), *notes]
    if about.input_schema is None:
        parts.append("Its runner does not tell its fields: any JSON is taken to it.")
    runners = len(view.runners)
    offered = "one runner" if runners == 1 else f"{runners} runners"
    parts.append(f"Offered now by {offered}." if runners else "No runner offers it now: tasks wait until one does.")
    return _text("\n\n".join(part for part in parts if part), _MAX_DESCRIPTION)


def _text(text: str, most: int) -> str:
    """A lone surrogate cannot be encoded."""
    return text[:most].encode("utf-8", "replace").decode()
