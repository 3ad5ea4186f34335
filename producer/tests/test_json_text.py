"""JSON as the client reads and writes it is JSON as the gateway reads it."""

import pytest

from producer.json_text import BadJson, dumps, loads
from runnerlib.contract import StrictJsonError, strict_json


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [1, 1.5, null, true, "\xc3\xa4"], "b": {}}',
        b"-9223372036854775808",
        b"18446744073709551615",
        b"18446744073709551616",
        b"1" * 5000,
        b"1e400",
        b"[NaN]",
        b"-Infinity",
        b'{"a": 1, "a": 2}',
        b'"\xff"',
        b"{oops",
        b"",
        b" 7 ",
        b"[" * 100_000,
    ],
)
def test_what_is_taken_and_refused_is_the_same(text: bytes) -> None:
    try:
        theirs = strict_json.loads(text)
    except StrictJsonError:
        with pytest.raises(BadJson):
            loads(text)
    else:
        assert loads(text) == theirs
        assert dumps(loads(text)) == strict_json.dumps(theirs)


def test_byte_order_mark_is_passed_over_and_another_encoding_is_named() -> None:
    assert loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    with pytest.raises(BadJson, match="looks like UTF-16"):
        loads('{"a": 1}'.encode("utf-16"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x", "\ud800"])
def test_what_json_has_no_words_for_is_refused(value: object) -> None:
    with pytest.raises(BadJson):
        dumps({"a": value})


def test_value_that_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(BadJson):
        dumps(value)
