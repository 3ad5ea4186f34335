"""JSON Schemas of a stranger. Nothing that they refer to is ever fetched."""

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

_MOST_CHARACTERS = 300


def fault_of(schema: Any) -> str | None:
    """Why it is no JSON Schema (2020-12); None when it is one."""
    if not isinstance(schema, dict):
        return "it is no object"
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        return _short(error)
    return None


def misfit_of(value: Any, schema: dict[str, Any]) -> str | None:
    """Why a value does not fit; None when it does. A schema that cannot be used fits nothing."""
    registry: Registry[Any] = Registry()
    try:
        error = next(Draft202012Validator(schema, registry=registry).iter_errors(value), None)
    except (Unresolvable, RecursionError) as unusable:
        return _short(unusable)
    return None if error is None else _short(error)


def _short(error: Exception) -> str:
    text = error.message if hasattr(error, "message") else str(error) or type(error).__name__
    return str(text).splitlines()[0][:_MOST_CHARACTERS]
