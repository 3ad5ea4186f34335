"""JSON Schemas (2020-12) of payloads."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from runnerlib.adapter.json_types import for_pydantic
from runnerlib.adapter.model import Parameter


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
        known = properties[parameter.name]
        if parameter.description and "description" not in known:
            known["description"] = parameter.description
        if not parameter.required:
            adapter: TypeAdapter[Any] = TypeAdapter(for_pydantic(parameter.annotation))
            known["default"] = adapter.dump_python(parameter.default, mode="json")
    return schema
