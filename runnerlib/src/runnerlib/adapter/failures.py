"""From what a handler raised to the error a caller is told, by class."""

import asyncio
import concurrent.futures
import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from runnerlib.adapter.model import Options
from runnerlib.adapter.payloads import InvalidPayload, ValidatorFailed, clean
from runnerlib.adapter.results import BadResult
from runnerlib.contract import FailureCode, RunError
from runnerlib.fetching.errors import FetchRefused

MAX_MESSAGE_BYTES = 4 * 1024
MAX_TRACEBACK_BYTES = 16 * 1024

#: What may be gone at the next attempt. On Python 3.10 asyncio and concurrent.futures have time-outs of their own.
_TRANSIENT = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError, OSError, MemoryError)
#: Libraries' own classes for a device without memory, e.g. torch.cuda.OutOfMemoryError.
_OUT_OF_MEMORY = "OutOfMemoryError"

_OUR_FOLDER = str(Path(__file__).parents[1]) + os.sep


def classify(error: BaseException, options: Options) -> RunError:
    """What becomes of a run whose validators or handler raised `error`: code, message, whether another attempt helps.

    What a validator raises it will raise again: no other attempt helps.
    """
    if isinstance(error, InvalidPayload):
        return RunError(code=FailureCode.INVALID_PAYLOAD.value, message=_cut(str(error)), errors=error.errors)
    if isinstance(error, ValidatorFailed) and error.__cause__ is not None:
        return classify(error.__cause__, options).model_copy(update={"retryable": False})
    if isinstance(error, BadResult):
        return RunError(code=FailureCode.BAD_RESULT.value, message=_cut(str(error)), retryable=False)
    if isinstance(error, FetchRefused) or _is_one_of(error, options.invalid_payload_on):
        # What the sender named cannot be had, or is not what the handler can use: its payload is at fault.
        return RunError(code=FailureCode.INVALID_PAYLOAD.value, message=_cut(_said(error)), retryable=False)
    return RunError(
        code=FailureCode.HANDLER_ERROR.value,
        message=message_of(error),
        retryable=is_transient(error, options.retry_on),
        traceback=traceback_of(error),
    )


def is_transient(error: BaseException, retry_on: Iterable[str] = ()) -> bool:
    """Whether another attempt may help: time-outs, connections, the operating system, memory, and `retry_on`."""
    if isinstance(error, _TRANSIENT):
        return True
    if any(cls.__name__ == _OUT_OF_MEMORY for cls in type(error).__mro__):
        return True
    return _is_one_of(error, retry_on)


def _is_one_of(error: BaseException, names: Iterable[str]) -> bool:
    wanted = frozenset(names)
    return bool(wanted) and any(dotted_name(cls) in wanted for cls in type(error).__mro__)


def dotted_name(cls: type) -> str:
    """How a class is named in `Options.retry_on` and `Options.invalid_payload_on`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def message_of(error: BaseException) -> str:
    """``TypeName: text``, cut to 4 KB. Never fails, whatever the author's ``__str__`` does."""
    name, said = type(error).__name__, _said(error)
    return _cut(f"{name}: {said}" if said != name else name)


def traceback_of(error: BaseException) -> str:
    """The traceback from the author's first frame on, its last 16 KB."""
    trimmed = _skip_ours(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(type(error), error, trimmed))
    except BaseException:  # the same author's __str__
        text = "".join(traceback.format_tb(trimmed)) + type(error).__name__
    data = clean(text).encode()
    if len(data) <= MAX_TRACEBACK_BYTES:
        return data.decode()
    return "…\n" + data[-MAX_TRACEBACK_BYTES + 8 :].decode(errors="ignore")


def _said(error: BaseException) -> str:
    """Its text, or else its type's name."""
    try:
        return str(error) or type(error).__name__
    except BaseException:  # an author's __str__ may raise anything; the type's name still tells something
        return type(error).__name__


def _skip_ours(frames: TracebackType | None) -> TracebackType | None:
    """Frames of this package say nothing to an author."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OUR_FOLDER):
        first = first.tb_next
    return first if first is not None else frames


def _cut(text: str) -> str:
    data = clean(text).encode()
    if len(data) <= MAX_MESSAGE_BYTES:
        return data.decode()
    return data[: MAX_MESSAGE_BYTES - 4].decode(errors="ignore") + "…"
