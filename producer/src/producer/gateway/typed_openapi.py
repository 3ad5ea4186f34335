"""What the OpenAPI document says of one algorithm: two calls with its own fields, example and result. Pure."""

from dataclasses import dataclass
from typing import Any

from producer.gateway import openapi
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.schema_placing import COMPONENTS, Unplaceable, has_reference, place
from producer.gateway.wanted import ExpiresQuery
from runnerlib.contract import AlgorithmDescription, AlgorithmView, StrictJsonError, strict_json

_MOST_SUMMARY = 200
_MOST_DESCRIPTION = 10_000
_MOST_EXAMPLE_BYTES = 32 * 1024

_CODES = (*openapi.SUBMITTING, ProblemCode.UNKNOWN_ALGORITHM, ProblemCode.INVALID_REQUEST)
_PARAMETERS = [openapi.PREFER, openapi.IDEMPOTENCY_KEY, *openapi.query_parameters(ExpiresQuery)]
_RUN_PREFER = {**openapi.PREFER, "description": "`wait=5`: how long to wait, in seconds; 20 without it, 60 at most."}


@dataclass(frozen=True, slots=True)
class Placed:
    """An algorithm's schemas as components. `payload` and `result` are schemas that refer to them; None: not told.

    `notes` say what was left out, and why.
    """

    components: dict[str, Any]
    payload: dict[str, Any] | None
    result: dict[str, Any] | None
    notes: tuple[str, ...] = ()


def placed(about: AlgorithmDescription) -> Placed:
    """Costs some milliseconds; worth keeping for as long as the schemas are the same."""
    components: dict[str, Any] = {}
    found: dict[str, dict[str, Any] | None] = {"payload": None, "result": None}
    notes = []
    for part, schema in (("payload", about.input_schema), ("result", about.output_schema)):
        owner = f"{about.name}.{part}"
        if schema is not None:
            try:
                components |= place(schema, owner)
                found[part] = {"$ref": COMPONENTS + owner}
            except Unplaceable as error:
                notes.append(f"The schema of its {part} is not shown: it {error}.")
    return Placed(components, found["payload"], found["result"], tuple(notes))


@dataclass(frozen=True, slots=True)
class Section:
    """An algorithm's part of the document."""

    tag: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


def section(view: AlgorithmView, schemas: Placed) -> Section:
    """Both calls of an algorithm, in a section of their own."""
    about = view.description
    name = about.name
    # no algorithm's name has a space: it cannot be mistaken for another section
    tag = f"algorithm {name}"
    summary = _text(about.summary, _MOST_SUMMARY)
    shared: dict[str, Any] = {
        "tags": [tag],
        "description": _description(view, schemas),
        "requestBody": {"required": True, "content": {"application/json": _content(about, schemas)}},
    }
    run_parameters = [_RUN_PREFER, *_PARAMETERS[1:]]
    paths = {
        f"/algorithms/{name}/run": _post(f"run_{name}", f"Run {name} and wait for its result", run_parameters, shared),
        f"/algorithms/{name}/tasks": _post(f"queue_{name}", f"Queue a task for {name}", _PARAMETERS, shared),
    }
    task = f"{name}.task"
    for path in paths.values():
        path["post"]["responses"] = _responses(COMPONENTS + task)
    components = {**schemas.components, task: _task(schemas)}
    return Section({"name": tag, "description": summary}, paths, components)


def _post(operation_id: str, summary: str, parameters: list[dict[str, Any]], shared: dict[str, Any]) -> dict[str, Any]:
    return {"post": {"operationId": operation_id, "summary": summary, "parameters": parameters, **shared}}


def _responses(task: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": task}}}
    ended = "It has ended: read `state`; it may have failed."
    return {
        "200": {"description": ended, "content": content},
        "202": {
            "description": "It is queued, durably, and has not ended yet. `Location` is its address.",
            "content": content,
        },
        **{str(status): about for status, about in openapi.problems(*_CODES).items()},
    }


def _task(schemas: Placed) -> dict[str, Any]:
    """A task whose result is this algorithm's; null until it has succeeded."""
    task = {"$ref": f"{COMPONENTS}TaskView"}
    if schemas.result is None:
        return task
    result = {"anyOf": [schemas.result, {"type": "null"}]}
    return {"allOf": [task, {"type": "object", "properties": {"result": result}}]}


def _content(about: AlgorithmDescription, schemas: Placed) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas.payload or {}}
    if about.example is not None and _is_plain(about.example.payload):
        content["example"] = about.example.payload
    return content


def _is_plain(example: Any) -> bool:
    try:
        return len(strict_json.dumps(example)) <= _MOST_EXAMPLE_BYTES and not has_reference(example)
    except (StrictJsonError, RecursionError):
        return False


def _description(view: AlgorithmView, schemas: Placed) -> str:
    about = view.description
    parts = [about.summary, about.description.removeprefix(about.summary).strip(), *schemas.notes]
    if about.input_schema is None:
        parts.append("Its runner does not tell its fields: any JSON is taken to it.")
    count = len(view.runners)
    offered = "one runner" if count == 1 else f"{count} runners"
    parts.append(f"Offered now by {offered}." if count else "No runner offers it now: tasks wait until one does.")
    return _text("\n\n".join(part for part in parts if part), _MOST_DESCRIPTION)


def _text(text: str, most: int) -> str:
    """A lone surrogate would make the document no text."""
    return text[:most].encode("utf-8", "replace").decode()
