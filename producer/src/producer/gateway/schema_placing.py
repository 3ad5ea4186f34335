"""Places a runner's JSON Schema among the components of an OpenAPI document. Pure.

Each of its ``$defs`` becomes a component of its own, named after its owner: generators of clients find only references
of the form ``#/components/schemas/NAME``. A schema that could break the document, or its readers, is refused.
"""

import re
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import quote, unquote

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError
from referencing.jsonschema import DRAFT202012

from runnerlib.contract import StrictJsonError, strict_json

COMPONENTS = "#/components/schemas/"
MAX_BYTES = 128 * 1024
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
        text = strict_json.dumps(schema)
        if len(text) > MAX_BYTES:
            raise Unplaceable(f"has {len(text)} bytes, more than {MAX_BYTES}")
        copy = strict_json.loads(text)
        Draft202012Validator.check_schema(copy, format_checker=FormatChecker(formats=()))
        return _Placing(copy, owner).components()
    except RecursionError:
        raise Unplaceable(f"is nested deeper than {strict_json.MAX_DEPTH} levels") from None
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
        self._names = _component_names(root.get("$defs", {}), owner)
        #: By the id of a schema: those that apply to the same value.
        self._same_value: defaultdict[int, set[int]] = defaultdict(set)

    def components(self) -> dict[str, Any]:
        self._move(self._root)
        TopologicalSorter(self._same_value).prepare()
        definitions = self._root.pop("$defs", {})
        return {self._owner: self._root, **{self._names[name]: schema for name, schema in definitions.items()}}

    def _move(self, node: Any) -> None:
        """Makes the references of a schema, and of all inside it, lead to the components."""
        if isinstance(node, bool):
            return
        node.pop("$schema", None)
        for key, value in node.items():
            inner = list(DRAFT202012.subresources_of({key: value}))
            if key in _REFUSED:
                raise Unplaceable(f"uses {key!r}")
            if key == "$ref":
                target, node[key] = self._reference(value)
                self._same_value[id(node)].add(id(target))
            elif key == "discriminator" and isinstance(value, dict) and isinstance(value.get("mapping"), dict):
                value["mapping"] = {tag: self._reference(to)[1] for tag, to in value["mapping"].items()}
            elif not inner and has_reference(value):
                raise Unplaceable(f"has a '$ref' in {key!r}, where none can be")
            if key in _IN_PLACE:
                self._same_value[id(node)].update(map(id, inner))
            for schema in inner:
                self._move(schema)

    def _reference(self, reference: Any) -> tuple[Any, str]:
        """The schema that is meant, and a reference to it in the document."""
        if not isinstance(reference, str) or not re.match(r"#(/|$)", reference):
            raise Unplaceable(f"refers to {str(reference)[:80]!r}, which is outside of it")
        steps = [step.replace("~1", "/").replace("~0", "~") for step in unquote(reference[1:]).split("/")[1:]]
        node: Any = self._root
        for step in steps:
            inner = {str(place): one for place, one in enumerate(node)} if isinstance(node, list) else node
            if not isinstance(inner, dict) or step not in inner:
                raise Unplaceable(f"refers to {reference[:80]!r}, which it does not have")
            node = inner[step]
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
    equals: Counter[str] = Counter()
    for name in definitions:
        wanted = chosen = f"{owner}.{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}"
        while chosen in taken:
            equals[wanted] += 1
            chosen = f"{wanted}_{equals[wanted] + 1}"
        taken.add(chosen)
        names[name] = chosen
    return names
