"""JSON Schemas (2020-12) of payloads."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from runnerlib.adapter.json_types import type_adapter
from runnerlib.adapter.model import Parameter
from runnerlib.contract import strict_json


def input_schema(
    arguments: TypeAdapter[dict[str, Any]], parameters: Iterable[Parameter], title: str, summary: str
) -> dict[str, Any]:
    """The schema of a payload, with the function's own defaults and the descriptions of its docstring."""
    schema = arguments.json_schema()
    schema["title"] = title
    if summary:
        schema["description"] = summary
    properties = schema.setdefault("properties", {})
    for parameter in parameters:
        known = properties[parameter.field]
        if parameter.description and "description" not in known:
            known["description"] = parameter.description
        if not parameter.required:
            known["default"] = type_adapter(parameter.annotation).dump_python(
                parameter.default, mode="json", by_alias=True
            )
    return schema


def without_lost_defaults(node: Any) -> Any:
    """The same schema without defaults that JSON cannot carry, e.g. an infinity; such a field can still be left out."""
    if isinstance(node, list):
        return [without_lost_defaults(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if name != "default" or _is_json(value)}
    return {name: without_lost_defaults(value) for name, value in kept.items()}


def _is_json(value: Any) -> bool:
    try:
        strict_json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
