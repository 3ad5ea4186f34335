"""What ``/docs`` shows: each algorithm with its own fields, defaults, descriptions and example. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runnerlib.adapter.model import Algorithm
from runnerlib.contract import (
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    PROBLEM_MEDIA_TYPE,
    TASK_ID_PATTERN,
    BatchEntry,
    BatchItem,
)
from runnerlib.run_registry import MAX_ATTEMPT

_COMPONENTS = "#/components/schemas/"
_PROBLEM = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": f"{_COMPONENTS}Problem"}}}
_ERRORS = {
    "400": "`malformed`: the body is not JSON that is accepted.",
    "408": "`expired`: Task-Deadline was over before the run could start.",
    "409": "`stale_attempt`, `id_conflict` or `cancelled`.",
    "413": "`too_large`: the body is too large.",
    "422": "`invalid_payload`: a field is missing, unknown or of another type; `errors` names each.",
    "429": "`busy`: no slot is free; ask again after `Retry-After` seconds.",
    "500": "`handler_error`, `bad_result`, `timeout` or `runner_lost`; `retryable` tells whether another attempt may "
    "help.",
    "503": "`draining` or `not_ready`: send it to another runner, or later.",
}
_HEADERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        HEADER_TASK_ID,
        {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
        "Names the run, so that it can be asked for again and cancelled.",
    ),
    (
        HEADER_TASK_ATTEMPT,
        {"type": "integer", "minimum": 1, "exclusiveMaximum": MAX_ATTEMPT},
        "Number of the attempt, from 1. The same id and attempt again attaches.",
    ),
    (HEADER_TASK_DEADLINE, {"type": "number"}, "Seconds left for the task."),
    ("Prefer", {"type": "string"}, "`wait=20`: answer after that many seconds with what is known."),
)


class SchemaComponents:
    """Schemas that were given a place under ``components``; equal names of different algorithms stay apart."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def place(self, schema: Mapping[str, Any], owner: str) -> dict[str, Any]:
        """`schema` without its ``$defs``, which are moved here under names that begin with `owner`."""
        # Nothing but references (also those of a discriminator's mapping) begins like that.
        text = json.dumps(schema).replace('"#/$defs/', f'"{_COMPONENTS}{owner}_')
        placed: dict[str, Any] = json.loads(text)
        for name, definition in placed.pop("$defs", {}).items():
            self.schemas[f"{owner}_{name}"] = definition
        return placed


def run_operation(algorithm: Algorithm, components: SchemaComponents) -> dict[str, Any]:
    """The OpenAPI operation of ``POST /run/<algorithm>``."""
    payload = components.place(algorithm.input_schema(), algorithm.name)
    content: dict[str, Any] = {"schema": payload}
    result: dict[str, Any] = components.place(algorithm.output_schema() or {}, f"{algorithm.name}_result")
    answer = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    if (example := algorithm.describe().example) is not None:
        content["example"] = example.payload
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": text}
            for name, schema, text in _HEADERS
        ],
        "responses": {
            "200": {"description": "What the handler returned.", "content": _json(answer)},
            "202": {
                "description": "Not ended yet; ask again with the same Task-Id and Task-Attempt.",
                "content": _json(components.place(BatchEntry.model_json_schema(), "BatchEntry")),
            },
            **_errors(_ERRORS),
        },
    }


def batch_operation(algorithms: Iterable[str], components: SchemaComponents) -> dict[str, Any]:
    """The OpenAPI operation of ``POST /batch/{algorithm}``."""
    item = components.place(BatchItem.model_json_schema(), "BatchItem")
    entry = components.place(BatchEntry.model_json_schema(), "BatchEntry")
    used = {code: text for code, text in _ERRORS.items() if code in ("400", "413", "429", "503")}
    return {
        "parameters": [
            {"name": "algorithm", "in": "path", "required": True, "schema": {"type": "string", "enum": [*algorithms]}}
        ],
        "requestBody": {"required": True, "content": _json({"type": "array", "items": item})},
        "responses": {
            "200": {
                "description": "One entry for each item, in order.",
                "content": _json({"type": "array", "items": entry}),
            },
            **_errors({**used, "404": "`unknown_algorithm`."}),
        },
    }


def entry_operation(components: SchemaComponents, done: str, errors: Mapping[str, str]) -> dict[str, Any]:
    """The OpenAPI operation of a call that answers with one entry."""
    entry = components.place(BatchEntry.model_json_schema(), "BatchEntry")
    return {"responses": {done: {"description": "What is known.", "content": _json(entry)}, **_errors(errors)}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _errors(texts: Mapping[str, str]) -> dict[str, Any]:
    return {code: {"description": text, "content": _PROBLEM} for code, text in texts.items()}
