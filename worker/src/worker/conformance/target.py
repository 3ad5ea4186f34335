"""Chooses what a runner is tested with: one of its algorithms, and payloads checked against its JSON Schemas."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import SchemaError
from jsonschema.exceptions import ValidationError as Mismatch
from referencing import Registry
from referencing.exceptions import Unresolvable

from runnerlib.contract import AlgorithmDescription
from worker.conformance.client import NOT_GIVEN, CheckFailed, Client, Target
from worker.errors import WorkerError

_MOST_CHARACTERS = 300
#: Alternatives that refer to alternatives can take exponentially many steps.
_MOST_REFERENCES = 20_000


class BadRequest(WorkerError):
    """The command line asks for something that cannot be done; the message says what to give."""


async def find_target(client: Client, asked: Target) -> Target:
    """Completes what was asked for with what the runner says in GET /schemas. Raises BadRequest, Unreachable."""
    try:
        described = {each.name: each for each in await client.described()}
    except CheckFailed:
        described = {}  # a check reports what is wrong with the list
    name = asked.algorithm
    if not name and not described:
        raise BadRequest(
            "the runner does not say what it offers: GET /schemas gives no list of algorithms that can be read; "
            "name one with --algorithm, and a check will tell what is wrong with the list"
        )
    if not name:
        one = next(iter([each for each in described.values() if each.example] or described.values()))
    elif described and name not in described:
        raise BadRequest(f"the runner has no algorithm {name!r} in GET /schemas; it has {', '.join(described)}")
    else:
        # Of a runner that says nothing, by the name as it was typed.
        one = described.get(name) or AlgorithmDescription.model_construct(name=name)
    payload = asked.payload
    if payload is NOT_GIVEN:
        if one.example is None:
            raise BadRequest(f"{one.name} has no example in GET /schemas; give a payload that fits with --payload JSON")
        payload = one.example.payload
    unfit = _unfit(payload, one.input_schema) if asked.unfit is NOT_GIVEN else asked.unfit
    return Target(one.name, payload, unfit, asked.slow, one.limits.slots)


def _unfit(payload: Any, schema: dict[str, Any] | None) -> Any:
    """A payload that the schema refuses, or NOT_GIVEN if it accepts everything that is tried."""
    more = [{**payload, "no_field_of_it": True}] if isinstance(payload, dict) else []
    candidates = [*more, [payload], None, "no payload of it", 0, {}]
    if schema is None or schema_error(schema):
        return candidates[len(more)]
    return next((each for each in candidates if mismatch(each, schema)), NOT_GIVEN)


def other_than(payload: Any) -> Any:
    """A different payload of the same kind."""
    if isinstance(payload, dict):
        for field, value in payload.items():
            if isinstance(value, str | int | float):
                return {**payload, field: other_than(value)}
        return {**payload, "another_field": True}
    if isinstance(payload, bool):
        return not payload
    if isinstance(payload, str):
        return payload + " more"
    return payload + 1 if isinstance(payload, int | float) else [payload]


# JSON Schemas come from strangers: nothing that they refer to is fetched, and validation is bounded.


class _TooManyReferences(Exception):
    """Validation was given up."""


def schema_error(schema: Any) -> str | None:
    """Returns why this is not a JSON Schema (2020-12), or None."""
    if not isinstance(schema, dict):
        return "it is no object"
    try:
        # Without formats: a regular expression for another language than Python is valid, too.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except (SchemaError, RecursionError) as error:
        return _short(error)
    return None


def mismatch(value: Any, schema: dict[str, Any]) -> str | None:
    """Returns why the value does not match the schema, or None. Nothing matches a schema that cannot be used."""
    try:
        error = next(_new_validator(schema).iter_errors(value), None)
    # ValueError: an "$id" that is no URL.
    except (Unresolvable, RecursionError, ValueError, _TooManyReferences) as unusable:
        return _short(unusable)
    return None if error is None else _short(error)


def _new_validator(schema: dict[str, Any]) -> Any:
    """Ignores regular expressions: Python's dialect differs, and a hostile one may never finish."""
    followed = count(1)
    original = Draft202012Validator.VALIDATORS

    def reference(keyword: str) -> Any:
        def check(*arguments: Any) -> Iterator[Mismatch]:
            if next(followed) > _MOST_REFERENCES:
                raise _TooManyReferences(f"it takes more than {_MOST_REFERENCES} references to tell")
            yield from original[keyword](*arguments)

        return check

    def additional_properties(validator: Any, allowed: Any, instance: Any, inside: Any) -> Iterator[Mismatch]:
        if "patternProperties" not in inside:
            yield from original["additionalProperties"](validator, allowed, instance, inside)

    ignored = {name: lambda *_: iter(()) for name in ("pattern", "patternProperties", "unevaluatedProperties")}
    references = {name: reference(name) for name in ("$ref", "$dynamicRef")}
    keywords = {**ignored, **references, "additionalProperties": additional_properties}
    registry: Registry[Any] = Registry()
    return validators.extend(Draft202012Validator, keywords)(schema, registry=registry)  # type: ignore[no-untyped-call]


def _short(error: Exception) -> str:
    text = error.message if hasattr(error, "message") else str(error) or type(error).__name__
    return str(text).splitlines()[0][:_MOST_CHARACTERS]
