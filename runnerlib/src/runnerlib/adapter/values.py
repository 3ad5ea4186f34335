"""What goes into a handler and what comes out: payloads become arguments, results JSON, exceptions errors.

Reading a payload runs the validators of an author's types, which may raise anything, hang or end the process: only
worker processes, and the commands and tests of authors, do it.
"""

import asyncio
import concurrent.futures
import math
import os
import re
import traceback
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import GeneratorType
from typing import Any, Literal

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from pydantic_core import CoreConfig, PydanticSerializationError, SchemaSerializer

from runnerlib.adapter.errors import clean, cut, message_of, text_of
from runnerlib.adapter.model import Algorithm, Options, dotted_name
from runnerlib.contract import FailureCode, RunError, StrictJsonError, strict_json
from runnerlib.fetching.errors import FetchRefused

#: Errors listed for one payload; of more, only their number.
MAX_ERRORS = 20
MAX_TRACEBACK_BYTES = 16 * 1024
_MAX_MESSAGE = 500
_MAX_NAME = 200
#: Names of fields in a sentence are cut earlier.
_MAX_SHOWN_NAME = 80

#: Errors that may be gone at the next attempt. On Python 3.10 asyncio and concurrent.futures have their own time-outs.
_TRANSIENT = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError, OSError, MemoryError)
#: Libraries' own classes for a device without memory, e.g. torch.cuda.OutOfMemoryError.
_OUT_OF_MEMORY = "OutOfMemoryError"
_OUR_FOLDER = str(Path(__file__).parents[1]) + os.sep

#: At least this many digits in a row may be an integer that does not fit in 64 bits.
_LONG_INTEGER = re.compile(rb"[0-9]{19}")
_NON_FINITE_WORDS = (b"NaN", b"Infinity")
#: pydantic writes NaN and infinities as these words, or as null in models, which obey their own configuration, and what
#: cannot be a name as U+FFFD: if one of them is in the bytes, the value itself is inspected.
_SUSPECT = (b"null", *_NON_FINITE_WORDS, "\ufffd".encode())
#: A result of at most so many bytes without any of these needs no closer look: that is several microseconds faster.
_SHORT = 1000
_DOUBTFUL = re.compile(b"|".join([rb"[\[{]", _LONG_INTEGER.pattern, *_SUSPECT]))
#: Schemas whose values have exactly that type once they are validated: pydantic writes them without a warning.
_SCALARS = frozenset({"bool", "float", "int", "none", "str"})
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_NON_FINITE = "NaN or an infinity, which is not JSON; return None or a string instead"


class InvalidPayload(Exception):
    """The payload does not fit, in a sentence for its sender. `errors` has one entry for each field at fault.

    `__cause__` is the original exception.
    """

    def __init__(self, error: ValueError | AssertionError) -> None:
        found = _entries(error)
        self.errors = found[:MAX_ERRORS]
        shown = "; ".join(
            f"{'.'.join(str(part)[:_MAX_SHOWN_NAME] for part in one['loc']) or 'payload'}: {one['msg']}"
            for one in self.errors[:3]
        )
        super().__init__(shown + (f"; and {len(found) - 3} more" if len(found) > 3 else ""))


class ValidatorFailed(Exception):
    """An author's type raised something that is no verdict on the payload, e.g. a KeyError; see `__cause__`."""


class BadResult(Exception):
    """The handler's return value cannot be a result. The message names the function and says what to do."""


def read_arguments(algorithm: Algorithm, payload: bytes) -> dict[str, Any]:
    """The keyword arguments that the caller sent; fields that were left out are not among them.

    Raises InvalidPayload for ValueError, AssertionError and pydantic's ValidationError, ValidatorFailed for all else.
    """
    try:
        try:
            return algorithm.validate(payload)
        except (ValueError, AssertionError) as error:
            raise InvalidPayload(error) from error
    except InvalidPayload:
        raise
    except BaseException as error:  # also SystemExit: it ends this one task
        raise ValidatorFailed(type(error).__name__) from error


def _entries(error: ValueError | AssertionError) -> list[dict[str, Any]]:
    if not isinstance(error, ValidationError):
        # Raised where pydantic does not catch it, e.g. in a default_factory; reported as if it had.
        is_assertion = isinstance(error, AssertionError)
        kind, prefix = ("assertion_error", "Assertion failed") if is_assertion else ("value_error", "Value error")
        return [{"loc": [], "msg": clean(f"{prefix}, {error}"[:_MAX_MESSAGE]), "type": kind}]
    return [
        {
            "loc": [clean(part[:_MAX_NAME]) if isinstance(part, str) else part for part in one["loc"]],
            "msg": clean(one["msg"][:_MAX_MESSAGE]),
            "type": clean(one["type"][:_MAX_NAME]),
        }
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def encode_result(algorithm: Algorithm, value: Any) -> bytes:
    """What the handler returned, as compact JSON. Raises BadResult with a sentence for the author."""
    return encode(value, algorithm.returns, algorithm.options.result_bytes, algorithm.function_name)


def checked_list(function: str, returned: Any, expected: int) -> list[Any]:
    """What a batch handler returned, one entry for each task. Raises BadResult with advice."""
    if hasattr(returned, "tolist"):
        raise BadResult(f"{function}() returned a {type(returned).__name__}; return a list, e.g. with .tolist()")
    if not isinstance(returned, list | tuple):
        raise BadResult(f"{function}() returned a {type(returned).__name__}; return a list, one entry for each task")
    if len(returned) != expected:
        raise BadResult(
            f"{function}() returned {len(returned)} results for {expected} tasks; "
            "return one entry for each, in the same order (an Exception instance fails that one alone)"
        )
    return list(returned)


def encode(value: Any, returns: TypeAdapter[Any] | None, limit_bytes: int, function: str) -> bytes:
    """Checks `value` against the return hint and writes it as compact JSON. Raises BadResult."""
    if isinstance(value, GeneratorType):
        value = list(value)  # it is read once here, and once more if it has to be inspected
    try:
        if returns is None:
            data = pydantic_core.to_json(value, inf_nan_mode="constants")
        else:
            value = returns.validator.validate_python(value)
            data = _to_json(returns, value)
        is_plain = len(data) <= _SHORT and _DOUBTFUL.search(data) is None
        wrong = _unfaithful(value, returns or _ANY) if not is_plain and _has_one_of(_SUSPECT, data) else None
    except ValidationError as error:
        raise BadResult(f"{function}() returned something that does not fit its return hint: {_first(error)}") from None
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise BadResult(f"{function}() returned something that is not JSON: {_reason(error, value)}") from None
    if len(data) > limit_bytes:
        raise BadResult(
            f"{function}() returned {len(data)} bytes of JSON, the limit is {limit_bytes}; "
            'store the data and return a reference, or raise "result_bytes" in OPTIONS'
        )
    wrong = wrong or (None if is_plain else _not_strict(data))
    if wrong:
        raise BadResult(f"{function}() returned {wrong}")
    return data


def _to_json(returns: TypeAdapter[Any], value: Any) -> bytes:
    """Writes `value`, with fields named as in the schema.

    Instances of a hint's classes are not checked inside. Only when the serialiser warns, its JSON is validated: so a
    list in a field that says tuple passes, and text in a field that says float does not.
    """
    serializer = _serializer(returns)
    schema = returns.core_schema
    if schema["type"] in _SCALARS and "serialization" not in schema:
        return serializer.to_json(value, warnings=False)  # a microsecond faster
    try:
        return serializer.to_json(value, by_alias=True, warnings="error")
    except PydanticSerializationError:
        data = serializer.to_json(value, by_alias=True, warnings=False)
        returns.validator.validate_json(data)
        return data


@lru_cache
def _serializer(returns: TypeAdapter[Any]) -> SchemaSerializer:
    """The adapter's own, except that it writes NaN and infinities as words, also those of JSON-only serialisers."""
    return SchemaSerializer(returns.core_schema, CoreConfig(ser_json_inf_nan="constants"))


def _has_one_of(words: Iterable[bytes], data: bytes) -> bool:
    # `word in data` first tries whether the word is a number, which takes longer than to look for it.
    return any(data.find(word) >= 0 for word in words)


def _unfaithful(value: Any, returns: TypeAdapter[Any]) -> str | None:
    """What the JSON of `value` silently misrepresents.

    Looks at the value as it is written, both in Python's form and in JSON's, which other functions may make.
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
    """Why some reader would read the bytes differently, or not at all. The cheap checks come first.

    Written again after reading, they are the same unless two names of an object are.
    """
    is_shallow = data.count(b"[") + data.count(b"{") <= strict_json.MAX_DEPTH
    is_plain = is_shallow and not _has_one_of(_NON_FINITE_WORDS, data) and not _LONG_INTEGER.search(data)
    if is_plain and (b"{" not in data or pydantic_core.to_json(pydantic_core.from_json(data)) == data):
        return None
    try:
        strict_json.loads(data)
    except StrictJsonError as error:
        return f"something that is not JSON for every reader: {error}"
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(error: ValidationError) -> str:
    """The first mistake and its place."""
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


def classify(error: BaseException, options: Options) -> RunError:
    """The outcome of a run whose validators or handler raised `error`: code, message, whether it is worth a retry."""
    if isinstance(error, InvalidPayload):
        return RunError(code=FailureCode.INVALID_PAYLOAD.value, message=cut(str(error)), errors=error.errors)
    if isinstance(error, ValidatorFailed) and error.__cause__ is not None:
        # A validator will raise the same again.
        return classify(error.__cause__, options).model_copy(update={"retryable": False})
    if isinstance(error, BadResult):
        return RunError(code=FailureCode.BAD_RESULT.value, message=cut(str(error)), retryable=False)
    if isinstance(error, FetchRefused) or _is_one_of(error, options.invalid_payload_on):
        # The sender named something that cannot be fetched or that the handler cannot use: the payload is at fault.
        return RunError(code=FailureCode.INVALID_PAYLOAD.value, message=cut(text_of(error)), retryable=False)
    return RunError(
        code=FailureCode.HANDLER_ERROR.value,
        message=message_of(error),
        retryable=isinstance(error, _TRANSIENT)
        or any(cls.__name__ == _OUT_OF_MEMORY for cls in type(error).__mro__)
        or _is_one_of(error, options.retry_on),
        traceback=_traceback(error),
    )


def _is_one_of(error: BaseException, names: Iterable[str]) -> bool:
    wanted = frozenset(names)
    return bool(wanted) and any(dotted_name(cls) in wanted for cls in type(error).__mro__)


def _traceback(error: BaseException) -> str:
    """The traceback from the author's first frame on, its last 16 KB."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OUR_FOLDER):
        frames = frames.tb_next
    frames = frames or error.__traceback__
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:  # the author's __str__ may raise anything
        text = "".join(traceback.format_tb(frames)) + type(error).__name__
    data = clean(text).encode()
    if len(data) <= MAX_TRACEBACK_BYTES:
        return data.decode()
    return "…\n" + data[-MAX_TRACEBACK_BYTES + 8 :].decode(errors="ignore")
