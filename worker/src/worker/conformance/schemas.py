"""JSON Schemas of a stranger. Nothing that they refer to is ever fetched, and none keeps us for long."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

_MOST_CHARACTERS = 300
#: Alternatives that refer to alternatives can ask for more steps than anybody has time for.
_MOST_REFERENCES = 20_000


class _TooLong(Exception):
    """The check is given up."""


def fault_of(schema: Any) -> str | None:
    """Why it is no JSON Schema (2020-12); None when it is one."""
    if not isinstance(schema, dict):
        return "it is no object"
    try:
        # Without formats: an expression of another language than Python is an expression, too.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except (SchemaError, RecursionError) as error:
        return _short(error)
    return None


def misfit_of(value: Any, schema: dict[str, Any]) -> str | None:
    """Why a value does not fit; None when it does. A schema that cannot be used fits nothing."""
    try:
        error = next(_new_validator(schema).iter_errors(value), None)
    # ValueError: an "$id" that is no URL.
    except (Unresolvable, RecursionError, ValueError, _TooLong) as unusable:
        return _short(unusable)
    return None if error is None else _short(error)


def _new_validator(schema: dict[str, Any]) -> Validator:
    """Expressions for texts and names are not looked at: Python's differ, and a hostile one never ends."""
    followed = count(1)

    def reference(keyword: str) -> Any:
        def check(validator: Any, value: Any, instance: Any, inside: Any) -> Iterator[ValidationError]:
            if next(followed) > _MOST_REFERENCES:
                raise _TooLong(f"it takes more than {_MOST_REFERENCES} references to tell")
            yield from Draft202012Validator.VALIDATORS[keyword](validator, value, instance, inside)

        return check

    keywords = {
        "$ref": reference("$ref"),
        "$dynamicRef": reference("$dynamicRef"),
        "additionalProperties": _additional_properties,
        "pattern": _not_looked_at,
        "patternProperties": _not_looked_at,
        "unevaluatedProperties": _not_looked_at,
    }
    registry: Registry[Any] = Registry()
    made: Validator = validators.extend(Draft202012Validator, keywords)(schema, registry=registry)  # type: ignore[no-untyped-call]
    return made


def _not_looked_at(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> Iterator[ValidationError]:
    return iter(())


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if "patternProperties" not in schema:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, allowed, instance, schema)


def _short(error: Exception) -> str:
    text = error.message if hasattr(error, "message") else str(error) or type(error).__name__
    return str(text).splitlines()[0][:_MOST_CHARACTERS]
