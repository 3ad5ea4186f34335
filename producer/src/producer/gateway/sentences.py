"""Says in words what is wrong with which field of a payload."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import ValidationError

from producer.gateway.formats import EXAMPLES
from runnerlib.contract import near_names

#: Longest piece of a sender's own data, or of a schema, in a message.
_MOST_SHOWN = 80
_MOST_CHOICES = 12
_MOST_NESTING = 8

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault: ``items[3].name``, or ``payload`` for the whole."""

    field: str
    message: str


def field_errors(errors: Iterable[ValidationError], schema: dict[str, Any]) -> list[FieldError]:
    """The errors as sentences, in the order of the schema's fields; unknown fields last; each place once."""
    leaves = [leaf for error in errors for leaf in _leaves(error)]
    order = {name: place for place, name in enumerate(schema.get("properties", {}))}
    leaves.sort(key=lambda leaf: _rank(leaf, order))
    by_field: dict[str, FieldError] = {}
    for leaf in leaves:
        field = _field(leaf.absolute_path)
        by_field.setdefault(field, FieldError(field, _sentence(leaf)))
    return list(by_field.values())


def in_one_line(errors: Sequence[FieldError], most: int = 3) -> str:
    """The first errors as one sentence."""
    text = "; ".join(f"{error.field} {error.message}" for error in errors[:most])
    return text if len(errors) <= most else f"{text}; and {len(errors) - most} more"


def _rank(error: ValidationError, order: dict[Any, int]) -> tuple[int, bool]:
    path = error.absolute_path
    return (order.get(path[0], len(order)) if path else -1, error.validator == "additionalProperties")


def _leaves(error: ValidationError, depth: int = 0) -> Iterator[ValidationError]:
    """Of alternatives, the errors of the one that was meant, when that is clear; else the error itself."""
    branch = _meant_branch(error) if error.context and depth < _MOST_NESTING else []
    if not branch:
        yield error
    for child in branch:
        yield from _leaves(child, depth + 1)


def _meant_branch(error: ValidationError) -> list[ValidationError]:
    candidates = [branch for branch in _branches(error).values() if not any(map(_means_other_branch, branch))]
    return candidates[0] if len(candidates) == 1 else []


def _branches(error: ValidationError) -> dict[Any, list[ValidationError]]:
    branches: dict[Any, list[ValidationError]] = {}
    for child in error.context or ():
        branches.setdefault(child.relative_schema_path[0], []).append(child)
    return branches


def _means_other_branch(error: ValidationError) -> bool:
    """A wrong type at the top, or a wrong constant (a union's tag): the sender meant another alternative."""
    return (error.validator == "type" and not error.relative_path) or error.validator == "const"


def _field(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:_MOST_SHOWN]}" if text else part[:_MOST_SHOWN]
    return text[: 4 * _MOST_SHOWN] or "payload"


def _sentence(error: ValidationError) -> str:
    write = _SENTENCES.get(str(error.validator))
    return write(error) if write else _short(error.message, 200)


def _unknown(error: ValidationError) -> str:
    name = str(error.relative_path[-1]) if error.relative_path else ""
    known = list(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
    near = near_names(name[:_MOST_SHOWN], known)
    if near:
        return f"is not a field; did you mean {near[0]!r}?"
    return f"is not a field; the fields are {', '.join(known[:_MOST_CHOICES])}" if known else "is not a field"


def _type(error: ValidationError) -> str:
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    return f"must be {_or(_type_name(one) for one in wanted)}, not {_type_of(error.instance)}"


def _alternatives(error: ValidationError) -> str:
    children = error.context or []
    if children and all(child.validator == "type" and not child.relative_path for child in children):
        wanted = dict.fromkeys(_type_name(child.validator_value) for child in children)
        return f"must be {_or(wanted)}, not {_type_of(error.instance)}"
    tags = [child for child in children if child.validator == "const"]
    if tags and len({tuple(tag.relative_path) for tag in tags}) == 1:
        values = ", ".join(_short(_json(tag.validator_value)) for tag in tags[:_MOST_CHOICES])
        return f"has {_field(tags[0].relative_path)!r} {_short(_json(tags[0].instance))}, which must be one of {values}"
    fitting = [child for child in children if not _means_other_branch(child)]
    if not fitting:
        return "fits none of its allowed forms"
    return "fits none of its allowed forms: " + " — or ".join(
        dict.fromkeys(_short(_sentence(child), 2 * _MOST_SHOWN) for child in fitting[:3])
    )


def _choices(error: ValidationError) -> str:
    values = error.validator_value if isinstance(error.validator_value, list) else []
    shown = [_short(_json(value)) for value in values[:_MOST_CHOICES]]
    more = f" or {len(values) - len(shown)} others" if len(values) > len(shown) else ""
    return f"must be one of {', '.join(shown)}{more}"


def _format(error: ValidationError) -> str:
    example = EXAMPLES.get(str(error.validator_value))
    return f"must have the format {error.validator_value}" + (f", such as {example}" if example else "")


def _limit(words: str) -> Callable[[ValidationError], str]:
    def write(error: ValidationError) -> str:
        return words.format(_short(_json(error.validator_value)))

    return write


_SENTENCES: dict[str, Callable[[ValidationError], str]] = {
    "required": lambda _error: "is missing",
    "additionalProperties": _unknown,
    "type": _type,
    "anyOf": _alternatives,
    "oneOf": _alternatives,
    "enum": _choices,
    "format": _format,
    "const": _limit("must be {}"),
    "minimum": _limit("must be at least {}"),
    "maximum": _limit("must be at most {}"),
    "exclusiveMinimum": _limit("must be more than {}"),
    "exclusiveMaximum": _limit("must be less than {}"),
    "minLength": _limit("must have at least {} characters"),
    "maxLength": _limit("must have at most {} characters"),
    "minItems": _limit("must have at least {} entries"),
    "maxItems": _limit("must have at most {} entries"),
    "minProperties": _limit("must have at least {} fields"),
    "maxProperties": _limit("must have at most {} fields"),
}


def _type_name(name: Any) -> str:
    return _TYPES.get(str(name), str(name)[:_MOST_SHOWN])


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return _TYPES[name]
    return "null"


def _or(words: Iterable[str]) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(text: str, most: int = _MOST_SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
