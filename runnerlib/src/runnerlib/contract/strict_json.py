"""The strict JSON parser for everything that comes in (RFC 8259, without what makes two parsers disagree).

Refused: duplicate keys, integers beyond 64 bit, NaN and infinities (also ``1e400``), nesting deeper than
:data:`MAX_DEPTH`, lone surrogates, and anything that is not UTF-8. What passes reads the same in every language
and is stored faithfully by every database. A byte order mark at the beginning is no part of the text: editors write
it, and readers may leave it out (RFC 8259, 8.1).
"""

import codecs
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

import pydantic_core

try:
    import orjson
except ImportError:  # a runner does without it
    orjson = None  # type: ignore[assignment]

#: Deeper nesting exhausts the stack of many parsers.
MAX_DEPTH = 64
#: For documents of unknown origin: each value takes up to 75 bytes of memory, an empty list three bytes of text.
MAX_VALUES = 3_000_000
#: Signed and unsigned 64-bit integers both pass; beyond them parsers silently turn integers into floats.
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
_BYTE_ORDER_MARK = "\ufeff"
#: More digits than this cannot be a 64-bit integer; checked before the (quadratic) conversion.
_MAX_INTEGER_DIGITS = 20


class StrictJsonError(ValueError):
    """The text is not JSON that is accepted; the message is a sentence for the sender."""


def loads(data: bytes | str, *, max_depth: int = MAX_DEPTH, max_values: int | None = None) -> Any:
    """Parses one JSON document. Raises StrictJsonError.

    `max_values` is as for :func:`check_values`.
    """
    if max_values is not None:
        check_values(data, max_values)
    if isinstance(data, bytes) and _DOUBTFUL_ESCAPE.search(data) is None and not _may_overflow(data):
        # The fast parser reads this as strictly as the slow one, but for keys that come twice and for depth.
        try:
            value = _fast_loads(data)
        except ValueError:
            pass  # the slow parser says what is wrong, or accepts a byte order mark
        else:
            is_flat = data.count(b"[") + data.count(b"{") <= max_depth
            # A key that came twice is gone from the value, and its quotes with it.
            if (is_flat or not _depth_exceeds(value, max_depth)) and compact(value).count(b'"') == data.count(b'"'):
                return value
    return _loads_slowly(data, max_depth)


def check_values(data: bytes | str, max_values: int = MAX_VALUES) -> None:
    """Counts values before they are made, a list twice, an object four times. Raises StrictJsonError for too many."""
    if can_have_too_many(len(data), max_values):
        text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        values = ValueCount(max_values)
        for start in range(0, len(text), _PART_BYTES):  # between parts others have the interpreter
            values.add(text[start : start + _PART_BYTES])


def can_have_too_many(size: int, max_values: int = MAX_VALUES) -> bool:
    """Whether a text of so many bytes can have too many values: the densest is {},{},{}."""
    return 4 * size > 3 * max_values


class ValueCount:
    """Counts the values of a document as it comes in, in parts of much less than MAX_VALUES bytes.

    With `in_lines` each line is a document.
    """

    def __init__(self, max_values: int = MAX_VALUES, *, in_lines: bool = False) -> None:
        self._max = max_values
        self._in_lines = in_lines
        self._begin()

    def _begin(self) -> None:
        self._weight = 0
        self._is_in_string = False
        self._half_escape = b""

    def add(self, part: bytes) -> None:
        """Raises StrictJsonError for too many, as :func:`check_values`."""
        if self._in_lines and b"\n" in part:
            ended, _, part = part.partition(b"\n")
            self._add(ended)
            self._begin()
            part = part[part.rfind(b"\n") + 1 :]  # lines in between are too short to have too many
        self._add(part)

    def _add(self, part: bytes) -> None:
        part = self._half_escape + part
        self._half_escape = b""
        if b"\\" in part:
            part = _ESCAPE.sub(b"", part)
            self._half_escape = part[-1:] if part.endswith(b"\\") else b""
        between_quotes = part.split(b'"')
        text = b"".join(between_quotes[self._is_in_string :: 2])
        self._is_in_string ^= len(between_quotes) % 2 == 0
        self._weight += text.count(b",") + text.count(b"[") + 3 * text.count(b"{")
        if self._weight > self._max:
            raise StrictJsonError(
                f"too much at once: it has more than {self._max} values, a list counted twice, an object four times; "
                "send less, or store the data elsewhere and send a reference"
            )


def _loads_slowly(data: bytes | str, max_depth: int) -> Any:
    text = (data if isinstance(data, str) else _decoded(data)).removeprefix(_BYTE_ORDER_MARK)
    try:
        value = _DECODER.decode(text)
    except StrictJsonError:
        raise
    except RecursionError:
        raise StrictJsonError(f"nested deeper than {max_depth} levels") from None
    except json.JSONDecodeError as error:
        if not text.strip():
            raise StrictJsonError("not JSON: it is empty") from None
        raise StrictJsonError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if text.count("[") + text.count("{") > max_depth and _depth_exceeds(value, max_depth):
        raise StrictJsonError(f"nested deeper than {max_depth} levels")
    if "\\ud" in text or "\\uD" in text:
        dumps(value)
    return value


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON that :func:`loads` reads back. Raises StrictJsonError for NaN, infinities, lone surrogates."""
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise StrictJsonError("not text: it has a lone surrogate (half of a character pair)") from None
    except ValueError as error:
        raise StrictJsonError(str(error)) from None


def compact(value: Any) -> bytes:
    """Compact UTF-8 JSON of a value that :func:`loads` has read; ten times as fast as :func:`dumps`, which checks."""
    # Not orjson: each of its results takes a kilobyte at first, which costs microseconds once many are kept.
    return pydantic_core.to_json(value)


def canonical(value: Any) -> bytes:
    """Compact JSON of a value that :func:`loads` has read, with sorted keys.

    Equal values give equal bytes, with every version of this package: digests of tasks are made of them.
    """
    if orjson is not None:
        try:
            text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            pass  # e.g. an integer beyond 64 bits
        else:
            # It writes small numbers otherwise than Python: 0.00001, 1e-7.
            if b"e-" not in text and b"0.0000" not in text:
                return text
    return _CANONICAL_ENCODER.encode(value).encode()


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0\0" in (data[0:4:2], data[1:4:2]):
        raise StrictJsonError("not UTF-8, it looks like UTF-16 or UTF-32; send it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"not UTF-8: byte {error.start} cannot be decoded") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJsonError(f"duplicate key {key[:80]!r}")
            seen.add(key)
    return result


def _integer(digits: str) -> int:
    if len(digits) <= _MAX_INTEGER_DIGITS + 1:
        value = int(digits)
        if MIN_INTEGER <= value <= MAX_INTEGER:
            return value
    raise StrictJsonError(f"integer of {len(digits)} digits does not fit in 64 bits; send it as a string")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise StrictJsonError(f"number {digits[:40]} is beyond what a 64-bit float can hold")
    return value


def _constant(name: str) -> NoReturn:
    raise StrictJsonError(f"{name} is not JSON; send null or a string")


def _may_overflow(data: bytes) -> bool:
    """Whether a number may be too large: a quick check that saves most texts a call for each number."""
    # Strings hold digits, too, and those of an id may look like an exponent. Escapes may hide where strings end.
    outside = data if b"\\" in data else b"".join(data.split(b'"')[::2])
    digits = outside.translate(_ZEROS)
    if _LONG_INTEGER in digits:
        return True
    return (b"e000" in digits or b"e+000" in digits) and _LARGE_EXPONENT.search(outside) is not None


_fast_loads: Callable[[bytes], Any] = (
    functools.partial(pydantic_core.from_json, allow_inf_nan=False) if orjson is None else orjson.loads
)
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_CANONICAL_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
#: Every digit looks like a zero, and E like e.
_ZEROS = bytes.maketrans(b"123456789E", b"000000000e")
#: Fewer digits always fit in 64 bits, and are no infinity without an exponent of three.
_LONG_INTEGER = b"0" * 19
#: An exponent of three digits in what may be a number: before it stands what stands before values.
_LARGE_EXPONENT = re.compile(rb"(?:^|[\[:,\s])-?[0-9][0-9.]*[eE]\+?[0-9]{3}")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_PART_BYTES = 64 * 1024
#: An escaped quote, which is written with one quote, and halves of character pairs.
_DOUBTFUL_ESCAPE = re.compile(rb"\\u(?:0022|[dD][89a-fA-F])")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
