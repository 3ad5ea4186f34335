"""Formats what is wrong with a request, one message per field: ``text is missing``."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from runnerlib.contract import near_names

#: Longest piece of a sender's own data, or of a schema, in a message.
MAX_SHOWN = 80
_MAX_CHOICES = 12
_MAX_NESTING = 8
#: Known names that an unknown one is compared with.
_MAX_COMPARED = 200

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


class Mistake(NamedTuple):
    """Where a value does not fit a schema.

    `keyword` is the one that failed and `wanted` its value; for an unknown field, the known ones. `branches` are the
    mistakes of each alternative, with paths relative to `value`.
    """

    path: tuple[str | int, ...]
    keyword: str
    wanted: Any
    value: Any
    branches: Sequence[Sequence["Mistake"]] = ()


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: ``items[3].name``, or ``payload`` for the whole."""

    field: str
    message: str


def field_errors(mistakes: Iterable[Mistake], most: int) -> list[FieldError]:
    """The first mistakes as messages, in order, one per field."""
    by_field: dict[str, FieldError] = {}
    for leaf in (leaf for mistake in mistakes for leaf in _leaves(mistake)):
        field = field_path(leaf.path) or "payload"
        if field not in by_field:
            by_field[field] = FieldError(field, _message(leaf))
        if len(by_field) == most:
            break
    return list(by_field.values())


def in_one_line(errors: Sequence[FieldError], most: int = 3) -> str:
    """The first errors as one sentence."""
    text = "; ".join(f"{error.field} {error.message}" for error in errors[:most])
    return text if len(errors) <= most else f"{text}; and {len(errors) - most} more"


def field_path(path: Iterable[str | int]) -> str:
    """``items[3].name``; empty for the value as a whole."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:MAX_SHOWN]}" if text else part[:MAX_SHOWN]
    return text[: 4 * MAX_SHOWN]


def _leaves(mistake: Mistake, depth: int = 0) -> Iterator[Mistake]:
    """If it is clear which alternative the sender meant, the mistakes in that one; else the mistake itself."""
    branch = _meant_branch(mistake) if depth < _MAX_NESTING else ()
    if not branch:
        yield mistake
    for child in branch:
        yield from _leaves(child._replace(path=(*mistake.path, *child.path)), depth + 1)


def _meant_branch(mistake: Mistake) -> Sequence[Mistake]:
    candidates = [branch for branch in mistake.branches if not any(map(_means_other_branch, branch))]
    return candidates[0] if len(candidates) == 1 else ()


def _means_other_branch(mistake: Mistake) -> bool:
    """A wrong type at the top, or a wrong constant (a union's tag): the sender meant another alternative."""
    return (mistake.keyword == "type" and not mistake.path) or mistake.keyword == "const"


def _message(mistake: Mistake) -> str:
    wording = _WORDINGS[mistake.keyword]
    return wording.format(_shown(mistake.wanted)) if isinstance(wording, str) else wording(mistake)


def _unknown(mistake: Mistake) -> str:
    known = list(islice(mistake.wanted, _MAX_COMPARED))
    near = near_names(str(mistake.path[-1])[:MAX_SHOWN], known)
    if near:
        return f"is not a field; did you mean {near[0]!r}?"
    shown = ", ".join(name[:MAX_SHOWN] for name in known[:_MAX_CHOICES])
    return f"is not a field; the fields are {shown}" if known else "is not a field"


def _alternatives(mistake: Mistake) -> str:
    children = [child for branch in mistake.branches for child in branch]
    if all(child.keyword == "type" and not child.path for child in children):
        return _must_be([name for child in children[:_MAX_CHOICES] for name in _type_names(child)], mistake.value)
    tags = [child for child in children if child.keyword == "const"]
    if tags and tags[0].path and len({tag.path for tag in tags}) == 1:
        values = ", ".join(_shown(tag.wanted) for tag in tags[:_MAX_CHOICES])
        return f"has {field_path(tags[0].path)!r} {_shown(tags[0].value)}, which must be one of {values}"
    fitting = [child for child in children if not _means_other_branch(child)]
    if not fitting:
        return "fits none of its allowed forms"
    return "fits none of its allowed forms: " + " — or ".join(
        dict.fromkeys(_short(_message(child), 2 * MAX_SHOWN) for child in fitting[:3])
    )


def _choices(mistake: Mistake) -> str:
    shown = [_shown(value) for value in mistake.wanted[:_MAX_CHOICES]]
    others = len(mistake.wanted) - len(shown)
    return f"must be one of {', '.join(shown)}" + (f" or {others} others" if others else "")


#: By keyword: what the schema asks for is inserted into a text.
_WORDINGS: dict[str, str | Callable[[Mistake], str]] = {
    "required": "is missing",
    "not": "is not allowed",
    "additionalProperties": _unknown,
    "type": lambda mistake: _must_be(_type_names(mistake), mistake.value),
    "anyOf": _alternatives,
    "enum": _choices,
    "const": "must be {}",
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} entries",
    "maxItems": "must have at most {} entries",
    "minProperties": "must have at least {} fields",
    "maxProperties": "must have at most {} fields",
}


def _must_be(type_names: Sequence[str], value: Any) -> str:
    """Alternatives may repeat a type; it is named once."""
    *others, last = list(dict.fromkeys(type_names))[:_MAX_CHOICES]
    return f"must be {', '.join(others)}{' or ' if others else ''}{last}, not {_type_of(value)}"


def _type_names(mistake: Mistake) -> list[str]:
    """A schema's ``type`` is one name or a list of names."""
    wanted = mistake.wanted if isinstance(mistake.wanted, list) else [mistake.wanted]
    return [_TYPES.get(str(name), str(name)[:MAX_SHOWN]) for name in wanted[:_MAX_CHOICES]]


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return _TYPES[name]
    return "null"


def _shown(value: Any) -> str:
    """As JSON, cut."""
    shown = value[: MAX_SHOWN + 1] if isinstance(value, str) else value
    return _short(json.dumps(shown, ensure_ascii=False))


def _short(text: str, most: int = MAX_SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
