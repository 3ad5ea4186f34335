"""The strict JSON parser for everything that comes in (RFC 8259, without what makes two parsers disagree).

Refused: duplicate keys, integers beyond 64 bit, NaN and infinities (also ``1e400``), nesting deeper than
:data:`MAX_DEPTH`, lone surrogates, and anything that is not UTF-8. What passes reads the same in every language
and is stored faithfully by every database. A byte order mark at the beginning is no part of the text: editors write
it, and readers may leave it out (RFC 8259, 8.1).
"""

import codecs
import json
import math
from typing import Any, NoReturn

#: Deeper nesting exhausts the stack of many parsers.
MAX_DEPTH = 64
#: Signed and unsigned 64-bit integers both pass; beyond them parsers silently turn integers into floats.
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1
_BYTE_ORDER_MARK = "\ufeff"
#: More digits than this cannot be a 64-bit integer; checked before the (quadratic) conversion.
_MAX_INTEGER_DIGITS = 20


class StrictJsonError(ValueError):
    """The text is not JSON that is accepted; the message is a sentence for the sender."""


def loads(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parses one JSON document. Raises StrictJsonError."""
    text = (data if isinstance(data, str) else _decoded(data)).removeprefix(_BYTE_ORDER_MARK)
    decoder = _DECODER if isinstance(data, str) or _may_overflow(data) else _DECODER_OF_SMALL_NUMBERS
    try:
        value = decoder.decode(text)
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
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise StrictJsonError("not text: it has a lone surrogate (half of a character pair)") from None
    except ValueError as error:
        raise StrictJsonError(str(error)) from None


def canonical(value: Any) -> bytes:
    """Like :func:`dumps` with sorted keys: equal values give equal bytes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


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
    digits = data.translate(_ZEROS)
    return _LONG_INTEGER in digits or any(each in digits for each in _LARGE_EXPONENTS)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
_DECODER_OF_SMALL_NUMBERS = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
#: Every digit looks like a zero.
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
#: Fewer digits always fit in 64 bits, and are no infinity without an exponent of three.
_LONG_INTEGER = b"0" * 19
_LARGE_EXPONENTS = (b"e000", b"E000", b"e+000", b"E+000")


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
