"""What may be a result, in which words the rest is refused, and what becomes of exceptions."""

import asyncio
import collections
import concurrent.futures
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Annotated, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, computed_field, field_serializer

from runnerlib.adapter.errors import MAX_MESSAGE_BYTES
from runnerlib.adapter.model import Options
from runnerlib.adapter.provided import Task
from runnerlib.adapter.session import Session
from runnerlib.adapter.values import MAX_TRACEBACK_BYTES, BadResult, classify, encode
from runnerlib.contract import strict_json

LIMIT = 1024 * 1024


class Model(BaseModel):
    x: float
    y: Any = None


@dataclasses.dataclass
class Data:
    x: float


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: float


class Pair(NamedTuple):
    a: int
    b: float


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Many:
    some: tuple[int, ...]


class Array:
    """Like numpy's: no JSON, but a list of it."""

    def tolist(self):
        return [1]


class Self:
    def __init__(self):
        self.me = [self]


class Number:
    """Like numpy's scalars: no float, but it can become one."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


class Numbers:
    """Like numpy's arrays: no list, but one can be made of it."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, at):
        return self.values[at]


collections.abc.Sequence.register(Numbers)


class Written(BaseModel):
    """Its JSON is made by the author's functions."""

    x: Any = None

    @field_serializer("x")
    def write(self, x: Any) -> float:
        return math.nan if x is None else x


class WrittenForJson(BaseModel):
    """The author's function is asked for JSON only."""

    x: Any = None

    @field_serializer("x", when_used="json")
    def write(self, _: Any) -> Any:
        return [math.nan]


#: How arrays are annotated, often.
Listed = Annotated[Any, PlainSerializer(lambda array: [math.nan, array], when_used="json")]
ListedFloats = Annotated[Any, PlainSerializer(lambda _: [math.nan], return_type=list[float], when_used="json")]


class Arrays(BaseModel):
    x: ListedFloats = None


class Computing(BaseModel):
    @computed_field
    @property
    def ratio(self) -> float:
        return math.nan


class Renamed(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    source: str = Field(alias="from")


def some(*values: Any) -> Any:
    return (value for value in values)


GOOD = [
    (Any, {"a": [1, 2.5, None, True, "ä"]}, b'{"a":[1,2.5,null,true,"\xc3\xa4"]}'),
    (None, {"a": (1, {2})}, b'{"a":[1,[2]]}'),
    (None, None, b"null"),
    (None, "null NaN Infinity", b'"null NaN Infinity"'),
    (None, 2**64 - 1, b"18446744073709551615"),
    (None, "1" * 40, b'"' + b"1" * 40 + b'"'),
    (int, 3, b"3"),
    (float, 3, b"3.0"),
    (int, "3", b"3"),
    (Model, Model(x=1), b'{"x":1.0,"y":null}'),
    (Model, {"x": 1}, b'{"x":1.0,"y":null}'),
    (Data, Data(1.5), b'{"x":1.5}'),
    (Many, Many([1]), b'{"some":[1]}'),
    (Pair, Pair(1, 2.0), b"[1,2.0]"),
    (Colour, Colour.RED, b'"red"'),
    (None, Colour.RED, b'"red"'),
    (datetime.datetime, datetime.datetime(2024, 1, 31, tzinfo=datetime.timezone.utc), b'"2024-01-31T00:00:00Z"'),
    (decimal.Decimal, decimal.Decimal("1.10"), b'"1.10"'),
    (uuid.UUID, uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    (bytes, b"abc", b'"abc"'),
    (set[int], {1}, b"[1]"),
    (None, {1: "a"}, b'{"1":"a"}'),
    (None, some(1, None), b"[1,null]"),
    (Any, some(1, None), b"[1,null]"),
    (list[int | None], some(1, None), b"[1,null]"),
    (None, {"a": some(1, 2)}, b'{"a":[1,2]}'),
    (None, collections.deque([1, None]), b"[1,null]"),
    (list[float], Numbers(1.5, 2), b"[1.5,2.0]"),
    (float, Number(1.5), b"1.5"),
    (None, "\ufffd", b'"\xef\xbf\xbd"'),
    (dict[str, Any], {"\ufffd": None, "a": "null"}, b'{"\xef\xbf\xbd":null,"a":"null"}'),
    (Renamed, Renamed(source="a"), b'{"from":"a"}'),
]


@pytest.mark.parametrize(("hint", "value", "expected"), GOOD)
def test_value_that_fits_is_compact_json(hint, value, expected):
    returns = None if hint is None else TypeAdapter(hint)
    data = encode(value, returns, LIMIT, "run_x")
    assert data == expected
    strict_json.loads(data)


NAN_WORD = "run_x() returned something that is not JSON for every reader: NaN is not JSON; send null or a string"
NON_FINITE = "run_x() returned NaN or an infinity, which is not JSON; return None or a string instead"
BAD = {
    "nan": (None, math.nan, NON_FINITE),
    "infinity": (float, math.inf, NON_FINITE),
    "minus infinity": (float, -math.inf, NON_FINITE),
    "nan deep inside": (Any, {"a": [1, {"b": math.nan}]}, NON_FINITE),
    "nan in a typed list": (list[float], [1.0, math.nan], NON_FINITE),
    "nan in a model": (Model, Model(x=math.nan), NON_FINITE),
    "nan in what a model may hold": (Model, Model(x=1, y=[math.nan]), NON_FINITE),
    "nan in a model without a hint": (None, Model(x=math.nan), NON_FINITE),
    "nan in a dataclass": (Data, Data(math.nan), NON_FINITE),
    "nan in a dataclass with slots": (None, Slotted(math.nan), NON_FINITE),
    "nan in a named tuple": (Pair, Pair(1, math.nan), NON_FINITE),
    "nan in a set": (None, {math.nan}, NON_FINITE),
    "nan of a number": (float, Number(math.nan), NON_FINITE),
    "nan of a number in a dict": (dict[str, float], {"score": Number(math.nan)}, NON_FINITE),
    "nan in an array": (list[float], Numbers(1, math.nan, math.inf), NON_FINITE),
    "nan in a deque": (list[float], collections.deque([math.nan]), NON_FINITE),
    "nan in a deque without a hint": (None, collections.deque([math.nan]), NON_FINITE),
    "nan in a deque of anything": (Any, collections.deque([math.nan]), NON_FINITE),
    "nan in a generator": (list[float], some(1.0, math.nan), NON_FINITE),
    "nan in a generator without a hint": (None, some(math.nan), NON_FINITE),
    "nan in a generator of anything": (Any, some(math.nan), NON_FINITE),
    "nan in a generator inside": (Any, {"a": some(math.nan)}, "run_x() returned a generator inside of something else"),
    "nan in a generator inside a model": (Model, Model(x=1, y=some(math.nan)), "run_x() returned a generator inside"),
    "nan in a model in a deque": (None, collections.deque([Model(x=math.nan)]), NON_FINITE),
    "nan in a dataclass of anything": (Any, [Data(math.nan)], NON_FINITE),
    "nan of the author's serializer": (Written, Written(), NON_FINITE),
    "nan of a serializer for JSON in a model": (WrittenForJson, WrittenForJson(), NAN_WORD),
    "nan of a serializer for JSON in a list": (list[Listed], [1], NAN_WORD),
    "nan of a typed serializer for JSON": (list[ListedFloats], [1], NON_FINITE),
    "nan of a typed serializer for JSON in a model": (Arrays, Arrays(), NON_FINITE),
    "nan that is computed": (Computing, Computing(), NON_FINITE),
    "nan of a decimal": (None, [decimal.Decimal("NaN")], NON_FINITE),
    "infinity of a decimal": (Any, {"a": decimal.Decimal("-Infinity")}, NON_FINITE),
    "nan in a view of values": (None, list({"a": math.nan}.values()), NON_FINITE),
    "names that collide": (
        None,
        {1: "a", "1": "b"},
        "run_x() returned something that is not JSON for every reader: duplicate key '1'",
    ),
    "names that collide inside": (
        dict[str, dict[Any, int]],
        {"a": {True: 1, "true": 2}},
        "run_x() returned something that is not JSON for every reader: duplicate key 'true'",
    ),
    "a name that is no text": (dict[str, int], {"\ud800": 1}, "run_x() returned a name with a lone surrogate"),
    "a name that is no text without a hint": (None, {"\ud800": 1}, "run_x() returned something that is not JSON"),
    "bytes": (bytes, b"\xff", "run_x() returned something that is not JSON: invalid utf-8 sequence"),
    "lone surrogate": (str, "\ud800", "run_x() returned something that"),
    "an object": (
        None,
        object(),
        "run_x() returned something that is not JSON: Unable to serialize unknown type: <class 'object'>; "
        "return str, numbers",
    ),
    "an array": (None, Array(), "run_x() returned something that is not JSON: Unable to serialize unknown type"),
    "a circle": (None, [[]], None),
    "a huge integer": (
        None,
        2**64,
        "run_x() returned something that is not JSON for every reader: integer of 20 digits does not fit in 64 bits",
    ),
    "too deep": (
        None,
        json.loads("[" * 70 + "]" * 70),
        "run_x() returned something that is not JSON for every reader: nested deeper than 64 levels",
    ),
    "not the hint": (
        int,
        "three",
        "run_x() returned something that does not fit its return hint: Input should be a valid integer",
    ),
    "not the hint inside": (
        dict[str, list[int]],
        {"a": [1, "b", "c"]},
        "run_x() returned something that does not fit its return hint: a.1: Input should be a valid integer, "
        "unable to parse string as an integer, got str (and 1 more)",
    ),
    "a wrong field of a dataclass": (
        list[Data],
        [Data("abc")],
        "run_x() returned something that does not fit its return hint: 0.x: Input should be a valid number",
    ),
    "none instead of text": (
        str,
        None,
        "run_x() returned something that does not fit its return hint: Input should be a valid string, got NoneType",
    ),
    "something instead of none": (type(None), 1, "run_x() returned something that does not fit its return hint"),
}


@pytest.mark.parametrize("name", BAD)
def test_value_that_cannot_be_a_result_is_told_in_words(name):
    hint, value, expected = BAD[name]
    if name == "a circle":
        value[0].append(value)
        expected = "run_x() returned something that is not JSON: Circular reference"
    with pytest.raises(BadResult) as caught:
        encode(value, None if hint is None else TypeAdapter(hint), LIMIT, "run_x")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_array_is_told_to_become_a_list():
    with pytest.raises(BadResult, match=r"convert it with \.tolist\(\)"):
        encode(Array(), None, LIMIT, "run_x")


def test_result_larger_than_its_limit_is_refused_with_both_figures():
    assert encode("a" * 98, None, 100, "run_x")
    with pytest.raises(BadResult) as caught:
        encode("a" * 99, None, 100, "run_x")
    assert str(caught.value) == (
        "run_x() returned 101 bytes of JSON, the limit is 100; store the data and return a reference, "
        'or raise "result_bytes" in OPTIONS'
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_whatever_json_can_say_comes_back_as_it_was(value):
    for returns in (None, TypeAdapter(Any)):
        assert strict_json.loads(encode(value, returns, LIMIT, "run_x")) == value


@given(
    st.recursive(
        st.floats() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=10,
    )
)
def test_no_float_ever_becomes_null(value):
    def has_bad(item):
        if isinstance(item, float):
            return not math.isfinite(item)
        return (
            any(map(has_bad, item.values() if isinstance(item, dict) else item))
            if isinstance(item, dict | list)
            else False
        )

    for returns in (None, TypeAdapter(Any)):
        if has_bad(value):
            with pytest.raises(BadResult):
                encode(value, returns, LIMIT, "run_x")
        else:
            assert strict_json.loads(encode(value, returns, LIMIT, "run_x")) == value


class OutOfMemoryError(RuntimeError):
    """Like torch.cuda's."""


class Special(KeyError):
    pass


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TimeoutError("slow"), True),
        (asyncio.TimeoutError(), True),
        (concurrent.futures.TimeoutError(), True),
        (ConnectionError("gone"), True),
        (ConnectionResetError("gone"), True),
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError(2, "No such file"), True),
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (ValueError("bad"), False),
        (KeyError("x"), False),
        (ZeroDivisionError(), False),
        (RecursionError(), False),
        (SystemExit(1), False),
        (asyncio.CancelledError(), False),
        (Unprintable(), False),
    ],
)
def test_transient_classes_are_retryable_and_all_else_is_permanent(error, retryable):
    run_error = classify(raised(error), Options())
    assert (run_error.code, run_error.retryable) == ("handler_error", retryable)
    assert run_error.message.startswith(type(error).__name__)


def test_what_invalid_payload_on_names_is_the_senders_mistake():
    options = Options(invalid_payload_on=("builtins.LookupError",), retry_on=("builtins.KeyError",))
    run_error = classify(raised(Special("not a picture")), options)
    assert (run_error.code, run_error.retryable) == ("invalid_payload", False)
    assert run_error.message == str(Special("not a picture"))
    assert classify(raised(KeyError("x")), options).code == "invalid_payload", "of both, the payload is at fault"
    assert classify(raised(ValueError("x")), options).code == "handler_error"


def test_a_payloads_error_without_text_says_its_type():
    assert classify(raised(ValueError()), Options(invalid_payload_on=("builtins.ValueError",))).message == "ValueError"


def test_retry_on_widens_also_for_subclasses():
    assert classify(raised(KeyError("x")), Options(retry_on=("builtins.KeyError",))).retryable
    assert classify(raised(Special("x")), Options(retry_on=("builtins.LookupError",))).retryable
    assert not classify(raised(ValueError("x")), Options(retry_on=("builtins.KeyError",))).retryable


def test_bad_result_is_permanent_and_has_no_traceback():
    run_error = classify(BadResult("run_x() returned NaN"), Options(retry_on=("builtins.Exception",)))
    assert run_error.model_dump() == {
        "code": "bad_result",
        "message": "run_x() returned NaN",
        "retryable": False,
        "traceback": None,
        "errors": None,
    }


def test_message_is_the_authors_with_its_type():
    assert classify(raised(ValueError("too short")), Options()).message == "ValueError: too short"
    assert classify(raised(ValueError()), Options()).message == "ValueError"


def test_long_message_is_cut_within_its_limit():
    message = classify(raised(ValueError("ä" * 10_000)), Options()).message
    assert len(message.encode()) <= MAX_MESSAGE_BYTES
    assert message.endswith("ä…")


def test_what_no_database_stores_is_escaped():
    assert classify(raised(ValueError("a\x00b\ud800")), Options()).message == "ValueError: a\\x00b\\ud800"


def test_traceback_starts_at_the_authors_frame(adapter_of):
    adapter = adapter_of("def run_x(a: int):\n    return deep(a)\n\ndef deep(a):\n    raise ValueError('here')")
    with Session(adapter) as session, pytest.raises(ValueError, match="here") as caught:
        session.call("x", {"a": 1}, Task("t"))
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # this test's own frame
    lines = classify(caught.value, Options()).traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "runner_adapter.py" in lines[1]
    assert lines[1].endswith("in run_x")
    assert lines[-1] == "ValueError: here"


def test_cause_is_part_of_the_traceback():
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        text = classify(error, Options()).traceback
    assert "KeyError: 'inner'" in text
    assert text.rstrip().endswith("ValueError: outer")


def test_long_traceback_keeps_its_end():
    text = classify(raised(ValueError("x" * 100_000 + "end")), Options()).traceback
    assert len(text.encode()) <= MAX_TRACEBACK_BYTES
    assert text.startswith("…")
    assert text.rstrip().endswith("end")


def test_error_that_cannot_be_printed_is_still_told():
    run_error = classify(raised(Unprintable()), Options())
    assert run_error.message == "Unprintable"
    assert "Unprintable" in run_error.traceback
