"""Strict JSON: refuses what would be lost or changed between the sender's text and the task. Pure.

The gateway decides on everything else.
"""

import codecs
import json
import math
from collections import Counter
from typing import Any, NoReturn

#: Signed and unsigned 64-bit integers pass; beyond them many programs silently turn integers into floats.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1
#: More digits than this cannot be a 64-bit integer; checked before the (quadratic) conversion.
_MAX_INTEGER_DIGITS = 20
#: Some editors begin a file with it.
BYTE_ORDER_MARK = codecs.BOM_UTF8


class BadJson(ValueError):
    """The text or value cannot be sent; the message says why."""


def loads(data: bytes) -> Any:
    """Parses one JSON document, with or without a byte order mark. Raises BadJson."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadJson("not UTF-8, it looks like UTF-16; save it as UTF-8")
    text = data.removeprefix(BYTE_ORDER_MARK)
    if not text.strip():
        raise BadJson("not JSON: it is empty")
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadJson(f"not UTF-8: byte {error.start} cannot be decoded") from None
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise BadJson("nested too deeply") from None


def dumps(value: Any) -> bytes:
    """Compact JSON on one line. Raises BadJson for what JSON cannot express: NaN, sets, lone surrogates."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise BadJson("not text: it has a lone surrogate (half of a character pair)") from None
    except (TypeError, ValueError) as error:
        raise BadJson(str(error)) from None
    except RecursionError:
        raise BadJson("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise BadJson(f"duplicate key {counts.most_common(1)[0][0][:80]!r}")
    return found


def _integer(digits: str) -> int:
    if len(digits) <= _MAX_INTEGER_DIGITS + 1 and _MIN_INTEGER <= (value := int(digits)) <= _MAX_INTEGER:
        return value
    raise BadJson(f"integer of {len(digits)} digits does not fit in 64 bits; send it as a string")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BadJson(f"number {digits[:40]} is beyond what a 64-bit float can hold")
    return value


def _constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not JSON; send null or a string")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
