"""JSON Schemas (2020-12) of payloads.

A schema is read by people, and by the gateway, which refuses a payload that does not fit. JSON Schema cannot say all
that pydantic takes: what a validator of the author's makes of its input, a flag that is a sum of others, a second name
of a field. Where a schema may refuse what pydantic would take, it carries :data:`UNCHECKED`, and the gateway looks no
further. Only what is known to be told wholly goes without.
"""

import enum
import inspect
from collections.abc import Callable, Iterable
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonRef

from runnerlib.adapter.json_types import type_adapter
from runnerlib.adapter.model import Parameter
from runnerlib.contract import strict_json
from runnerlib.contract.names import UNCHECKED

#: Kinds of pydantic's core schemas whose JSON Schema takes all that they take, with nothing but what is inside them.
_TOLD = frozenset(
    {"any", "bool", "date", "datetime", "decimal", "float", "frozenset", "int", "json-or-python", "lax-or-strict"}
    | {"list", "none", "nullable", "set", "tagged-union", "time", "timedelta", "tuple", "union", "url", "uuid"}
    | {"chain", "computed-field", "custom-error", "definition-ref", "definitions", "function-after"}
    | {"bytes", "dataclass", "dataclass-args", "dataclass-field", "default", "dict", "enum", "literal", "model"}
    | {"model-field", "model-fields", "multi-host-url", "str", "typed-dict", "typed-dict-field"}
)
#: Settings of a model that change nothing of what is taken, or nothing that its schema does not tell.
_HARMLESS_SETTINGS = frozenset(
    {"alias_generator", "allow_inf_nan", "arbitrary_types_allowed", "defer_build", "extra", "from_attributes"}
    | {"frozen", "hide_input_in_errors", "protected_namespaces", "revalidate_instances", "serialize_by_alias"}
    | {"str_max_length", "str_min_length", "strict", "title", "use_attribute_docstrings", "use_enum_values"}
    | {"validate_assignment", "validate_default", "validate_return", "json_schema_extra"}
)
#: What a schema may be given beside its rules.
_REMARKS = frozenset(
    {"$comment", "default", "deprecated", "description", "examples", "format", "readOnly", "title", "writeOnly"}
)


def input_schema(
    arguments: TypeAdapter[dict[str, Any]], parameters: Iterable[Parameter], title: str, summary: str
) -> dict[str, Any]:
    """The schema of a payload, with the function's own defaults and the descriptions of its docstring."""
    schema = arguments.json_schema(schema_generator=PayloadSchema)
    schema["title"] = title
    if summary:
        schema["description"] = summary
    properties = schema.setdefault("properties", {})
    for parameter in parameters:
        known = properties[parameter.field]
        if parameter.description and "description" not in known:
            known["description"] = parameter.description
        if not parameter.required:
            known["default"] = type_adapter(parameter.annotation).dump_python(
                parameter.default, mode="json", by_alias=True
            )
    return schema


class PayloadSchema(GenerateJsonSchema):
    """pydantic's own, with a mark on every part that may be stricter than what it describes."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        made = super().generate_inner(schema)
        if not _is_told(schema):
            if "ref" in schema and "$ref" in made:
                definition = self.get_schema_from_definitions(JsonRef(made["$ref"]))
                if definition is not None:
                    definition[UNCHECKED] = False
            made[UNCHECKED] = False
        return made

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """One of several alternatives would be left out, and the others be taken for all there are."""
        return {UNCHECKED: False}


def _is_told(schema: Any) -> bool:
    """Whether the JSON Schema of this part, apart from what is inside it, takes all that pydantic takes."""
    kind = schema["type"]
    look = _PECULIAR.get(kind)
    return kind in _TOLD and _is_unchanged(schema.get("metadata") or {}) and (look is None or look(schema))


def _is_unchanged(metadata: dict[str, Any]) -> bool:
    """Whether nobody wrote into the JSON Schema what the type does not say."""
    functions = (
        *metadata.get("pydantic_js_functions", ()),
        *metadata.get("pydantic_js_annotation_functions", ()),
    )
    return (
        all(map(_is_of_pydantic, functions))
        and _is_remark(metadata.get("pydantic_js_updates"))
        and _is_remark(metadata.get("pydantic_js_extra"))
    )


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
    """What is added to a schema by hand; a function may add anything."""
    return extra is None or (
        isinstance(extra, dict) and all(name in _REMARKS or str(name).startswith("x-") for name in extra)
    )


def _class_is_told(schema: Any) -> bool:
    owner = schema.get("cls")
    settings = getattr(owner, "model_config", None) or getattr(owner, "__pydantic_config__", None) or {}
    return (
        not schema.get("custom_init")
        and all(not value or name in _HARMLESS_SETTINGS for name, value in settings.items())
        and _is_remark(settings.get("json_schema_extra"))
    )


def _fields_are_told(schema: Any) -> bool:
    """A field may be sent under one name alone."""
    fields = schema["fields"]
    each = fields.values() if isinstance(fields, dict) else fields
    return not schema.get("populate_by_name") and all(
        isinstance(field.get("validation_alias", ""), str) for field in each
    )


def _enum_is_told(schema: Any) -> bool:
    owner = schema["cls"]
    looks_further = getattr(owner._missing_, "__func__", None) is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]
    return not looks_further and not schema.get("missing") and _are_plain(one.value for one in owner)


def _literal_is_told(schema: Any) -> bool:
    return _are_plain(one.value if isinstance(one, enum.Enum) else one for one in schema["expected"])


def _are_plain(values: Iterable[Any]) -> bool:
    return all(value is None or type(value) in (str, int, bool, float) for value in values)


def _text_is_told(schema: Any) -> bool:
    """A length counts what is left of the text, or what its bytes come to."""
    changes = ("coerce_numbers_to_str", "strip_whitespace", "to_lower", "to_upper")
    return not any(schema.get(name) for name in changes)


def _bytes_are_told(schema: Any) -> bool:
    return "min_length" not in schema and "max_length" not in schema


def _dict_is_told(schema: Any) -> bool:
    """Several names may be one key: "1" and "01"."""
    keys = schema.get("keys_schema") or {"type": "any"}
    return "max_length" not in schema or keys["type"] in ("any", "str")


_PECULIAR: dict[str, Callable[[Any], bool]] = {
    "bytes": _bytes_are_told,
    "dataclass": _class_is_told,
    "dataclass-args": _fields_are_told,
    "default": lambda schema: schema.get("on_error", "raise") == "raise",
    "dict": _dict_is_told,
    "enum": _enum_is_told,
    "literal": _literal_is_told,
    "model": _class_is_told,
    "model-fields": _fields_are_told,
    "str": _text_is_told,
    "typed-dict": lambda schema: _class_is_told(schema) and _fields_are_told(schema),
}


def without_lost_defaults(node: Any) -> Any:
    """The same schema without defaults that JSON cannot carry, e.g. an infinity; such a field can still be left out."""
    if isinstance(node, list):
        return [without_lost_defaults(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if name != "default" or _is_json(value)}
    return {name: without_lost_defaults(value) for name, value in kept.items()}


def _is_json(value: Any) -> bool:
    try:
        strict_json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
