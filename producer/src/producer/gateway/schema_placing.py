"""Gives a runner's JSON Schema a place among the components of an OpenAPI document. Pure.

Each of its ``$defs`` becomes a component of its own, under a name that begins with its owner's, and references are
turned accordingly. A schema that could break the document, or whoever reads it, is not placed at all: Unplaceable.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError

from runnerlib.contract import StrictJsonError, strict_json

COMPONENTS = "#/components/schemas/"
MOST_BYTES = 128 * 1024
_MOST_DEPTH = 64

_SCHEMAS = frozenset(
    {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
#: These apply to the very same value; a circle of them alone never ends.
_IN_PLACE = frozenset({"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
#: They change what other references mean.
_REFUSED = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
)

Path = tuple[str, ...]


class Unplaceable(ValueError):
    """The message says why, after "its schema "."""


def place(schema: dict[str, Any], owner: str) -> dict[str, Any]:
    """Components by name; the one called `owner` is the schema itself. Raises Unplaceable."""
    try:
        size = len(strict_json.dumps(schema))
        if size > MOST_BYTES:
            raise Unplaceable(f"has {size} bytes, more than {MOST_BYTES}")
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
        return _Placing(schema, owner).components()
    except RecursionError:
        raise Unplaceable(f"is nested deeper than {_MOST_DEPTH} levels") from None
    except StrictJsonError as error:
        raise Unplaceable(f"is {error}") from None
    except SchemaError as error:
        raise Unplaceable(f"is not a JSON Schema: {error.message[:200]}") from None


def has_reference(value: Any) -> bool:
    """Whether a reader that looks for references everywhere would find one in this data."""
    if isinstance(value, dict):
        return isinstance(value.get("$ref"), str) or any(map(has_reference, value.values()))
    return isinstance(value, list) and any(map(has_reference, value))


@dataclass
class _Placing:
    root: dict[str, Any]
    owner: str
    names: dict[str, str] = field(init=False)
    #: which schemas apply to the same value as a schema does
    same_value: dict[Path, set[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = _component_names(self.root.get("$defs", {}), self.owner)

    def components(self) -> dict[str, Any]:
        found = {self.owner: self._schema({k: v for k, v in self.root.items() if k != "$defs"}, ())}
        for name, definition in self.root.get("$defs", {}).items():
            found[self.names[name]] = self._schema(definition, ("$defs", name))
        try:
            TopologicalSorter(self.same_value).prepare()
        except CycleError:
            raise Unplaceable("refers to itself without end") from None
        return found

    def _schema(self, node: Any, path: Path) -> Any:
        if isinstance(node, bool):
            return node
        if len(path) > 2 * _MOST_DEPTH:
            raise Unplaceable(f"is nested deeper than {_MOST_DEPTH} levels")
        placed: dict[str, Any] = {}
        for key, value in node.items():
            if key in _REFUSED:
                raise Unplaceable(f"uses {key!r}")
            if key != "$schema":
                placed[key] = self._keyword(key, value, path)
        return placed

    def _keyword(self, key: str, value: Any, path: Path) -> Any:
        if key in _SCHEMAS:
            return self._child(key, value, path, (*path, key))
        if key in _LISTS:
            return [self._child(key, one, path, (*path, key, str(place))) for place, one in enumerate(value)]
        if key in _MAPS and isinstance(value, dict):
            return {name: self._child(key, one, path, (*path, key, name)) for name, one in value.items()}
        if key == "$ref":
            return self._reference(value, path)
        if key == "discriminator" and isinstance(value, dict) and isinstance(value.get("mapping"), dict):
            mapping = {tag: self._reference(target, None) for tag, target in value["mapping"].items()}
            return {**value, "mapping": mapping}
        if has_reference(value):
            raise Unplaceable(f"has a '$ref' in {key!r}, where none can be")
        return value

    def _child(self, key: str, value: Any, path: Path, child: Path) -> Any:
        if key in _IN_PLACE:
            self.same_value.setdefault(path, set()).add(child)
        return self._schema(value, child)

    def _reference(self, reference: Any, path: Path | None) -> str:
        """The same reference in the document; with `path` it is one of a schema, to be followed."""
        if not isinstance(reference, str) or not re.match(r"#(/|$)", reference):
            raise Unplaceable(f"refers to {str(reference)[:80]!r}, which is outside of it")
        steps = tuple(_steps(reference))
        self._require_there(steps, reference)
        if path is not None:
            self.same_value.setdefault(path, set()).add(steps)
        if steps[:1] == ("$defs",):
            if len(steps) < 2:
                raise Unplaceable("refers to '#/$defs', which is no schema")
            return _pointer(self.names[steps[1]], steps[2:])
        return _pointer(self.owner, steps)

    def _require_there(self, steps: Path, reference: str) -> None:
        node: Any = self.root
        for step in steps:
            if isinstance(node, dict) and step in node:
                node = node[step]
            elif isinstance(node, list) and step.isascii() and step.isdigit() and int(step) < len(node):
                node = node[int(step)]
            else:
                raise Unplaceable(f"refers to {reference[:80]!r}, which it does not have")
        if not isinstance(node, dict | bool):
            raise Unplaceable(f"refers to {reference[:80]!r}, which is no schema")


def _component_names(definitions: dict[str, Any], owner: str) -> dict[str, str]:
    """OpenAPI allows few characters; names that become equal are told apart by a number."""
    names: dict[str, str] = {}
    taken = {owner}
    # Thousands may become equal: none of them begins to count anew.
    numbers: defaultdict[str, Iterator[int]] = defaultdict(partial(count, 2))
    for name in definitions:
        wanted = f"{owner}.{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}"
        chosen = wanted
        while chosen in taken:
            chosen = f"{wanted}_{next(numbers[wanted])}"
        taken.add(chosen)
        names[name] = chosen
    return names


def _steps(reference: str) -> Iterator[str]:
    for step in unquote(reference[1:]).split("/")[1:]:
        yield step.replace("~1", "/").replace("~0", "~")


def _pointer(component: str, steps: Path) -> str:
    written = (quote(step.replace("~", "~0").replace("/", "~1"), safe="~$!*'(),;:@&=+") for step in steps)
    return "/".join([COMPONENTS + component, *written])
