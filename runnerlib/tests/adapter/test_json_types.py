"""Values arrive as what the hints say, and nothing else arrives."""

import json

import pytest
from pydantic import ValidationError

from runnerlib.adapter.provided import Task
from runnerlib.adapter.session import Session
from runnerlib.adapter.values import encode_result

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
    assert encode_result(x, {"a": 1}) == b'{"a":1}'
    with pytest.raises(ValidationError):
        x.validate(b'{"m": {"b": []}}')


def test_an_alias_is_the_name_of_a_field_everywhere(adapter_of):
    adapter = adapter_of(
        '''
        from typing import Annotated
        from pydantic import Field
        Class = Annotated[str, Field(validation_alias="class")]
        def run_x(source: Annotated[str, Field(alias="from")], kind: Class = "none", n: int = 1) -> str:
            """Says where from.

            Args:
                source: where it comes from

            >>> run_x("a", kind="b")
            'a b'
            """
            return f"{source} {kind}"
        def batch_y(text: list[Annotated[str, Field(alias="from")]], kind: Class) -> list[str]:
            return text
        '''
    )
    x, y = adapter.algorithms["x"], adapter.algorithms["y"]
    assert x.validate(b'{"from": "a", "class": "b"}') == {"source": "a", "kind": "b"}
    properties = x.input_schema()["properties"]
    assert list(properties) == ["from", "class", "n"]
    assert properties["from"]["description"] == "where it comes from"
    assert properties["class"]["default"] == "none"
    assert x.input_schema()["required"] == ["from"]
    assert x.describe().example.payload == {"from": "a", "class": "b"}
    assert y.shared_key({"from": "a", "class": "b"}) == y.shared_key({"class": "b", "from": "c"}) != b""
    with Session(adapter) as session:
        assert session.self_test("x").state == "passed"
        assert session.call_batch("y", [y.validate(b'{"from": "a", "class": "b"}')], [Task("t")]) == ["a"]


def test_models_with_aliases_are_sent_and_come_back_by_them(adapter_of):
    adapter = adapter_of(
        """
        from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
        from pydantic.alias_generators import to_camel
        class M(BaseModel):
            model_config = ConfigDict(alias_generator=to_camel)
            first_name: str
            second_name: str = Field(validation_alias=AliasChoices("second", "last"), serialization_alias="second")
            third: int = Field(0, validation_alias=AliasPath("numbers", 0))
        def run_x(m: M = M(firstName="a", second="b")) -> M:
            return m
        """
    )
    x = adapter.algorithms["x"]
    assert x.input_schema()["properties"]["m"]["default"] == {"firstName": "a", "second": "b", "third": 0}
    assert "firstName" in x.output_schema()["properties"]
    for sent in (
        b'{"m": {"firstName": "a", "last": "b", "numbers": [3]}}',
        b'{"m": {"firstName": "a", "second": "b"}}',
    ):
        m = x.validate(sent)["m"]
        assert encode_result(x, m) == b'{"firstName":"a","second":"b","third":%d}' % (3 if b"numbers" in sent else 0)


def test_a_default_that_json_cannot_carry_is_left_out_of_the_schema(adapter_of):
    adapter = adapter_of(
        """
        import dataclasses
        @dataclasses.dataclass
        class Range:
            low: float = 0.0
            high: float = float("inf")
        def run_x(most: float = float("inf"), range: Range = Range()) -> float:
            return min(most, 1.0)
        """
    )
    schema = adapter.algorithms["x"].input_schema()
    json.dumps(schema, allow_nan=False)
    assert "default" not in schema["properties"]["most"]
    assert "default" not in schema["$defs"]["Range"]["properties"]["high"]
    assert schema["$defs"]["Range"]["properties"]["low"]["default"] == 0.0
    assert "required" not in schema
