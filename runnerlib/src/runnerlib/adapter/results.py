"""From what a handler returned to the bytes of a JSON result, or to a sentence that says why not."""

import dataclasses
import math
import re
from typing import Any

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from runnerlib.contract import StrictJsonError, strict_json

#: At least this many digits in a row may be an integer that does not fit in 64 bits.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")
#: pydantic writes NaN and infinities as null, or as these constants; any of them calls for a look at the value.
_SUSPECT = (b"null", b"NaN", b"Infinity")


class BadResult(Exception):
    """What the handler returned cannot be a result. The message names the function and says what to do."""


def encode(value: Any, returns: TypeAdapter[Any] | None, limit_bytes: int, function: str) -> bytes:
    """Checks `value` against the return hint and writes it as compact JSON. Raises BadResult."""
    try:
        if returns is None:
            data = pydantic_core.to_json(value, inf_nan_mode="constants")
        else:
            data = _to_json(returns, returns.validator.validate_python(value))
    except ValidationError as error:
        raise BadResult(f"{function}() returned something that does not fit its return hint: {_first(error)}") from None
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise BadResult(f"{function}() returned something that is not JSON: {_reason(error, value)}") from None
    if len(data) > limit_bytes:
        raise BadResult(
            f"{function}() returned {len(data)} bytes of JSON, the limit is {limit_bytes}; "
            'store the data and return a reference, or raise "result_bytes" in OPTIONS'
        )
    _refuse_what_is_not_strict(data, value, function)
    return data


def _to_json(returns: TypeAdapter[Any], value: Any) -> bytes:
    """Instances of a hint's classes are not checked inside; only when the serialiser wonders, its JSON is read back.

    So a list in a field that says tuple passes, and text in a field that says float does not.
    """
    try:
        return returns.serializer.to_json(value, warnings="error")
    except PydanticSerializationError:
        data = returns.serializer.to_json(value, warnings=False)
        returns.validator.validate_json(data)
        return data


def _refuse_what_is_not_strict(data: bytes, value: Any, function: str) -> None:
    """Cheap looks at the bytes first; only a suspicion pays for a real check."""
    if any(word in data for word in _SUSPECT) and _has_non_finite(value):
        raise BadResult(f"{function}() returned NaN or an infinity, which is not JSON; return None or a string instead")
    if _LONG_INTEGER.search(data) or data.count(b"[") + data.count(b"{") > strict_json.MAX_DEPTH:
        try:
            strict_json.loads(data)
        except StrictJsonError as error:
            raise BadResult(f"{function}() returned something that is not JSON for every reader: {error}") from None


def _has_non_finite(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        elif isinstance(item, BaseModel) or (dataclasses.is_dataclass(item) and not isinstance(item, type)):
            stack.extend(vars(item).values() if hasattr(item, "__dict__") else _slots(item))
    return False


def _slots(item: Any) -> list[Any]:
    return [getattr(item, one.name) for one in dataclasses.fields(item)]


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
