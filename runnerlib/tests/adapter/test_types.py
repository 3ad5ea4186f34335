"""Values arrive as what the hints say, and nothing else arrives."""

import json

import pytest
from pydantic import ValidationError

from runnerlib.adapter.session import Session
from runnerlib.adapter.task import Task

EACH = {
    "dataclass": {"width": 1.5, "colour": "red"},
    "typed_dict": {"inner": {"a": 1}, "more": [{"more": []}]},
    "named_tuple": [1, 2],
    "enumeration": "red",
    "literal": "a",
    "model": {"name": "n", "box": {"width": 1}},
    "moment": "2024-01-31T12:00:00Z",
    "day": "2024-01-31",
    "span": "PT3S",
    "number": "1.10",
    "identity": "12345678-1234-5678-1234-567812345678",
    "pair": [1, "a"],
    "many": [1, 2, 3],
    "unique": [1, 1, 2],
    "either": "a",
    "nested": {"k": [{"inner": {"a": 2}}]},
    "limited": 1,
    "anything": {"a": [1, None]},
}


def test_every_type_arrives_as_what_it_is(sample):
    each = sample("shapes").algorithms["each"]
    arguments = each.validate(json.dumps(EACH).encode())
    assert each.handler(**arguments) == {
        "dataclass": "Box",
        "typed_dict": "dict",
        "named_tuple": "Place",
        "enumeration": "Colour",
        "literal": "str",
        "model": "Model",
        "moment": "datetime",
        "day": "date",
        "span": "timedelta",
        "number": "Decimal",
        "identity": "UUID",
        "pair": "tuple",
        "many": "tuple",
        "unique": "set",
        "either": "str",
        "nested": "dict",
        "limited": "int",
        "anything": "dict",
        "nothing": "NoneType",
        "absent": "NoneType",
    }
    assert type(arguments["model"].box).__name__ == "Box"
    assert type(arguments["dataclass"].colour).__name__ == "Colour"
    assert str(arguments["number"]) == "1.10"


def test_awkward_names_are_fields_like_others(sample):
    awkward = sample("shapes").algorithms["awkward"]
    names = ["copy", "json", "schema", "model_config", "_x", "__y", "self"]
    arguments = awkward.validate(json.dumps({name: i for i, name in enumerate(names)}).encode())
    assert awkward.handler(**arguments) == [0, 1, 2, 3, 4, 5, 6, 1]
    assert list(awkward.input_schema()["properties"]) == [*names, "validate"]


def test_hints_of_provided_names_are_not_looked_at(sample):
    with Session(sample("shapes"), ["provided_hint_is_not_needed"]) as session:
        result = session.call("provided_hint_is_not_needed", {"n": 1}, Task("t"))
    assert result.width == 4


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("dataclass", {"width": 1, "widht": 2}, "dataclass.widht"),
        ("dataclass", {"width": "1"}, "dataclass.width"),
        ("typed_dict", {"innner": {}}, "typed_dict.innner"),
        ("typed_dict", {"inner": {}}, "typed_dict.inner.a"),
        ("typed_dict", {"more": [{"more": 1}]}, "typed_dict.more.0.more"),
        ("named_tuple", [], "named_tuple"),
        ("enumeration", "green", "enumeration"),
        ("literal", "c", "literal"),
        ("moment", 1, "moment"),
        ("moment", "yesterday", "moment"),
        ("number", "one", "number"),
        ("identity", "1234", "identity"),
        ("pair", [1], "pair.1"),
        ("many", [True], "many.0"),
        ("limited", 0, "limited"),
        ("limited", 1.0, "limited"),
        ("limited", "1", "limited"),
        ("nothing", 0, "nothing"),
        ("unknown", 1, "unknown"),
        ("limited", None, "limited"),
    ],
)
def test_value_that_does_not_fit_is_refused_with_its_place(field, value, place, sample):
    each = sample("shapes").algorithms["each"]
    with pytest.raises(ValidationError) as caught:
        each.validate(json.dumps({**EACH, field: value}).encode())
    assert any(".".join(map(str, one["loc"])).startswith(place) for one in caught.value.errors())


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b'{"text": "a"', b'{"text": 1}', b"{}", b'{"text": "a", "b": 1}', b'{"text": "\xff"}'],
)
def test_payload_that_is_no_object_of_its_fields_is_refused(payload, sample):
    with pytest.raises(ValidationError):
        sample("plain").algorithms["upper"].validate(payload)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_what_is_no_number_of_json_is_refused(number, sample):
    with pytest.raises(ValidationError):
        sample("plain").algorithms["divide"].validate(b'{"a": 1, "b": ' + number + b"}")


def test_absent_fields_are_left_to_python(sample):
    assert sample("plain").algorithms["upper"].validate(b'{"text": "a"}') == {"text": "a"}


def test_schema_is_closed_and_has_every_definition(sample):
    schema = sample("shapes").algorithms["each"].input_schema()
    assert schema["additionalProperties"] is False
    assert {"Box", "Colour", "Outer", "Inner", "Model", "Place"} <= set(schema["$defs"])
    assert schema["properties"]["absent"]["default"] is None
    assert "absent" not in schema["required"]


def test_typed_dict_inside_a_dataclass_works_or_is_told(adapter_of, problems_of):
    import sys

    source = """
    import dataclasses, typing
    class Inner(typing.TypedDict):
        a: int
    @dataclasses.dataclass
    class Box:
        inner: Inner
    def run_x(box: Box): ...
    """
    if sys.version_info >= (3, 12):
        assert adapter_of(source).algorithms["x"]
    else:
        (problem,) = problems_of(source)
        assert problem == (
            "run_x(): parameter 'box' has the hint Box, which holds a typing.TypedDict; "
            "on this Python write `from typing_extensions import TypedDict`"
        )


def test_typed_dict_with_required_and_not_required_keys(adapter_of):
    adapter = adapter_of(
        """
        import typing, typing_extensions
        class Loose(typing.TypedDict):
            a: int
        class Mixed(Loose, total=False):
            b: typing.Optional[list[Loose]]
        def run_x(m: Mixed, n: typing.Union[Mixed, int] = 1, *, device) -> Mixed:
            return m
        """
    )
    x = adapter.algorithms["x"]
    assert x.validate(b'{"m": {"a": 1, "b": [{"a": 2}]}, "n": 3}') == {"m": {"a": 1, "b": [{"a": 2}]}, "n": 3}
    assert x.encode_result({"a": 1}) == b'{"a":1}'
    with pytest.raises(ValidationError):
        x.validate(b'{"m": {"b": []}}')
