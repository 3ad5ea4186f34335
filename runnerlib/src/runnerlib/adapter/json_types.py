"""Which types can be read from JSON and written to it: hints become pydantic TypeAdapters and JSON Schemas (2020-12).

A schema is read by people, and by the gateway, which refuses a payload that does not fit. JSON Schema cannot express
all that pydantic accepts: what an author's validator makes of its input, a flag that is a sum of others, a second name
of a field. Where a schema may refuse what pydantic would accept, it carries :data:`UNCHECKED`, and the gateway checks
no further. Only what is known to be expressed completely is left unmarked.
"""

import collections.abc
import enum
import inspect
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ForwardRef, Union, cast, get_args, get_origin

import typing_extensions
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonRef, JsonSchemaMode

from runnerlib.adapter.model import Parameter
from runnerlib.contract import strict_json
from runnerlib.contract.names import UNCHECKED

#: pydantic would read these lazily and check them inside the handler.
_LAZY = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)
_MODULE = re.compile(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
_ADVICE = "use str, int, float, bool, lists and dicts, dataclasses, or pydantic models"

#: Kinds of pydantic's core schemas whose JSON Schema accepts all that they accept, apart from what is inside them.
_COMPLETE = frozenset(
    {"any", "bool", "date", "datetime", "decimal", "float", "frozenset", "int", "json-or-python", "lax-or-strict"}
    | {"list", "none", "nullable", "set", "tagged-union", "time", "timedelta", "tuple", "union", "url", "uuid"}
    | {"chain", "computed-field", "custom-error", "definition-ref", "definitions", "function-after"}
    | {"bytes", "dataclass", "dataclass-args", "dataclass-field", "default", "dict", "enum", "literal", "model"}
    | {"model-field", "model-fields", "multi-host-url", "str", "typed-dict", "typed-dict-field"}
)
#: Settings of a model that do not change what is accepted, or only in ways that its schema expresses.
_HARMLESS_SETTINGS = frozenset(
    {"alias_generator", "allow_inf_nan", "arbitrary_types_allowed", "defer_build", "extra", "from_attributes"}
    | {"frozen", "hide_input_in_errors", "protected_namespaces", "revalidate_instances", "serialize_by_alias"}
    | {"str_max_length", "str_min_length", "strict", "title", "use_attribute_docstrings", "use_enum_values"}
    | {"validate_assignment", "validate_default", "validate_return", "json_schema_extra"}
)
#: Keywords of a schema that are no rules.
_REMARKS = frozenset(
    {"$comment", "default", "deprecated", "description", "examples", "format", "readOnly", "title", "writeOnly"}
)


class HintError(Exception):
    """A hint that cannot be used; the message continues "parameter 'x' …" or "its return hint …"."""


def resolve(hint: Any, function: Any) -> Any:
    """A hint as a type, also if it was written as text (``from __future__ import annotations``). Raises HintError."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=namespace, include_extras=True)["hint"]
    except NameError as error:
        raise HintError(
            f"has the hint {spelt(hint)}, but {error.name or error} is not known at run time; "
            "import it, and not under `if TYPE_CHECKING:`"
        ) from None
    except Exception as error:  # text is evaluated, and may raise anything
        raise HintError(f"has the hint {spelt(hint)}, which is no type ({error}); {_ADVICE}") from None


def spelt(hint: Any) -> str:
    """A hint as an author would write it, without the modules' names."""
    if isinstance(hint, str):
        return hint
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    if hint is type(None):
        return "None"
    if get_origin(hint) is Annotated:
        return spelt(get_args(hint)[0])
    if isinstance(hint, type) and not get_args(hint):
        return hint.__qualname__
    text = str(hint).replace("typing.", "").replace("NoneType", "None")
    return text if "Literal" in text else _MODULE.sub("", text)


def sent_name(name: str, hint: Any) -> str:
    """The name that callers use for the parameter `name`: its alias, if its hint has one. Raises HintError."""
    aliases = [
        one.validation_alias
        for one in getattr(hint, "__metadata__", ())
        if isinstance(one, FieldInfo) and one.validation_alias is not None
    ]
    alias = aliases[-1] if aliases else name
    if not isinstance(alias, str):
        raise HintError(
            f"has a {type(alias).__name__} as its alias, but a field has one name; write Field(alias='its_name')"
        )
    return alias


def adapter_and_schema(hint: Any, mode: JsonSchemaMode = "validation") -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """For what callers send, or ("serialization") for what a handler returns. Raises HintError."""
    if hint in _LAZY or get_origin(hint) in _LAZY:
        raise HintError(f"has the hint {spelt(hint)}, which is read lazily; write list[...] instead")
    try:
        adapter = _type_adapter(hint)
        return adapter, _without_lost_defaults(adapter.json_schema(mode=mode))
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        if error.code == "typed-dict-version":
            raise HintError(
                f"has the hint {spelt(hint)}, which holds a typing.TypedDict; "
                "on this Python write `from typing_extensions import TypedDict`"
            ) from None
        raise HintError(_unserialisable(hint, error.message)) from None
    except Exception as error:  # types may bring pydantic hooks of their own, which raise what they like
        raise HintError(_unserialisable(hint, f"{type(error).__name__}: {error}")) from None


def _type_adapter(hint: Any) -> TypeAdapter[Any]:
    with warnings.catch_warnings():
        # An alias means nothing to the hint alone; it is the name of the field, see sent_name.
        warnings.filterwarnings("ignore", message=".*alias' attribute with value")
        return TypeAdapter(_for_pydantic(hint, {}))


def _unserialisable(hint: Any, reason: str) -> str:
    # What follows (". Set `arbitrary_types_allowed`…") helps the author of a model, not of a runner.
    first = " ".join(reason.split("\n")[0].split(". Set `")[0].split())
    first = first.replace("Unable to generate pydantic-core schema for", "pydantic has no schema for")
    return f"has the hint {spelt(hint)}, which JSON cannot carry ({first.rstrip('.')}); {_ADVICE}"


def arguments_adapter(name: str, fields: dict[str, tuple[Any, bool]]) -> TypeAdapter[dict[str, Any]]:
    """Reads a whole payload; `fields` maps names to their hint and whether they are required.

    A TypedDict, not a model: parameters may be called copy, json, schema, model_config or _x, absent ones are left to
    Python's own defaults, and the result is passed on as keyword arguments.
    """
    seen: dict[Any, Any] = {}
    hints = {}
    for field, (hint, required) in fields.items():
        readable = _for_pydantic(hint, seen)
        hints[field] = readable if required else typing_extensions.NotRequired[readable]
    shape = _typed_dict(name, hints)
    shape.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(shape)


def _for_pydantic(hint: Any, seen: dict[Any, Any]) -> Any:
    """The same hint with ``typing.TypedDict`` replaced: before Python 3.12 pydantic takes only typing_extensions'."""
    if sys.version_info >= (3, 12):
        return hint
    if isinstance(hint, type) and typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return _rebuilt(hint, seen)
    parts = get_args(hint)
    origin = get_origin(hint)
    if not parts or origin is typing.Literal or origin is collections.abc.Callable:
        return hint
    if origin is Annotated:
        annotated = (_for_pydantic(parts[0], seen), *hint.__metadata__)
        return Annotated[annotated]
    new = tuple(_for_pydantic(part, seen) for part in parts)
    if new == parts:
        return hint
    if origin in (Union, types.UnionType):
        return Union[new]  # noqa: UP007 - the members are not known here
    return hint.copy_with(new) if hasattr(hint, "copy_with") else origin[new]


def _typed_dict(name: str, hints: dict[str, Any]) -> Any:
    make: Any = typing_extensions.TypedDict
    return make(name, hints)


def _rebuilt(old: Any, seen: dict[Any, Any]) -> Any:
    if old not in seen:
        new = seen[old] = _typed_dict(old.__name__, {})
        hints = typing.get_type_hints(old, include_extras=True)
        new.__annotations__ = {name: _for_pydantic(hint, seen) for name, hint in hints.items()}
        for name in ("__required_keys__", "__optional_keys__", "__total__", "__doc__", "__module__"):
            setattr(new, name, getattr(old, name))
    return seen[old]


def input_schema(
    arguments: TypeAdapter[dict[str, Any]], parameters: Iterable[Parameter], title: str, summary: str
) -> dict[str, Any]:
    """The schema of a payload, with the function's own defaults and the descriptions of its docstring."""
    schema = arguments.json_schema(schema_generator=_PayloadSchema)
    schema["title"] = title
    if summary:
        schema["description"] = summary
    properties = schema.setdefault("properties", {})
    for parameter in parameters:
        known = properties[parameter.field]
        if parameter.description and "description" not in known:
            known["description"] = parameter.description
        if not parameter.required:
            adapter = _type_adapter(parameter.annotation)
            known["default"] = adapter.dump_python(parameter.default, mode="json", by_alias=True)
    return cast(dict[str, Any], _without_lost_defaults(schema))


def _without_lost_defaults(node: Any) -> Any:
    """The same schema without defaults that JSON cannot carry, e.g. an infinity; such a field can still be left out."""
    if isinstance(node, list):
        return [_without_lost_defaults(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if name != "default" or _is_json(value)}
    return {name: _without_lost_defaults(value) for name, value in kept.items()}


def _is_json(value: Any) -> bool:
    try:
        strict_json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class _PayloadSchema(GenerateJsonSchema):
    """pydantic's own, with a mark on every part that may be stricter than what it describes."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        made = super().generate_inner(schema)
        if not _is_complete(schema):
            if "ref" in schema and "$ref" in made:
                definition = self.get_schema_from_definitions(JsonRef(made["$ref"]))
                if definition is not None:
                    definition[UNCHECKED] = False
            made[UNCHECKED] = False
        return made

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Without this, one of several alternatives would be left out, and the others be taken for all there are."""
        return {UNCHECKED: False}


def _is_complete(schema: Any) -> bool:
    """Whether the JSON Schema of this part, apart from what is inside it, accepts all that pydantic accepts."""
    kind = schema["type"]
    look = _CHECKS.get(kind)
    return kind in _COMPLETE and _is_unchanged(schema.get("metadata") or {}) and (look is None or look(schema))


def _is_unchanged(metadata: dict[str, Any]) -> bool:
    """Whether nothing was added to the JSON Schema of the type by hand."""
    functions = (
        *metadata.get("pydantic_js_functions", ()),
        *metadata.get("pydantic_js_annotation_functions", ()),
    )
    added = (metadata.get("pydantic_js_updates"), metadata.get("pydantic_js_extra"))
    return all(map(_is_of_pydantic, functions)) and all(map(_is_remark, added))


def _is_of_pydantic(function: Any) -> bool:
    plain = getattr(function, "func", function)
    plain = getattr(plain, "__func__", plain)
    if plain is cast(Any, BaseModel.__get_pydantic_json_schema__).__func__:
        return True
    # Before 2.10, what a Field adds to its schema was in such a function, too.
    kept = inspect.getclosurevars(plain).nonlocals if inspect.isfunction(plain) else {}
    added = (kept.get("json_schema_update"), kept.get("json_schema_extra"))
    return str(getattr(plain, "__module__", "")).startswith("pydantic._internal.") and all(map(_is_remark, added))


def _is_remark(extra: Any) -> bool:
    """Whether what was added to a schema by hand adds no rules; a function may add anything."""
    return extra is None or (
        isinstance(extra, dict) and all(name in _REMARKS or str(name).startswith("x-") for name in extra)
    )


def _check_class(schema: Any) -> bool:
    owner = schema.get("cls")
    settings = getattr(owner, "model_config", None) or getattr(owner, "__pydantic_config__", None) or {}
    return (
        not schema.get("custom_init")
        and all(not value or name in _HARMLESS_SETTINGS for name, value in settings.items())
        and _is_remark(settings.get("json_schema_extra"))
    )


def _check_fields(schema: Any) -> bool:
    """A field must have one name alone."""
    fields = schema["fields"]
    each = fields.values() if isinstance(fields, dict) else fields
    return not schema.get("populate_by_name") and all(
        isinstance(field.get("validation_alias", ""), str) for field in each
    )


def _check_enum(schema: Any) -> bool:
    owner = schema["cls"]
    looks_further = getattr(owner._missing_, "__func__", None) is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]
    return not looks_further and not schema.get("missing") and _are_plain(one.value for one in owner)


def _are_plain(values: Iterable[Any]) -> bool:
    return all(value is None or type(value) in (str, int, bool, float) for value in values)


def _check_dict(schema: Any) -> bool:
    """Where their number is limited, no two names may become one key, as "1" and "01" do."""
    keys = schema.get("keys_schema") or {"type": "any"}
    return "max_length" not in schema or keys["type"] in ("any", "str")


#: Settings of a text after which its length is not that of what was sent.
_CHANGES_OF_TEXT = ("coerce_numbers_to_str", "strip_whitespace", "to_lower", "to_upper")
#: What else must hold for a kind of `_COMPLETE`.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    # In a schema, a length counts characters.
    "bytes": lambda schema: "min_length" not in schema and "max_length" not in schema,
    "dataclass": _check_class,
    "dataclass-args": _check_fields,
    "default": lambda schema: schema.get("on_error", "raise") == "raise",
    "dict": _check_dict,
    "enum": _check_enum,
    "literal": lambda schema: _are_plain(
        one.value if isinstance(one, enum.Enum) else one for one in schema["expected"]
    ),
    "model": _check_class,
    "model-fields": _check_fields,
    "str": lambda schema: not any(schema.get(name) for name in _CHANGES_OF_TEXT),
    "typed-dict": lambda schema: _check_class(schema) and _check_fields(schema),
}
