"""Checks a payload against an algorithm's JSON Schema before it is queued.

It is an early and friendly answer, not the verdict: the runner decides. So it looks only at keywords that say the same
to everybody, and lets pass what another reader of the schema might take: what a ``pattern`` means (other dialects, and
a hostile one never ends), ``format``, ``multipleOf`` of floats, ``uniqueItems`` (a set takes duplicates), whatever
depends on something *not* fitting, parts that the runner has marked, and references that lead out of the schema.

The schema is read as it is, one step for each value that is held against a part of it, and a check that needs too many
is given up, whatever the schema and the payload are. That is why no library does this: they look at all that is wrong
before they tell anything, and alternatives of alternatives keep them for ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from producer.gateway.error_messages import FieldError, Mistake, field_errors
from runnerlib.contract import AlgorithmView
from runnerlib.contract.names import UNCHECKED

#: Mistakes that one answer names.
MOST_ERRORS = 20
#: Mistakes that are looked at, to choose from.
_MOST_FOUND = 200
#: Steps that a check has in any case, those that each byte of the payload adds, and the most: about half a second.
FREE_STEPS = 20_000
STEPS_OF_A_BYTE = 4
MOST_STEPS = 500_000
#: An alternative that does not fit is kept until another does.
_STEPS_OF_MISFIT = 4

#: A schema with other words than these may refuse a payload whose fields have the right types.
_WORDS_OF_OBJECT = frozenset(
    {"type", "title", "description", "properties", "required", "additionalProperties", "examples", "$defs"}
)
_WORDS_OF_FIELD = frozenset({"type", "title", "description", "default", "examples"})
_PLAIN = {"string": str, "integer": int, "number": float, "boolean": bool}

Path = tuple[str | int, ...]


class _TooLong(Exception):
    """The check is given up."""


def payload_errors(algorithm: AlgorithmView, payload: Any, size: int) -> list[FieldError]:
    """What does not fit, field by field in the schema's order; empty when it fits or nobody but the runner can tell.

    `size` is that of the payload in bytes: small ones get a short check.
    """
    schema = algorithm.description.input_schema
    if schema is None or _is_plainly_right(schema, payload):
        return []
    try:
        steps = min(FREE_STEPS + STEPS_OF_A_BYTE * size, MOST_STEPS)
        found = _Check(schema, steps).mistakes(schema, payload, ())
    except (_TooLong, RecursionError):
        return []
    return field_errors(found, MOST_ERRORS)


def _is_plainly_right(schema: dict[str, Any], payload: Any) -> bool:
    """Whether a payload fits a schema that has plain fields alone, as most have: seen quickly. False is no verdict."""
    if not isinstance(payload, dict) or not _WORDS_OF_OBJECT.issuperset(schema) or schema.get("type") != "object":
        return False
    fields, required = schema.get("properties"), schema.get("required", ())
    if not isinstance(fields, dict) or not isinstance(required, list | tuple):
        return False
    for name, value in payload.items():
        part = fields.get(name)
        if not isinstance(part, dict) or not _WORDS_OF_FIELD.issuperset(part):
            return False
        kind = part.get("type")
        if not isinstance(kind, str) or type(value) is not _PLAIN.get(kind):
            return False
    return all(isinstance(name, str) and name in payload for name in required)


@dataclass(slots=True)
class _Check:
    """One payload's way through a schema."""

    root: dict[str, Any]
    left: int
    resolved: dict[str, Any] = field(default_factory=dict)

    def mistakes(self, schema: Any, value: Any, path: Path) -> list[Mistake]:
        """Of one value against one part of the schema; a wrong type alone, when that is wrong."""
        self.spend(1)
        if not isinstance(schema, dict) or schema.get(UNCHECKED) is False:
            return [Mistake(path, "not", schema, value)] if schema is False else []
        wanted = schema.get("type")
        if wanted is not None and not _has_type(value, wanted) and not self.is_listed(schema, value):
            return [Mistake(path, "type", wanted, value)]
        found: list[Mistake] = []
        for keyword, said in schema.items():
            rule = _RULES.get(keyword)
            if rule is not None and len(found) < _MOST_FOUND:
                found += rule(self, said, value, path, schema)
        if "additionalProperties" in schema and len(found) < _MOST_FOUND:
            found += _additional(self, schema["additionalProperties"], value, path, schema)
        return found

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _TooLong

    def is_listed(self, schema: dict[str, Any], value: Any) -> bool:
        """An enumeration of numbers takes what equals one of them, whatever its type."""
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        return isinstance(choices, list) and self.is_one_of(value, choices)

    def is_one_of(self, value: Any, choices: list[Any]) -> bool:
        """As Python compares, so 1, 1.0 and true are the same. Lists and objects are left to the runner."""
        self.spend(len(choices) // 8)
        if isinstance(value, dict | list):
            return any(isinstance(one, dict | list) for one in choices)
        if isinstance(value, str):
            self.spend(len(value) // 1024)
        return value in choices

    def part(self, reference: Any) -> Any:
        """What a ``$ref`` means; an empty schema for one that leads elsewhere."""
        if not isinstance(reference, str):
            return {}
        if reference not in self.resolved:
            self.resolved[reference] = _resolved(self.root, reference)
        return self.resolved[reference]


Rule = Callable[[_Check, Any, Any, Path, dict[str, Any]], Sequence[Mistake]]


def _resolved(root: Any, reference: str) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        return {}
    part = root
    for step in unquote(reference[2:]).split("/") if len(reference) > 1 else ():
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and int(name[:9]) < len(part):
            part = part[int(name[:9])]
        else:
            return {}
        if isinstance(part, dict) and "$id" in part:
            return {}  # from here on, references begin elsewhere
    return part


def _has_type(value: Any, wanted: Any) -> bool:
    """Also for what is no type: that says nothing."""
    if isinstance(wanted, list):
        return not wanted or any(_has_type(value, one) for one in wanted)
    if not isinstance(wanted, str) or wanted not in _PYTHON:
        return True
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON[wanted])


_PYTHON: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def _reference(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    return check.mistakes(check.part(said), value, path)


def _properties(check: _Check, said: Any, value: Any, path: Path, schema: dict[str, Any]) -> Sequence[Mistake]:
    """Fields in the order of the schema, those that are missing in their places, too."""
    if not isinstance(said, dict) or not isinstance(value, dict):
        return ()
    check.spend(len(said) // 8)
    required = _names(schema.get("required"))
    found: list[Mistake] = []
    for name, part in said.items():
        if name in value:
            found += check.mistakes(part, value[name], (*path, name))
        elif name in required:
            found.append(Mistake((*path, name), "required", None, None))
        if len(found) >= _MOST_FOUND:
            break
    return found


def _required(check: _Check, said: Any, value: Any, path: Path, schema: dict[str, Any]) -> Sequence[Mistake]:
    """Those that are no properties: `_properties` names the others."""
    if not isinstance(value, dict) or not isinstance(said, list):
        return ()
    check.spend(len(said) // 8)
    told = schema.get("properties")
    told = told if isinstance(told, dict) else {}
    missing = [name for name in said if isinstance(name, str) and name not in value and name not in told]
    return [Mistake((*path, name), "required", None, None) for name in missing[:_MOST_FOUND]]


def _additional(check: _Check, said: Any, value: Any, path: Path, schema: dict[str, Any]) -> Sequence[Mistake]:
    """Patterns for names are left to the runner, and with them which names are additional."""
    if not isinstance(value, dict) or said is True or "patternProperties" in schema:
        return ()
    known = schema.get("properties")
    known = known if isinstance(known, dict) else {}
    check.spend(len(value) // 8)
    found: list[Mistake] = []
    for name, one in value.items():
        if name in known:
            continue
        if said is False:
            found.append(Mistake((*path, name), "additionalProperties", known, one))
        else:
            found += check.mistakes(said, one, (*path, name))
        if len(found) >= _MOST_FOUND:
            break
    return found


def _items(check: _Check, said: Any, value: Any, path: Path, schema: dict[str, Any]) -> Sequence[Mistake]:
    if not isinstance(value, list) or said is True:
        return ()
    before = schema.get("prefixItems")
    start = len(before) if isinstance(before, list) else 0
    found: list[Mistake] = []
    for place in range(start, len(value)):
        found += check.mistakes(said, value[place], (*path, place))
        if len(found) >= _MOST_FOUND:
            break
    return found


def _prefix_items(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    if not isinstance(value, list) or not isinstance(said, list):
        return ()
    found: list[Mistake] = []
    for place, (part, one) in enumerate(zip(said, value, strict=False)):
        found += check.mistakes(part, one, (*path, place))
    return found[:_MOST_FOUND]


def _all_of(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    found: list[Mistake] = []
    for part in said if isinstance(said, list) else ():
        found += check.mistakes(part, value, path)
    return found[:_MOST_FOUND]


def _any_of(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    """Also for ``oneOf``: that several fit is no reason to refuse, parts of them may be left to the runner."""
    branches: list[list[Mistake]] = []
    for part in said if isinstance(said, list) else ():
        found = check.mistakes(part, value, ())
        if not found:
            return ()
        branches.append(found)
        check.spend(_STEPS_OF_MISFIT)
    return [Mistake(path, "anyOf", said, value, branches)] if branches else ()


def _enum(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    if not isinstance(said, list) or not said:
        return ()
    return () if check.is_one_of(value, said) else [Mistake(path, "enum", said, value)]


def _const(check: _Check, said: Any, value: Any, path: Path, _schema: Any) -> Sequence[Mistake]:
    return () if check.is_one_of(value, [said]) else [Mistake(path, "const", said, value)]


def _limit(keyword: str, kinds: Any, misses: Callable[[Any, Any], bool]) -> Rule:
    def rule(_check: _Check, said: Any, value: Any, path: Path, schema: dict[str, Any]) -> Sequence[Mistake]:
        if isinstance(said, bool) or not isinstance(said, int | float):
            return ()
        if isinstance(value, bool) or not isinstance(value, kinds) or not misses(value, said):
            return ()
        if keyword == "maxItems" and schema.get("uniqueItems") is True:
            return ()  # a set has fewer entries than what it is made of
        return [Mistake(path, keyword, said, value)]

    return rule


_NUMBER = (int, float)
_RULES: dict[str, Rule] = {
    "$ref": _reference,
    "properties": _properties,
    "required": _required,
    "items": _items,
    "prefixItems": _prefix_items,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _any_of,
    "enum": _enum,
    "const": _const,
    "minimum": _limit("minimum", _NUMBER, lambda value, said: value < said),
    "maximum": _limit("maximum", _NUMBER, lambda value, said: value > said),
    "exclusiveMinimum": _limit("exclusiveMinimum", _NUMBER, lambda value, said: value <= said),
    "exclusiveMaximum": _limit("exclusiveMaximum", _NUMBER, lambda value, said: value >= said),
    "minLength": _limit("minLength", str, lambda value, said: len(value) < said),
    "maxLength": _limit("maxLength", str, lambda value, said: len(value) > said),
    "minItems": _limit("minItems", list, lambda value, said: len(value) < said),
    "maxItems": _limit("maxItems", list, lambda value, said: len(value) > said),
    "minProperties": _limit("minProperties", dict, lambda value, said: len(value) < said),
    "maxProperties": _limit("maxProperties", dict, lambda value, said: len(value) > said),
}


def _names(required: Any) -> frozenset[str]:
    return frozenset(one for one in required if isinstance(one, str)) if isinstance(required, list) else frozenset()
