import json
import math
from functools import partial
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from runnerlib.contract import strict_json
from runnerlib.contract.strict_json import StrictJsonError, ValueCount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\xff\xfe1\x00", "UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
        (b"  \n", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b"\xef\xbb\xbf\xef\xbb\xbf1", "not JSON"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'[{"b": {"a": 1, "a": 1}}]', "duplicate key 'a'"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e400", "beyond what a 64-bit float can hold"),
        (b"-1e400", "beyond what a 64-bit float can hold"),
        (b"1" * 5000, "5000 digits does not fit in 64 bits"),
        (str(2**64).encode(), "does not fit in 64 bits"),
        (str(-(2**63) - 1).encode(), "does not fit in 64 bits"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 100_000 + b"]" * 100_000, "deeper than 64"),
        (rb'"\ud800"', "lone surrogate"),
        (rb'{"\udC00": 1}', "lone surrogate"),
        (b"{'a': 1}", "not JSON"),
        (b"[1] trailing", "not JSON"),
    ],
)
def test_text_that_two_parsers_would_read_differently_is_refused_in_words(text: bytes, says: str) -> None:
    with pytest.raises(StrictJsonError, match=says.replace("(", r"\(")):
        strict_json.loads(text)


def test_byte_order_mark_at_the_beginning_is_no_part_of_the_text() -> None:
    assert strict_json.loads(b'\xef\xbb\xbf{"text": "bom"}') == {"text": "bom"}
    assert strict_json.loads('\ufeff{"text": "bom"}') == {"text": "bom"}
    assert strict_json.loads('"\ufeff"') == "\ufeff"


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 64 + b"]" * 64,
        str(2**64 - 1).encode(),
        str(-(2**63)).encode(),
        rb'"\ud83d\ude00"',
        rb'"\u0000"',
        rb'"a literal \\ud800"',
        b'["' + b"[" * 200 + b'"]',
        b"[" + b",".join([b"{}"] * 200) + b"]",
    ],
)
def test_the_border_cases_pass(text: bytes) -> None:
    assert strict_json.loads(text) == json.loads(text)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(strict_json.MIN_INTEGER, strict_json.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(_values)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value)) == value


@given(st.dictionaries(st.text(), st.integers(0, 9), max_size=6))
def test_key_order_does_not_change_the_canonical_bytes(value: dict[str, int]) -> None:
    assert strict_json.canonical(value) == strict_json.canonical(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], "\ud800", {"\udfff": 1}])
def test_values_without_a_json_form_are_not_written(value: object) -> None:
    with pytest.raises(StrictJsonError):
        strict_json.dumps(value)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_strict_json_error(data: bytes) -> None:
    try:
        value = strict_json.loads(data)
    except StrictJsonError:
        return
    assert strict_json.loads(strict_json.dumps(value)) == value


def test_door_may_ask_for_less_depth() -> None:
    assert strict_json.loads(b"[[[]]]", max_depth=3) == [[[]]]
    for text in (b"[[[[]]]]", b"[" * 100_000 + b"]" * 100_000):
        with pytest.raises(StrictJsonError, match="deeper than 3 levels"):
            strict_json.loads(text, max_depth=3)


#: Pieces of texts that the fast parser must leave to the slow one, and some that look like them.
_PIECES = st.sampled_from(
    [
        '"a"',
        '"b"',
        ":",
        ",",
        "{",
        "}",
        "[",
        "]",
        " ",
        "1",
        "-0",
        "1e5",
        "1e999",
        "-1.5E+999",
        "[1e0400",
        "1E-7",
        "0.00001",
        "9" * 19,
        "9" * 20,
        "18446744073709551615",
        '"\\u0022"',
        '"\\""',
        '"\\\\u0022"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u00e9"',
        '"é"',
        "true",
        "null",
        "NaN",
        "\ufeff",
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        '{"":1,"":[]}',
        '"\x7f"',
        "\x00",
    ]
)


@pytest.mark.parametrize("parser", ["orjson", "pydantic"])
@given(text=_values.map(lambda value: json.dumps(value)) | st.lists(_PIECES, max_size=12).map("".join))
def test_bytes_and_text_are_read_alike(parser: str, text: str) -> None:
    """Bytes may take the fast way, text never does."""
    loads = orjson.loads if parser == "orjson" else partial(from_json, allow_inf_nan=False)

    def read(data: bytes | str) -> str:
        try:
            return repr(strict_json.loads(data))
        except StrictJsonError:
            return "refused"

    with mock.patch.object(strict_json, "_fast_loads", loads):
        assert read(text.encode("utf-8", "surrogatepass")) == read(text)


@pytest.mark.parametrize(
    "text",
    [
        b'[{"id": "9e123fe0456ae789be00012e3456789a", "attempt": 1, "result": 12.5e-7, "seconds": 0.000004}]',
        rb'{"text": "two\nlines, a \"quote\", \u00e9", "numbers": [1e5, -2.5E+10, 123456789012345678]}',
    ],
)
def test_ordinary_text_takes_the_fast_way(text: bytes) -> None:
    with mock.patch.object(strict_json, "_loads_slowly", side_effect=AssertionError("the slow way")):
        assert strict_json.loads(text) == json.loads(text)


@given(st.integers(60, 70) | st.integers(250, 1100), st.booleans())
def test_depth_of_bytes_and_text_is_bounded_alike(depth: int, wide: bool) -> None:
    text = "[" * depth + "]" * depth
    text = f"[{text}{',[]' * 200}]" if wide else text
    for data in (text, text.encode()):
        if depth + wide > strict_json.MAX_DEPTH:
            with pytest.raises(StrictJsonError, match="deeper than 64"):
                strict_json.loads(data)
        else:
            strict_json.loads(data)


@given(_values)
def test_canonical_bytes_are_those_of_every_version(value: object) -> None:
    """Digests of stored tasks were made of them."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode(
        errors="surrogatepass"
    )
    if b"\xed" not in written:
        assert strict_json.canonical(strict_json.loads(strict_json.compact(value))) == written


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e-3, 1e-3))
def test_canonical_numbers_are_those_of_every_version(number: float) -> None:
    assert strict_json.canonical([number]) == json.dumps([number], separators=(",", ":")).encode()


FEW = 1000


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        (b"[" + b",".join([b"1"] * 999) + b"]", 999),
        (b"[" + b"[]," * 499 + b"[]]", 1000),
        (b"[" + b",".join([b"{}"] * 250) + b"]", 1000),
        (b"[" * 60 + b'"' + b",[{" * 2000 + b'"' + b"]" * 60, 60),
        (b'["' + rb"\\\",[{" * 2000 + b'","' + b"\\\\" * 500 + b'"]', 2),
        (b"[" + b'"",' * 998 + b'"a,[{"]', 999),
    ],
)
def test_values_are_counted_before_they_are_made_and_not_within_strings(text: bytes, weight: int) -> None:
    assert strict_json.loads(text, max_values=weight) == json.loads(text)
    with pytest.raises(StrictJsonError, match=f"more than {weight - 1} values"):
        strict_json.loads(text, max_values=weight - 1)


@pytest.mark.parametrize("text", [b'["' * FEW, b'"' + b"," * 2 * FEW, b'["a\\', b"{" * FEW, b'"' * 99_999])
def test_counting_ends_whatever_the_text_is(text: bytes) -> None:
    with pytest.raises(StrictJsonError):
        strict_json.loads(text, max_values=FEW // 2)


def test_a_million_numbers_and_dense_text_of_16_mib_are_not_too_many_values() -> None:
    strict_json.check_values(b"[" + b"0.123456789012," * 1_000_000 + b"1]")
    strict_json.check_values(b'["' + b"1,2," * 4_000_000 + b'"]')


@pytest.mark.parametrize("text", [b'["a\\"[,b\\\\",[[1,2],{}]]', b'{"a":"\\\\\\",{[","b":[]}', b'["\\u005b,","[",[]]'])
def test_values_are_counted_however_the_text_is_cut(text: bytes) -> None:
    def counts(max_values: int, size: int, **options: bool) -> bool:
        values = ValueCount(max_values, **options)
        try:
            for start in range(0, len(text), size):
                values.add(text[start : start + size])
        except StrictJsonError:
            return False
        return True

    whole = next(most for most in range(100) if counts(most, len(text)))
    assert whole > 2
    for size in range(1, len(text)):
        assert counts(whole, size) and not counts(whole - 1, size)


def test_values_of_lines_are_counted_in_each_line() -> None:
    values = ValueCount(10, in_lines=True)
    for part in (b'[1,2,3,4,5]\n["\\', b'"[,[,",2,3]\n[[', b"],{}]\n" * 1000, b"[1,2"):
        values.add(part)
    with pytest.raises(StrictJsonError, match="more than 10 values"):
        values.add(b",3,4,5,6,7,8,9,0,1")
