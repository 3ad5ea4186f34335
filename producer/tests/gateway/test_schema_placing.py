"""Schemas of runners among the components of the document: moved faithfully, or left out with a reason."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from producer.gateway.schema_placing import MAX_BYTES, Unplaceable, place


class Item(BaseModel):
    name: str
    parts: list["Item"] = []


class Order(BaseModel):
    first: Item
    others: dict[str, Item] = {}


def validator(components: dict[str, Any], owner: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{owner}", "components": {"schemas": components}})


def test_definitions_become_components_of_their_owner() -> None:
    components = place(Order.model_json_schema(), "order.payload")
    assert set(components) == {"order.payload", "order.payload.Item"}
    assert components["order.payload"]["properties"]["first"] == {"$ref": "#/components/schemas/order.payload.Item"}
    assert "$defs" not in components["order.payload"]


def test_same_names_of_two_algorithms_stay_apart() -> None:
    one = place({"$defs": {"Item": {"type": "string"}}, "$ref": "#/$defs/Item"}, "one.payload")
    two = place({"$defs": {"Item": {"type": "integer"}}, "$ref": "#/$defs/Item"}, "two.payload")
    both = one | two
    assert validator(both, "one.payload").is_valid("a") and not validator(both, "one.payload").is_valid(1)
    assert validator(both, "two.payload").is_valid(1) and not validator(both, "two.payload").is_valid("a")


@pytest.mark.parametrize(
    ("payload", "fits"),
    [
        ({"first": {"name": "a", "parts": [{"name": "b"}]}}, True),
        ({"first": {"name": "a", "parts": [{"name": 1}]}}, False),
        ({"first": {"name": "a"}, "others": {"x": {}}}, False),
    ],
)
def test_placed_schema_says_the_same_as_before(payload: Any, fits: bool) -> None:
    schema = Order.model_json_schema()
    assert Draft202012Validator(schema).is_valid(payload) is fits
    assert validator(place(schema, "order.payload"), "order.payload").is_valid(payload) is fits


def test_references_to_any_part_are_followed() -> None:
    schema = {
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}, "c": {"$ref": "#/$defs/x~1 y/items"}},
        "$defs": {"x/ y": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": {"$ref": "#"},
    }
    placed = validator(place(schema, "a.payload"), "a.payload")
    assert placed.is_valid({"a": 1, "b": 2, "c": "x", "more": {"b": 3}})
    for wrong in ({"b": "x"}, {"c": 1}, {"more": {"b": "x"}}):
        assert not placed.is_valid(wrong)


def test_names_that_openapi_cannot_spell_are_changed_and_stay_apart() -> None:
    schema = {
        "$defs": {"List[int]": {"type": "integer"}, "List{int}": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/List[int]"}, "b": {"$ref": "#/$defs/List%7Bint%7D"}},
    }
    components = place(schema, "a.payload")
    assert set(components) == {"a.payload", "a.payload.List_int_", "a.payload.List_int__2"}
    assert validator(components, "a.payload").is_valid({"a": 1, "b": "x"})
    assert not validator(components, "a.payload").is_valid({"a": 1, "b": 1})


def test_fields_and_data_that_look_like_keywords_are_left_as_they_are() -> None:
    schema = {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "$id": {"type": "integer"}, "$defs": {"enum": [{"a": 1}]}},
        "default": {"$id": "x"},
    }
    assert place(schema, "a.payload") == {"a.payload": schema}


def test_discriminators_point_to_the_components() -> None:
    schema = {
        "$defs": {"Cat": {"properties": {"kind": {"const": "cat"}}}},
        "oneOf": [{"$ref": "#/$defs/Cat"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat"}},
    }
    placed = place(schema, "a.payload")["a.payload"]
    assert placed["discriminator"]["mapping"] == {"cat": "#/components/schemas/a.payload.Cat"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "https://example.com/steal.json"}, "outside of it"),
        ({"$ref": "other.json#/a"}, "outside of it"),
        ({"$ref": "#anchor"}, "outside of it"),
        ({"$ref": "#/$defs/Missing"}, "does not have"),
        ({"$ref": "#/$defs", "$defs": {}}, "no schema"),
        ({"$ref": "#/title", "title": "x"}, "no schema"),
        ({"$ref": 5}, "not a JSON Schema"),
        ({"$ref": "#"}, "without end"),
        ({"allOf": [{"$ref": "#"}]}, "without end"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"not": {"$ref": "#/$defs/A"}}]}}}, "without end"),
        ({"type": "banana"}, "not a JSON Schema"),
        ({"required": "name"}, "not a JSON Schema"),
        ({"properties": [1]}, "not a JSON Schema"),
        ({"$id": "https://example.com/", "type": "string"}, "'$id'"),
        ({"$dynamicRef": "#x"}, "'$dynamicRef'"),
        ({"properties": {"a": {"$anchor": "x"}}}, "'$anchor'"),
        ({"default": {"$ref": "https://example.com/steal.json"}}, "'default'"),
        ({"x-more": [{"$ref": "#"}]}, "'x-more'"),
        ({"oneOf": [{}], "discriminator": {"propertyName": "k", "mapping": {"a": "http://x/"}}}, "outside of it"),
        ({"maximum": float("nan")}, "Out of range"),
        ({"title": "\ud800"}, "lone surrogate"),
        ({"description": "x" * MAX_BYTES}, "bytes"),
        (nested(200), "deeper"),
        (nested(50_000), "deeper"),
    ],
)
def test_schema_that_could_do_harm_is_left_out_with_a_reason(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(Unplaceable, match=words.replace("$", r"\$")):
        place(schema, "a.payload")


target = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/$defs/a/items", "http://x/", "#/$defs/c"])
data = st.sampled_from([None, 1, "x", [1], {"a": 1}, {"$ref": "#"}])


def schemas(depth: int) -> st.SearchStrategy[Any]:
    """JSON Schemas as a runner might register them, sound and unsound ones."""
    leaf = st.booleans() | st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(["string", "integer"]), "title": st.text(max_size=3), "default": data}
    )
    if depth == 0:
        return leaf
    inner = schemas(depth - 1)
    named = st.dictionaries(st.sampled_from(["a", "b", "$ref", "$id"]), inner, min_size=1, max_size=3)
    some = st.lists(inner, min_size=1, max_size=2)
    branch = st.fixed_dictionaries(
        {},
        optional={
            "$ref": target,
            "$defs": named,
            "properties": named,
            "items": inner,
            "not": inner,
            "allOf": some,
            "anyOf": some,
            "enum": st.lists(data, max_size=2),
        },
    )
    return leaf | branch


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=schemas(3).filter(lambda schema: isinstance(schema, dict)))
def test_whatever_is_registered_is_placed_soundly_or_left_out(schema: dict[str, Any]) -> None:
    try:
        components = place(schema, "a.payload")
    except Unplaceable:
        return
    document = json.loads(json.dumps({"components": {"schemas": components}}))
    for reference in references(components):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[int(step) if isinstance(node, list) else step]
    placed = validator(components, "a.payload")
    for payload in ({"a": [1]}, [{"a": "x"}], 1, "x"):
        # the same verdict as before, without end, error or fetching
        assert placed.is_valid(payload) is Draft202012Validator(schema).is_valid(payload)


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for one in node for found in references(one)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for one in node.values() for found in references(one)]
