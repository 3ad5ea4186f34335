"""Checks a payload against an algorithm's JSON Schema before it is queued.

It is an early and friendly answer, not the verdict: the runner decides. So whatever could refuse what a runner takes
is left to the runner: `pattern` (other regex dialect, and a hostile one could hang us), `uniqueItems` (a set takes
duplicates), `multipleOf` (floats), any schema that cannot be used, and whatever takes long: alternatives that refer to
alternatives can ask for more steps than anybody has time for.
"""

import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from producer.gateway.formats import new_format_checker
from producer.gateway.sentences import FieldError, field_errors
from runnerlib.contract import AlgorithmView
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Mistakes that one answer names.
MOST_ERRORS = 20
#: Mistakes that are looked at, to choose from.
_MOST_FOUND = 200
#: Compiled schemas that are kept.
MOST_SCHEMAS = 1000
#: References that a check follows in any case,
FREE_REFERENCES = 1000
#: and how long it goes on after that.
MOST_SECONDS = 0.25


class _TooLong(Exception):
    """The check is given up."""


@dataclass(slots=True)
class _Budget:
    """Of one check: what it has followed, and when it has to end."""

    ends_at: float
    references: int = 0

    def spend(self) -> None:
        self.references += 1
        if self.references > FREE_REFERENCES and time.monotonic() > self.ends_at:
            raise _TooLong


_budget: ContextVar[_Budget] = ContextVar("_budget")


class Validator(Protocol):
    """What is used of jsonschema's validators."""

    def iter_errors(self, instance: Any) -> Iterator[ValidationError]: ...


class PayloadChecks:
    """Compiled schemas by their digest. Safe to use from several threads."""

    def __init__(self) -> None:
        self._formats = new_format_checker()
        self._compiled: dict[str, Validator | None] = {}

    def errors(self, algorithm: AlgorithmView, payload: Any) -> list[FieldError]:
        """What does not fit, field by field in the schema's order; empty when it fits or nothing is known."""
        schema = algorithm.description.input_schema
        if schema is None:
            return []
        validator = self._validator(algorithm.schema_digest, algorithm.description.name, schema)
        if validator is None:
            return []
        token = _budget.set(_Budget(time.monotonic() + MOST_SECONDS))
        try:
            found = list(islice(validator.iter_errors(payload), _MOST_FOUND))
        # ValueError: an "$id" that is no URL.
        except (RecursionError, Unresolvable, UnknownType, ValueError, _TooLong):
            return []
        finally:
            _budget.reset(token)
        return field_errors(found, schema)[:MOST_ERRORS] if found else []

    def _validator(self, digest: str, name: str, schema: dict[str, Any]) -> Validator | None:
        if digest in self._compiled:
            return self._compiled[digest]
        if len(self._compiled) >= MOST_SCHEMAS:
            self._compiled = {}
        compiled = _compile(name, schema, self._formats)
        self._compiled[digest] = compiled
        return compiled


def _compile(name: str, schema: dict[str, Any], formats: FormatChecker) -> Validator | None:
    try:
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except (SchemaError, RecursionError, Unresolvable) as error:
        reason = error.message if isinstance(error, SchemaError) else type(error).__name__
        log.warning("a schema cannot be used; payloads go to the runner unchecked", algorithm=name, reason=reason)
        return None
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    # An empty registry: a "$ref" to an address is never fetched.
    registry: Registry[Any] = Registry()
    validator: Validator = _DoorValidator(plain, registry=registry, format_checker=formats)
    return validator


def _left_to_the_runner(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> Iterator[ValidationError]:
    return iter(())


def _followed(keyword: str, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Like the original, within the budget."""
    _budget.get().spend()
    yield from Draft202012Validator.VALIDATORS[keyword](validator, value, instance, schema)


def _required(validator: Any, required: list[str], instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Like the original, with the missing field in the error's path."""
    if validator.is_type(instance, "object"):
        for name in required:
            if name not in instance:
                yield ValidationError("is missing", path=(name,))


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Like the original, with the unknown field in the error's path; patterns for names are left to the runner."""
    if not validator.is_type(instance, "object") or "patternProperties" in schema:
        return
    known = schema.get("properties", {})
    for name in instance:
        if name in known:
            continue
        if allowed is False:
            yield ValidationError("is not a field", path=(name,))
        elif isinstance(allowed, dict):
            yield from validator.descend(instance[name], allowed, path=name)


_DoorValidator = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "$ref": partial(_followed, "$ref"),
        "$dynamicRef": partial(_followed, "$dynamicRef"),
        "required": _required,
        "additionalProperties": _additional_properties,
        "pattern": _left_to_the_runner,
        "patternProperties": _left_to_the_runner,
        # Looks at the patterns for names, too.
        "unevaluatedProperties": _left_to_the_runner,
        "uniqueItems": _left_to_the_runner,
        "multipleOf": _left_to_the_runner,
    },
)
