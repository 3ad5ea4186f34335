"""Places a runner's JSON Schema among the components of an OpenAPI document. Pure.

Each of its ``$defs`` becomes a component of its own, named after its owner: generators of clients find only references
of the form ``#/components/schemas/NAME``. A schema that could break the document, or its readers, is refused.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError

from runnerlib.contract import StrictJsonError, strict_json

COMPONENTS = "#/components/schemas/"
MAX_BYTES = 128 * 1024
_MAX_DEPTH = 64

_SCHEMAS = frozenset(
    {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
#: These apply to the very same value; a cycle of them alone never ends.
_IN_PLACE = frozenset({"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
#: They change what other references mean.
_REFUSED = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
)


class Unplaceable(ValueError):
    """The message says why, after "its schema "."""


def place(schema: dict[str, Any], owner: str) -> dict[str, Any]:
    """Components by name; the one called `owner` is the schema itself. Raises Unplaceable."""
    try:
        size = len(strict_json.dumps(schema))
        if size > MAX_BYTES:
            raise Unplaceable(f"has {size} bytes, more than {MAX_BYTES}")
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
        return _Placing(schema, owner).components()
    except RecursionError:
        raise Unplaceable(f"is nested deeper than {_MAX_DEPTH} levels") from None
    except StrictJsonError as error:
        raise Unplaceable(f"is {error}") from None
    except SchemaError as error:
        raise Unplaceable(f"is not a JSON Schema: {error.message[:200]}") from None
    except CycleError:
        raise Unplaceable("refers to itself without end") from None


def has_reference(value: Any) -> bool:
    """Whether a reader that looks for references everywhere would find one in this data."""
    if isinstance(value, dict):
        return isinstance(value.get("$ref"), str) or any(map(has_reference, value.values()))
    return isinstance(value, list) and any(map(has_reference, value))


class _Placing:
    def __init__(self, root: dict[str, Any], owner: str) -> None:
        self._root = root
        self._owner = owner
        self._definitions = root.get("$defs", {})
        self._names = _component_names(self._definitions, owner)
        #: By the id of a schema: those that apply to the same value.
        self._same_value: defaultdict[int, set[int]] = defaultdict(set)

    def components(self) -> dict[str, Any]:
        found = {self._owner: self._schema(self._root, 0)}
        for name, definition in self._definitions.items():
            found[self._names[name]] = self._schema(definition, 2)
        TopologicalSorter(self._same_value).prepare()
        return found

    def _schema(self, node: Any, depth: int) -> Any:
        """A copy whose references lead to the components."""
        if isinstance(node, bool):
            return node
        if depth > 2 * _MAX_DEPTH:
            raise Unplaceable(f"is nested deeper than {_MAX_DEPTH} levels")
        left_out = ("$schema", "$defs") if node is self._root else ("$schema",)
        return {key: self._keyword(node, key, depth) for key in node if key not in left_out}

    def _keyword(self, node: dict[str, Any], key: str, depth: int) -> Any:
        def child(schema: Any, levels: int) -> Any:
            if key in _IN_PLACE:
                self._same_value[id(node)].add(id(schema))
            return self._schema(schema, depth + levels)

        value = node[key]
        if key in _REFUSED:
            raise Unplaceable(f"uses {key!r}")
        if key in _SCHEMAS:
            return child(value, 1)
        if key in _LISTS:
            return [child(one, 2) for one in value]
        if key in _MAPS and isinstance(value, dict):
            return {name: child(one, 2) for name, one in value.items()}
        if key == "$ref":
            target, moved = self._reference(value)
            self._same_value[id(node)].add(id(target))
            return moved
        if key == "discriminator" and isinstance(value, dict) and isinstance(value.get("mapping"), dict):
            return {**value, "mapping": {tag: self._reference(to)[1] for tag, to in value["mapping"].items()}}
        if has_reference(value):
            raise Unplaceable(f"has a '$ref' in {key!r}, where none can be")
        return value

    def _reference(self, reference: Any) -> tuple[Any, str]:
        """The schema that is meant, and a reference to it in the document."""
        if not isinstance(reference, str) or not re.match(r"#(/|$)", reference):
            raise Unplaceable(f"refers to {str(reference)[:80]!r}, which is outside of it")
        steps = [step.replace("~1", "/").replace("~0", "~") for step in unquote(reference[1:]).split("/")[1:]]
        node: Any = self._root
        for step in steps:
            if isinstance(node, dict) and step in node:
                node = node[step]
            elif isinstance(node, list) and step.isascii() and step.isdigit() and int(step) < len(node):
                node = node[int(step)]
            else:
                raise Unplaceable(f"refers to {reference[:80]!r}, which it does not have")
        if not isinstance(node, dict | bool) or steps == ["$defs"]:
            raise Unplaceable(f"refers to {reference[:80]!r}, which is no schema")
        component = self._owner
        if steps[:1] == ["$defs"]:
            component, steps = self._names[steps[1]], steps[2:]
        written = (quote(step.replace("~", "~0").replace("/", "~1"), safe="~$!*'(),;:@&=+") for step in steps)
        return node, "/".join([COMPONENTS + component, *written])


def _component_names(definitions: dict[str, Any], owner: str) -> dict[str, str]:
    """OpenAPI allows few characters; names that become equal are told apart by a number."""
    names: dict[str, str] = {}
    taken = {owner}
    # Thousands may become equal: each name goes on counting where it was.
    numbers: defaultdict[str, Iterator[int]] = defaultdict(partial(count, 2))
    for name in definitions:
        wanted = f"{owner}.{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}"
        chosen = wanted
        while chosen in taken:
            chosen = f"{wanted}_{next(numbers[wanted])}"
        taken.add(chosen)
        names[name] = chosen
    return names
