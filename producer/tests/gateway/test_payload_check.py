"""The early check: friendly where it is sure, silent where the runner knows better."""

import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from time import process_time
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.gateway.payload_check import MOST_ERRORS, MOST_STEPS, _Check, _is_plainly_right, payload_errors
from runnerlib.contract import AlgorithmDescription, AlgorithmView, schema_digest, strict_json


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    count: int = 1


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str
    top_k: int = Field(default=3, ge=1, le=10)
    maybe: int | None = None
    items: list[Item] = Field(default=[], max_length=3)
    when: datetime | None = None
    day: date = date(2026, 1, 1)
    at: time = time(12)
    took: timedelta = timedelta(0)
    uid: UUID | None = None
    price: Decimal = Decimal(0)
    step: Annotated[float, Field(multiple_of=0.1)] = 0.0
    code: Annotated[str, Field(pattern=r"^\w+$")] = "a"
    colour: Literal["red", "green"] = "red"
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    either: int | str | Item = 1
    tags: set[str] = set()
    more: dict[Annotated[str, Field(pattern="^x")], int] = {}


def view(schema: dict[str, Any] | None) -> AlgorithmView:
    description = AlgorithmDescription(name="x", input_schema=schema)
    return AlgorithmView(description=description, schema_digest=schema_digest(description))


EVERYTHING = view(Everything.model_json_schema())


def said(payload: Any, algorithm: AlgorithmView = EVERYTHING) -> list[str]:
    return [f"{error.field} {error.message}" for error in payload_errors(algorithm, payload, len(json.dumps(payload)))]


@pytest.mark.parametrize(
    ("payload", "sentences"),
    [
        ({}, ["text is missing"]),
        ([], ["payload must be an object, not a list"]),
        (None, ["payload must be an object, not null"]),
        ({"text": True}, ["text must be a string, not true"]),
        ({"text": "a", "topk": 3}, ["topk is not a field; did you mean 'top_k'?"]),
        ({"text": "a", "top_k": 11}, ["top_k must be at most 10"]),
        ({"text": "a", "maybe": "x"}, ["maybe must be an integer or null, not a string"]),
        ({"text": "a", "colour": "blue"}, ['colour must be one of "red", "green"']),
        ({"text": "a", "items": [{"name": "x"}, {"nam": "y"}]}, ["items[1].name is missing"]),
        ({"text": "a", "items": [{"name": "x"}] * 4}, ["items must have at most 3 entries"]),
        ({"text": "a", "pet": {"kind": "cat"}}, ["pet.lives is missing"]),
        ({"text": "a", "pet": {"kind": "cow"}}, ['pet has \'kind\' "cow", which must be one of "cat", "dog"']),
        ({"text": "a", "either": []}, ["either must be an integer, a string or an object, not a list"]),
        ({"text": "a", "either": {"name": 1}}, ["either.name must be a string, not an integer"]),
    ],
)
def test_mistake_is_told_in_a_sentence(payload: Any, sentences: list[str]) -> None:
    assert said(payload)[: len(sentences)] == sentences


def test_types_that_alternatives_list_are_named_one_by_one() -> None:
    schema = {"anyOf": [{"type": ["string", "null"]}, {"type": ["integer", "null"]}]}
    assert said([], view(schema)) == ["payload must be a string, null or an integer, not a list"]


def test_fields_are_named_in_the_order_of_the_schema_and_unknown_ones_last() -> None:
    sentences = said({"zzz": 1, "colour": 1, "top_k": "x"})
    assert [sentence.split()[0] for sentence in sentences] == ["text", "top_k", "colour", "zzz"]


def test_many_mistakes_are_capped() -> None:
    assert len(said({"text": "a", **{f"unknown_{n}": 1 for n in range(1000)}})) == MOST_ERRORS


def test_long_names_and_values_are_cut() -> None:
    assert all(len(sentence) < 700 for sentence in said({"n" * 100_000: 1, "colour": "c" * 100_000}))


@pytest.mark.parametrize(
    "extra",
    [
        {"uid": "6f1c2f0a52a54a5e9b0e0d6e7f3c2b1a"},
        {"when": "2026-05-31T12:00:00"},
        {"tags": ["a", "a"]},
        {"step": 0.3},
        {"took": "PT5S"},
        {"price": "1.50"},
        {"more": {"x1": 1}},
    ],
)
def test_what_the_runner_takes_is_not_refused(extra: dict[str, Any]) -> None:
    payload = {"text": "a", **extra}
    Everything.model_validate_json(json.dumps(payload), strict=True)
    assert said(payload) == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["red", "cat", "dog", "2026-05-31", "12:30", "PT5S", "1.5", "2026-05-31T12:00:00Z", "x1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "count", "kind", "lives", "x1", "y"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*Everything.model_fields, "stranger"]), json_values, max_size=5))
def test_door_never_refuses_what_the_runner_takes(payload: dict[str, Any]) -> None:
    payload = {"text": "a", **payload}
    try:
        Everything.model_validate_json(json.dumps(payload), strict=True)
    except ValidationError:
        return
    assert said(payload) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": 3},
        {"$ref": "http://127.0.0.1:9/remote.json"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"pattern": "(a+)+$"},
        {"patternProperties": {"(a+)+$": {"type": "integer"}}, "additionalProperties": False},
        {"patternProperties": {"(a+)+$": {"type": "integer"}}, "unevaluatedProperties": False},
        {"$id": "http://[bad", "$ref": "x"},
        {"not": {"pattern": "(a+)+$"}},
        {"if": {"pattern": "x"}, "then": False, "else": False},
        {"oneOf": [{"pattern": "a"}, {}]},
        {"dependentSchemas": {"a": False}, "contains": False, "propertyNames": {"minLength": 99}},
        {"type": ["nonsense"], "required": "all", "properties": [], "enum": 3, "anyOf": {}, "minLength": "1"},
        {"$defs": {"a": {"$id": "https://example.com/", "$defs": {"b": False}}}, "$ref": "#/$defs/a/$defs/b"},
        {"type": "null", "x-checked": False},
        {"$schema": "http://json-schema.org/draft-04/schema#", "uniqueItems": True},
        None,
    ],
)
def test_schema_that_cannot_be_used_refuses_nothing(schema: dict[str, Any] | None) -> None:
    for payload in ({"a" * 40 + "!": 1}, ["a" * 40 + "!"] * 2, "a" * 40 + "!", None):
        assert said(payload, view(schema)) == []


def test_schema_of_endless_alternatives_is_left_to_the_runner() -> None:
    """Each level doubles the steps; 2**64 of them would outlive everybody."""
    levels = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(64)}
    schema = {"$ref": "#/$defs/l0", "$defs": {**levels, "l64": {"type": "integer"}}}
    assert said("x", view(schema)) == []
    assert said("x", view({**schema, "$ref": "#/$defs/l62"})) != []


def test_number_of_entries_of_a_set_is_left_to_the_runner() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 2, "maxItems": 2}
    assert said([1, 1, 1, 2], view(schema)) == []
    assert said([1], view(schema)) == ["payload must have at least 2 entries"]


NAMES = [f"name_{number}" for number in range(10_000)]
LEVELS = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(64)}


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        ({"items": {"properties": {name: {} for name in NAMES}}}, [{}] * 100_000),
        ({"items": {"enum": NAMES}}, [NAMES[-1]] * 100_000),
        ({"anyOf": [{"$ref": "#/$defs/c"}] * 50_000, "$defs": {"c": {"const": "a" * 500_000}}}, "a" * 499_999 + "b"),
        ({"$ref": "#/$defs/l0", "$defs": {**LEVELS, "l64": {"type": "integer"}}}, ["x"] * 100_000),
        ({"items": {"allOf": [{"type": "integer"}] * 10_000}}, [1] * 100_000),
    ],
    ids=["properties", "enum", "const", "alternatives", "all of"],
)
def test_check_of_too_many_steps_is_given_up(schema: dict[str, Any], payload: Any) -> None:
    """Each would take minutes, or for ever; with the bound it is less than a second."""
    assert said(payload, view(schema)) == []


@pytest.mark.serial
def test_check_of_a_long_list_costs_little_more_than_reading_it() -> None:
    body = json.dumps({"text": "a", "numbers": [1] * 200_000})
    schema = {"properties": {"numbers": {"type": "array", "items": {"type": "integer"}}}}
    assert len(body) < MOST_STEPS * 2
    reading = least_seconds(lambda: strict_json.loads(body))
    assert least_seconds(lambda: said(json.loads(body), view(schema))) < 15 * reading
    wrong = {"numbers": [*[1] * 200_000, "x"]}
    assert said(wrong, view(schema)) == ["numbers[200000] must be an integer, not a string"]


def least_seconds(work: Callable[[], Any]) -> float:
    def seconds() -> float:
        started = process_time()
        work()
        return process_time() - started

    return min(seconds() for _ in range(3))


_VALUES = st.sampled_from(["a", "", 0, 1, -1.5, 2.0, True, False, None, [], {}, ["a"], {"a": 1}])
_WORDS = st.sampled_from(
    ["type", "title", "default", "minimum", "enum", "const", "pattern", "$ref", "maxLength", "not"]
)
_SAID = st.one_of(_VALUES, st.sampled_from(["string", "integer", "number", "boolean", "null", "object"]))
_PLAIN_FIELD = st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "number", "boolean"])})
_FIELDS = st.dictionaries(
    st.sampled_from("abc"), st.one_of(_PLAIN_FIELD, st.dictionaries(_WORDS, _SAID), _SAID), max_size=3
)
_SCHEMAS = st.fixed_dictionaries(
    {"type": st.one_of(st.just("object"), _SAID), "properties": st.one_of(_FIELDS, _SAID)},
    optional={
        "required": st.one_of(_SAID, st.lists(st.one_of(st.sampled_from("abc"), _SAID), max_size=2)),
        "additionalProperties": st.one_of(_SAID, st.just(False)),
        "minProperties": st.integers(0, 3),
        "allOf": st.lists(st.dictionaries(_WORDS, _SAID), max_size=2),
    },
)


@settings(max_examples=2000, deadline=None)
@given(schema=_SCHEMAS, payload=st.one_of(_VALUES, st.dictionaries(st.sampled_from("abcd"), _VALUES, max_size=3)))
def test_what_is_plainly_right_has_no_mistakes(schema: dict[str, Any], payload: Any) -> None:
    if _is_plainly_right(schema, payload):
        assert _Check(schema, MOST_STEPS).mistakes(schema, payload, ()) == []


def test_plain_fields_are_seen_to_be_right_and_others_looked_at() -> None:
    schema = {
        "type": "object",
        "title": "resize",
        "properties": {"width": {"type": "integer", "title": "Width"}, "name": {"type": "string", "default": "x"}},
        "required": ["width"],
        "additionalProperties": False,
    }
    assert _is_plainly_right(schema, {"width": 3})
    assert _is_plainly_right(schema, {"width": 3, "name": "a"})
    for payload in ({}, {"width": 3.0}, {"width": True}, {"width": 3, "other": 1}, {"width": 3, "name": None}, []):
        assert not _is_plainly_right(schema, payload)
    assert not _is_plainly_right({**schema, "minProperties": 2}, {"width": 3})
    assert not _is_plainly_right({**schema, "required": [["width"]]}, {"width": 3})
    bounded = {**schema, "properties": {"width": {"type": "integer", "maximum": 2}}}
    assert not _is_plainly_right(bounded, {"width": 3})
