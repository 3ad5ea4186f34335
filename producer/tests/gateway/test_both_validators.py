"""The gateway's check and the runner's, held against each other over generated pairs of a hint and a value.

``PAIRS=1000000 PAIRS_SEED=7 pytest test_both_validators.py`` looks further; ``PAIRS_SEED=random`` elsewhere each time.
"""

import collections
import dataclasses
import enum
import os
import random
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID

import pytest
import requests
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainValidator,
    RootModel,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, to_json
from typing_extensions import NotRequired, TypedDict

from producer.gateway.payload_check import payload_errors
from runnerlib.adapter.json_types import HintError, adapter_and_schema, arguments_adapter, input_schema
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Parameter
from runnerlib.contract import AlgorithmDescription, AlgorithmView, strict_json

PAIRS = int(os.environ.get("PAIRS", "10000"))
SEED = os.environ.get("PAIRS_SEED", "12")
VALUES_OF_A_HINT = 40


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Colour(str, enum.Enum):
    RED = "red"
    GREEN = "green"


class Mixed(enum.Enum):
    ONE = 1
    PAIR = (1, 2)
    PRICE = Decimal("1.5")


class Forgiving(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> "Forgiving":
        return cls.A


class Point(NamedTuple):
    x: int
    y: int = 0


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="forbid")
    source: str = Field(alias="from")


class Choices(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str = Field(validation_alias=AliasChoices("from", "since"))
    first: int = Field(default=0, validation_alias=AliasPath("numbers", 0))


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str = Field(alias="from", description="where from", json_schema_extra={"x-order": 1})


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    text: str = Field(min_length=1, max_length=3)


class Told(BaseModel):
    """Its author has written rules into the schema that its type does not have."""

    model_config = ConfigDict(json_schema_extra={"required": ["name", "other"]})
    name: str
    size: int = Field(default=0, json_schema_extra={"type": "string"})


class Before(BaseModel):
    name: str
    count: int = 1

    @field_validator("count", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return 3 if value == "three" else value


class FromText(BaseModel):
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class OwnInit(BaseModel):
    name: str

    def __init__(self, **more: Any) -> None:
        super().__init__(name=str(more.get("name", "nobody")))


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    count: int = Field(default=1, ge=0, le=5)
    inner: "Item | None" = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool = True


class Names(RootModel[list[str]]):
    pass


@dataclasses.dataclass
class Box:
    name: str
    sizes: list[int] = dataclasses.field(default_factory=list)


class Shape(TypedDict):
    name: str
    corners: NotRequired[int]


def _code(value: str) -> str:
    if value not in ("de", "fr"):
        raise PydanticCustomError("code", "no such code")
    return value


def _lenient(value: Any, handler: Callable[[Any], Any]) -> Any:
    return 0 if value == "none" else handler(value)


#: A hint, and values that have something to do with it.
BASES: list[tuple[Any, list[Any]]] = [
    (int, [0, 1, -1, 3.0, 2**63, "1"]),
    (float, [0, 1.5, 1e300, "1.5", "NaN", "inf"]),
    (bool, [True, False, 0, 1, "true"]),
    (str, ["", "a", "é" * 4, " a "]),
    (None, [None]),
    (Any, [1, [1], {"a": 1}]),
    (bytes, ["", "abc", "é"]),
    (Annotated[bytes, Field(min_length=3, max_length=4)], ["éé", "abc", "abcd", "abcde"]),
    (complex, ["1+2j", 1, 1.5, "x"]),
    (Decimal, ["1.50", 1.5, 3, "x"]),
    (Fraction, ["1/2", 1, "x"]),
    (datetime, ["2026-05-31T12:00:00Z", "2026-05-31", 1700000000, "soon"]),
    (date, ["2026-05-31", 20000, "x"]),
    (time, ["12:30", "12:30:00", 60]),
    (timedelta, ["PT5S", 5, "5"]),
    (UUID, ["6f1c2f0a52a54a5e9b0e0d6e7f3c2b1a", "x"]),
    (Path, ["/tmp", ""]),
    (IPv4Address, ["192.0.2.1", 1, "x"]),
    (AnyUrl, ["https://example.com", "x"]),
    (Base64Bytes, ["YQ==", "a"]),
    (SecretStr, ["x", 1]),
    (Json, ["1", "x", 1]),
    (Json[list[int]], ["[1]", "x", [1]]),
    (Rights, [0, 1, 2, 3, 4, "1", 1.0, True]),
    (Level, [1, 2, 3, "1", 1.0, True]),
    (Colour, ["red", "blue", 1]),
    (Mixed, [1, 1.5, [1, 2], "1.5", True]),
    (Forgiving, ["a", "b", 1, None]),
    (Literal["a", 1, True, None], ["a", "b", 1, 1.0, True, 0, False, None]),
    (Literal[1], [1, 1.0, True, "1"]),
    (Literal[True], [1, True, "true"]),
    (Literal[Level.LOW, "x"], [1, 1.0, "x", "LOW", 2]),
    (dict[Level, int], [{"1": 1}, {"3": 1}, {"LOW": 1}]),
    (dict[int, int], [{"1": 1}, {"x": 1}, {"01": 2}]),
    (dict[bool, int], [{"true": 1}, {"x": 1}]),
    (Annotated[dict[int, int], Field(max_length=1)], [{"1": 1, "01": 1}, {"1": 1, "2": 1}]),
    (Annotated[dict[str, int], Field(max_length=1)], [{"a": 1}, {"a": 1, "b": 1}]),
    (dict[Annotated[str, Field(pattern="^x")], int], [{"x1": 1}, {"y": 1}]),
    (dict[Colour, int], [{"red": 1}, {"blue": 1}]),
    (Annotated[set[int], Field(max_length=2)], [[1, 1, 1], [1, 2, 3]]),
    (Annotated[frozenset[int], Field(min_length=2)], [[1, 1], [1, 2]]),
    (collections.deque[int], [[1], "x"]),
    (tuple[int, str], [[1, "a"], [1], [1, "a", 2]]),
    (tuple[int, ...], [[1, 2], []]),
    (Annotated[int, Field(gt=0, lt=10)], [0, 5, 10]),
    (Annotated[int, Field(multiple_of=3)], [3, 4]),
    (Annotated[float, Field(multiple_of=0.1)], [0.3, 0.25]),
    (Annotated[str, Field(min_length=2, max_length=3)], ["a", "ab", "abcd", "é" * 3]),
    (Annotated[str, Field(pattern=r"^\w+$")], ["a", "!"]),
    (Annotated[str, StringConstraints(strip_whitespace=True, max_length=2)], [" ab ", "abc"]),
    (Annotated[str, StringConstraints(to_lower=True, min_length=1)], ["A", ""]),
    (Annotated[int, BeforeValidator(lambda value: 1 if value == "one" else value)], ["one", 1, "x"]),
    (Annotated[int, BeforeValidator(int, json_schema_input_type=str)], ["1", 1, 1.5]),
    (Annotated[str, AfterValidator(_code)], ["de", "x", 1]),
    (Annotated[int, PlainValidator(lambda value: len(str(value)))], ["x", 1, None]),
    (Annotated[int, PlainValidator(lambda value: 1, json_schema_input_type=int)], ["x", 1, None]),
    (Annotated[int, WrapValidator(_lenient)], ["none", 1, "x"]),
    (Annotated[int | str, Field(union_mode="left_to_right")], [1, "1", 1.5]),
    (Annotated[str, WithJsonSchema({"type": "integer"})], ["a", 1]),
    (Annotated[str, Field(json_schema_extra={"maxLength": 1})], ["abc"]),
    (Annotated[int, Field(json_schema_extra=lambda schema: schema.update(type="string"))], [1, "a"]),
    (
        Annotated[Cat | Dog, Field(discriminator="kind")],
        [{"kind": "cat", "lives": 9}, {"kind": "dog"}, {"kind": "cow"}],
    ),
    (Cat | Dog, [{"kind": "cat", "lives": 9}, {"kind": "dog", "good": 1}, {"kind": "cat"}]),
    (Point, [{"x": 1}, [1], [1, 2], [1, 2, 3], {"y": 1}]),
    (ByName, [{"from": "a"}, {"source": "a"}, {}]),
    (Choices, [{"from": "a"}, {"since": "a", "numbers": [4]}, {"source": "a"}]),
    (Aliased, [{"from": "a"}, {"source": "a"}]),
    (Stripped, [{"text": "  a  "}, {"text": "abcd"}, {"text": " "}]),
    (Told, [{"name": "a"}, {"name": "a", "size": 3}]),
    (Before, [{"name": "a", "count": "three"}, {"name": "a", "count": "x"}]),
    (FromText, ["a", {"name": "a"}, {"name": 1}]),
    (OwnInit, [{"name": "a"}, {}, {"name": 3}]),
    (Item, [{"name": "a"}, {"name": "a", "inner": {"name": "b", "count": 9}}, {"nam": "a"}, {"name": 1, "more": 2}]),
    (Names, [["a"], [1], "a"]),
    (Box, [{"name": "a", "sizes": [1]}, {"name": "a", "more": 1}, {}]),
    (Shape, [{"name": "a"}, {"name": "a", "corners": "x"}, {"corners": 1}]),
]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 3.0, 1.5, 2**63, "", "a", "1", "true", "red", "2026-05-31", "é" * 5),
    *([], [1], ["a"], [[]], {}, {"name": "a"}, {"1": 1}, {"x": None}, [None], [{"name": "a"}]),
]


def _hint(chance: random.Random, depth: int = 0) -> tuple[Any, Callable[[], Any]]:
    """A hint, and what makes values of it, or nearly."""
    if depth >= 3 or chance.random() < 0.5:
        hint, values = chance.choice(BASES)
        return hint, lambda: chance.choice(values if chance.random() < 0.85 else ODD)
    inner, one = _hint(chance, depth + 1)
    other, another = _hint(chance, depth + 1)
    odd = lambda make: make() if chance.random() < 0.95 else chance.choice(ODD)  # noqa: E731
    some = lambda: [odd(one) for _ in range(chance.randrange(4))]  # noqa: E731
    kinds: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
        (lambda: list[inner], some),  # type: ignore[valid-type]
        (lambda: Annotated[list[inner], Field(min_length=1, max_length=2)], some),  # type: ignore[valid-type]
        (lambda: Optional[inner], lambda: odd(one) if chance.random() < 0.8 else None),  # noqa: UP045
        (lambda: inner | other, lambda: odd(one) if chance.random() < 0.5 else odd(another)),
        (lambda: dict[str, inner], lambda: {key: odd(one) for key in chance.sample("abc", chance.randrange(4))}),  # type: ignore[valid-type]
        (lambda: tuple[inner, other], lambda: [odd(one), odd(another)][: chance.choice((2, 2, 2, 1))]),  # type: ignore[valid-type]
    ]
    make, values_of = chance.choice(kinds)
    return make(), values_of


def _algorithms(chance: random.Random) -> Iterator[tuple[TypeAdapter[Any], AlgorithmView, dict[str, Any], Any]]:
    """The runner's reader of payloads with two fields, the gateway's view of it, the hints, and what makes payloads."""
    while True:
        fields = {name: (*_hint(chance), chance.random() < 0.7) for name in ("first", "second")}
        hints = {name: hint for name, (hint, _, _) in fields.items()}
        try:
            for hint in hints.values():
                adapter_and_schema(hint)
            arguments = arguments_adapter("x", {name: (hint, need) for name, (hint, _, need) in fields.items()})
        except (HintError, TypeError):
            continue  # no author could write it: check says no
        parameters = [Parameter(name, hint, required=True, field=name) for name, hint in hints.items()]
        description = AlgorithmDescription(name="x", input_schema=input_schema(arguments, parameters, "x", ""))
        makers = {name: make for name, (_, make, _) in fields.items()}
        yield arguments, AlgorithmView(description=description, schema_digest=""), hints, makers


def _payload(makers: dict[str, Callable[[], Any]], chance: random.Random) -> Any:
    payload = {name: make() for name, make in makers.items() if chance.random() < 0.95}
    if chance.random() < 0.05:
        payload["secnd"] = 1
    return payload if chance.random() < 0.98 else chance.choice(ODD)


def _runner_errors(arguments: TypeAdapter[Any], body: bytes) -> list[Any] | None:
    """As the runner reads it; None: code of the author's failed, which names no field."""
    try:
        arguments.validator.validate_json(to_json(strict_json.loads(body)), strict=True)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)
    except Exception:
        return None
    return []


_KINDS = {"is missing": "missing", "is not a field": "extra_forbidden"}


def _tells_another_mistake(told: Any, errors: list[Any]) -> bool:
    """Both refuse; the gateway must name a field that the runner names, and say the same: missing, or no field."""
    if told.field == "payload":
        return all(one["loc"] for one in errors)
    top = told.field.partition(".")[0].partition("[")[0]
    same = [one for one in errors if one["loc"] and one["loc"][0] == top]
    plain = [one["type"] for one in same if len(one["loc"]) == 1]
    kind = next((kind for words, kind in _KINDS.items() if told.message.startswith(words)), None)
    if told.field != top or not plain:
        return not same
    return kind not in plain if kind else set(plain) <= set(_KINDS.values())


def test_gateway_refuses_only_what_the_runner_refuses_and_for_the_same_field() -> None:
    seed = str(random.randrange(10**9)) if SEED == "random" else SEED
    chance = random.Random(seed)
    pairs = refused = taken = 0
    wrong: list[str] = []
    for arguments, view, hints, makers in _algorithms(chance):
        for _ in range(VALUES_OF_A_HINT):
            payload = _payload(makers, chance)
            body = strict_json.dumps(payload)
            told = payload_errors(view, strict_json.loads(body), len(body))
            errors = _runner_errors(arguments, body)
            pairs += 1
            refused += bool(told)
            taken += errors == []
            if told and errors is not None and (not errors or _tells_another_mistake(told[0], errors)):
                wrong.append(f"{hints} {body.decode()}: gateway {told[0]}, runner {errors[:2]}")
        if pairs >= PAIRS:
            break
    assert wrong == [], f"seed {seed}: {len(wrong)} of {pairs} pairs, first:\n" + "\n".join(wrong[:10])
    assert refused > pairs / 10, f"seed {seed}: too little is refused early to tell anything"
    assert taken > pairs / 10, f"seed {seed}: too little is taken to tell anything"


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Rights, 3),
        (Point, {"x": 1}),
        (ByName, {"source": "a"}),
        (dict[Level, int], {"1": 2}),
        (complex, 1.5),
        (Annotated[int, BeforeValidator(int)], "3"),
        (Annotated[set[int], Field(max_length=2)], [1, 1, 1]),
        (Stripped, {"text": "  a  "}),
    ],
)
def test_gateway_takes_what_no_schema_can_tell(hint: Any, value: Any) -> None:
    arguments = arguments_adapter("x", {"first": (hint, True)})
    schema = input_schema(arguments, [Parameter("first", hint, required=True, field="first")], "x", "")
    view = AlgorithmView(description=AlgorithmDescription(name="x", input_schema=schema), schema_digest="")
    assert _runner_errors(arguments, strict_json.dumps({"first": value})) == []
    assert payload_errors(view, {"first": value}, 1000) == []


CASES = Path(__file__).parents[3] / "tests" / "cases"


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("rights", {"rights": 3}),
        ("nt", {"point": {"x": 1}}),
        ("nt", {"point": [1]}),
        ("item", {"item": {"source": "a"}}),
        ("item", {"item": {"from": "a"}}),
        ("code", {"code": "de"}),
    ],
)
def test_runner_gets_through_the_gateway_what_it_takes(gateway: Any, name: str, payload: Any) -> None:
    adapter = load_adapter(CASES / "gateway_refuses_what_runner_takes" / "runner_adapter.py")
    algorithm = adapter.algorithms[name]
    gateway.offer(**{name: algorithm.input_schema()})
    answer = gateway.post(name, payload)
    assert answer.status_code == 202, answer.text
    algorithm.validate(gateway.take(name).payload)
    assert gateway.post(name, {"stranger": 1}).status_code == 422


def test_byte_order_mark_of_an_editor_is_no_part_of_a_payload(gateway: Any) -> None:
    body = (CASES / "bom_send" / "bom.json").read_bytes()
    assert body.startswith(b"\xef\xbb\xbf")
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{gateway.url}/algorithms/anything/tasks", data=body, headers=headers, timeout=10)
    assert answer.status_code == 202, answer.text
    assert gateway.take("anything").payload == b'{"text":"bom"}'
