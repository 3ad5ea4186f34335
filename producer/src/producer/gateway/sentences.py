"""Says in words what is wrong with which field of a payload."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from runnerlib.contract import near_names

#: Longest piece of a sender's own data, or of a schema, in a message.
_MOST_SHOWN = 80
_MOST_CHOICES = 12
_MOST_NESTING = 8
#: Names that are compared with one that is not a field.
_MOST_COMPARED = 200

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

    `keyword` is the one that it does not fit, `wanted` what that says; for an unknown field the known ones. `branches`
    are the mistakes of each alternative, with paths that begin at `value`.
    """

    path: tuple[str | int, ...]
    keyword: str
    wanted: Any
    value: Any
    branches: Sequence[Sequence["Mistake"]] = ()


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault: ``items[3].name``, or ``payload`` for the whole."""

    field: str
    message: str


def field_errors(mistakes: Iterable[Mistake], most: int) -> list[FieldError]:
    """The first mistakes as sentences, in their order; each place once."""
    by_field: dict[str, FieldError] = {}
    for leaf in (leaf for mistake in mistakes for leaf in _leaves(mistake)):
        field = _field(leaf.path)
        if field not in by_field:
            by_field[field] = FieldError(field, _sentence(leaf))
        if len(by_field) == most:
            break
    return list(by_field.values())


def in_one_line(errors: Sequence[FieldError], most: int = 3) -> str:
    """The first errors as one sentence."""
    text = "; ".join(f"{error.field} {error.message}" for error in errors[:most])
    return text if len(errors) <= most else f"{text}; and {len(errors) - most} more"


def _leaves(mistake: Mistake, depth: int = 0) -> Iterator[Mistake]:
    """Of alternatives, the mistakes of the one that was meant, when that is clear; else the mistake itself."""
    branch = _meant_branch(mistake) if depth < _MOST_NESTING else ()
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


def _field(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part[:_MOST_SHOWN]}" if text else part[:_MOST_SHOWN]
    return text[: 4 * _MOST_SHOWN] or "payload"


def _sentence(mistake: Mistake) -> str:
    return _SENTENCES[mistake.keyword](mistake)


def _unknown(mistake: Mistake) -> str:
    known = list(islice(mistake.wanted, _MOST_COMPARED))
    near = near_names(str(mistake.path[-1])[:_MOST_SHOWN], known)
    if near:
        return f"is not a field; did you mean {near[0]!r}?"
    shown = ", ".join(name[:_MOST_SHOWN] for name in known[:_MOST_CHOICES])
    return f"is not a field; the fields are {shown}" if known else "is not a field"


def _type(mistake: Mistake) -> str:
    return _must_be(_type_names(mistake), mistake.value)


def _alternatives(mistake: Mistake) -> str:
    children = [child for branch in mistake.branches for child in branch]
    if all(child.keyword == "type" and not child.path for child in children):
        return _must_be([name for child in children[:_MOST_CHOICES] for name in _type_names(child)], mistake.value)
    tags = [child for child in children if child.keyword == "const"]
    if tags and tags[0].path and len({tag.path for tag in tags}) == 1:
        values = ", ".join(_short(_json(tag.wanted)) for tag in tags[:_MOST_CHOICES])
        return f"has {_field(tags[0].path)!r} {_short(_json(tags[0].value))}, which must be one of {values}"
    fitting = [child for child in children if not _means_other_branch(child)]
    if not fitting:
        return "fits none of its allowed forms"
    return "fits none of its allowed forms: " + " — or ".join(
        dict.fromkeys(_short(_sentence(child), 2 * _MOST_SHOWN) for child in fitting[:3])
    )


def _choices(mistake: Mistake) -> str:
    values = mistake.wanted
    shown = [_short(_json(value)) for value in values[:_MOST_CHOICES]]
    more = f" or {len(values) - len(shown)} others" if len(values) > len(shown) else ""
    return f"must be one of {', '.join(shown)}{more}"


def _limit(words: str) -> Callable[[Mistake], str]:
    def write(mistake: Mistake) -> str:
        return words.format(_short(_json(mistake.wanted)))

    return write


_SENTENCES: dict[str, Callable[[Mistake], str]] = {
    "required": lambda _mistake: "is missing",
    "not": lambda _mistake: "is not allowed",
    "additionalProperties": _unknown,
    "type": _type,
    "anyOf": _alternatives,
    "enum": _choices,
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


def _must_be(type_names: Sequence[str], value: Any) -> str:
    """Each name once: alternatives may repeat one."""
    return f"must be {_or(list(dict.fromkeys(type_names))[:_MOST_CHOICES])}, not {_type_of(value)}"


def _type_names(mistake: Mistake) -> list[str]:
    """Those that a ``type`` allows: it is one name or a list of them."""
    wanted = mistake.wanted if isinstance(mistake.wanted, list) else [mistake.wanted]
    return [_type_name(one) for one in wanted[:_MOST_CHOICES]]


def _type_name(name: Any) -> str:
    return _TYPES.get(str(name), str(name)[:_MOST_SHOWN])


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return _TYPES[name]
    return "null"


def _or(listed: Sequence[str]) -> str:
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} or {listed[-1]}"


def _json(value: Any) -> str:
    shown = value[: _MOST_SHOWN + 1] if isinstance(value, str) else value
    return json.dumps(shown, ensure_ascii=False)


def _short(text: str, most: int = _MOST_SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
