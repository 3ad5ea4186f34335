"""From what a handler returned to the bytes of a JSON result, or to a sentence that says why not."""

import math
import re
from collections.abc import Collection, Iterator
from decimal import Decimal
from functools import lru_cache
from types import GeneratorType
from typing import Any, Literal

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from pydantic_core import CoreConfig, PydanticSerializationError, SchemaSerializer

from runnerlib.contract import StrictJsonError, strict_json

#: At least this many digits in a row may be an integer that does not fit in 64 bits.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_NON_FINITE_WORDS = (b"NaN", b"Infinity")
#: pydantic writes NaN and infinities as these words, or as null in models, which obey their own configuration, and what
#: cannot be a name as U+FFFD: where one of them is in the bytes, the value is looked at.
_SUSPECT = (b"null", *_NON_FINITE_WORDS, "\ufffd".encode())
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_NON_FINITE = "NaN or an infinity, which is not JSON; return None or a string instead"


class BadResult(Exception):
    """What the handler returned cannot be a result. The message names the function and says what to do."""


def encode(value: Any, returns: TypeAdapter[Any] | None, limit_bytes: int, function: str) -> bytes:
    """Checks `value` against the return hint and writes it as compact JSON. Raises BadResult."""
    if isinstance(value, GeneratorType):
        value = list(value)  # it is read once here, and once more when it has to be looked at
    try:
        if returns is None:
            data = pydantic_core.to_json(value, inf_nan_mode="constants")
        else:
            value = returns.validator.validate_python(value)
            data = _to_json(returns, value)
        wrong = _unfaithful(value, returns or _ANY) if any(word in data for word in _SUSPECT) else None
    except ValidationError as error:
        raise BadResult(f"{function}() returned something that does not fit its return hint: {_first(error)}") from None
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise BadResult(f"{function}() returned something that is not JSON: {_reason(error, value)}") from None
    if len(data) > limit_bytes:
        raise BadResult(
            f"{function}() returned {len(data)} bytes of JSON, the limit is {limit_bytes}; "
            'store the data and return a reference, or raise "result_bytes" in OPTIONS'
        )
    wrong = wrong or _not_strict(data)
    if wrong:
        raise BadResult(f"{function}() returned {wrong}")
    return data


def _to_json(returns: TypeAdapter[Any], value: Any) -> bytes:
    """Instances of a hint's classes are not checked inside; only when the serialiser wonders, its JSON is read back.

    So a list in a field that says tuple passes, and text in a field that says float does not. Fields have the names
    that the schema shows.
    """
    serializer = _serializer(returns)
    try:
        return serializer.to_json(value, by_alias=True, warnings="error")
    except PydanticSerializationError:
        data = serializer.to_json(value, by_alias=True, warnings=False)
        returns.validator.validate_json(data)
        return data


@lru_cache
def _serializer(returns: TypeAdapter[Any]) -> SchemaSerializer:
    """The adapter's own, but it writes NaN and infinities as words, also those of functions that only JSON asks for."""
    return SchemaSerializer(returns.core_schema, CoreConfig(ser_json_inf_nan="constants"))


def _unfaithful(value: Any, returns: TypeAdapter[Any]) -> str | None:
    """What the JSON of `value` says otherwise without a word.

    Looks at what is written, as Python has it; then as JSON has it, which may be made by other functions.
    """
    return _wrong_inside(value, returns, "python") or _wrong_inside(value, returns, "json")


def _wrong_inside(value: Any, returns: TypeAdapter[Any], mode: Literal["python", "json"]) -> str | None:
    stack = [returns.serializer.to_python(value, mode=mode, warnings=False)]
    while stack:
        item = stack.pop()
        if (isinstance(item, float) and not math.isfinite(item)) or (
            isinstance(item, Decimal) and not item.is_finite()
        ):
            return _NON_FINITE
        if isinstance(item, dict):
            if any(isinstance(key, str) and not _is_text(key) for key in item):
                return "a name with a lone surrogate (half of a character pair), which is not JSON; encode it as text"
            stack.extend(item.values())
        elif isinstance(item, Iterator):
            return "a generator inside of something else, which cannot be looked at twice; make a list of it"
        elif isinstance(item, Collection) and not isinstance(item, str | bytes | bytearray):
            stack.extend(item)
    return None


def _not_strict(data: bytes) -> str | None:
    """Why some reader would read the bytes otherwise, or not at all.

    Written again from what was read, they are the same unless two names of an object are; cheap looks come first.
    """
    is_shallow = data.count(b"[") + data.count(b"{") <= strict_json.MAX_DEPTH
    is_finite = not any(word in data for word in _NON_FINITE_WORDS)
    if is_shallow and is_finite and not _LONG_INTEGER.search(data) and (b"{" not in data or _rewritten(data) == data):
        return None
    try:
        strict_json.loads(data)
    except StrictJsonError as error:
        return f"something that is not JSON for every reader: {error}"
    return None


def _rewritten(data: bytes) -> bytes:
    return pydantic_core.to_json(pydantic_core.from_json(data))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(error: ValidationError) -> str:
    """The first mistake, with the place where it is."""
    found = error.errors(include_url=False, include_context=False)
    where = ".".join(str(part) for part in found[0]["loc"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    got = type(found[0]["input"]).__name__
    return f"{where + ': ' if where else ''}{found[0]['msg']}, got {got}{more}"


def _reason(error: Exception, value: Any) -> str:
    text = str(error).removeprefix("Error serializing to JSON: ").removeprefix("ValueError: ")
    if hasattr(value, "tolist"):
        return f"{text}; convert it with .tolist()"
    if isinstance(error, PydanticSerializationError) and "unknown type" in text:
        return f"{text}; return str, numbers, lists, dicts, dataclasses or pydantic models"
    if "surrogate" in text or "utf-8" in text or isinstance(error, UnicodeError):
        return f"{text}; encode binary data as text, e.g. with base64"
    return text
