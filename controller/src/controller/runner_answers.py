"""Parses runners' answers, strictly and within bounds. Pure: bodies and header values come in, frozen data goes out.

Nothing that a runner sends is trusted: every size is bounded, results are JSON that all parties read alike, and entries
that were not asked for are ignored. Whether an entry is believed is decided in `controller.call`, with the store's row.
"""

import json
import math
import re
from collections.abc import Mapping, Set
from dataclasses import field
from typing import Any, NamedTuple

import orjson

from controller.errors import BadAnswer
from runnerlib.contract import EntryState, FailureCode, Problem, Progress, RunError, StrictJsonError, strict_json
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from runnerlib.contract.immutable import immutable

#: A run as both sides name it: task id and attempt.
Key = tuple[str, int]

#: Most bytes of one result, whatever a registration says.
MAX_RESULT_BYTES = MAX_MESSAGE_BYTES
#: Beside its result an entry has at most an error with its traceback, and progress.
ENTRY_BYTES = 64 * 1024
#: Most bytes of one answer. A call whose results are larger together is repeated one by one.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_PROBLEM_BYTES = 64 * 1024
#: Each list or object of an answer costs a hundred bytes of memory and more, whatever it costs on the wire.
MAX_CONTAINERS = 2_000_000
MAX_PROGRESS_CHARACTERS = 1000
#: runnerlib sends 4 KB of an exception's message, and a sentence for each field of a payload that does not fit.
MAX_ERROR_CHARACTERS = 10_000
MAX_TRACEBACK_CHARACTERS = 32 * 1024
MAX_CODE_CHARACTERS = 64
#: As a registration's boot id.
MAX_BOOT_CHARACTERS = 64
#: When a busy runner does not say when to come back, and the longest that it may say.
DEFAULT_RETRY_AFTER_SECONDS = 0.5
MAX_RETRY_AFTER_SECONDS = 10.0
#: No call takes longer than a year; anything above is a mistake, and would spoil averages.
_MAX_SECONDS = 366 * 86_400.0

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PRINTABLE_ASCII = re.compile(r"[!-~]+")
_STATES = {state.value: state for state in EntryState}


class Entry(NamedTuple):
    """What a runner says about one run. `result` is compact JSON, or None if the entry has no result."""

    state: EntryState
    result: bytes | None = None
    error: RunError | None = None
    progress: Progress | None = None
    seconds: float | None = None


@immutable
class Answer:
    """A runner's entries for the runs it was asked for, and the id of the process that sent them.

    `faults` has a reason for each run whose entry cannot be read; runs that are in neither were left out.
    """

    entries: Mapping[Key, Entry]
    boot: str | None
    faults: Mapping[Key, str] = field(default_factory=dict)


def most_bytes(runs: int, result_bytes: int) -> int:
    """Most bytes of an answer about so many runs."""
    return min(MAX_ANSWER_BYTES, runs * (min(result_bytes, MAX_RESULT_BYTES) + ENTRY_BYTES))


def read_entries(body: bytes, asked: Set[Key], boot: str | None) -> Answer:
    """The answer to ``POST /batch/{algorithm}``. Entries for runs that were not asked for are ignored.

    Raises BadAnswer when the body is not a list.
    """
    value = _json(body, boot)
    if not isinstance(value, list):
        raise BadAnswer("the runner's answer is not a list of entries", boot=boot)
    entries: dict[Key, Entry] = {}
    faults: dict[Key, str] = {}
    for each in value:
        key = _key(each)
        if key is None or key not in asked:
            continue
        if key in entries or key in faults:
            entries.pop(key, None)
            faults[key] = "the runner's answer has two entries for this run"
            continue
        try:
            entries[key] = _entry(each)
        except ValueError as error:
            faults[key] = f"the runner's entry for this run cannot be read: {error}"
    return Answer(entries, boot, faults)


def read_result(body: bytes, boot: str | None) -> Entry:
    """The answer to ``POST /run/{algorithm}`` of a plain runner. Raises BadAnswer when it is not JSON."""
    value = _json(body, boot)
    if not isinstance(value, dict) or "result" not in value:
        return Entry(EntryState.SUCCEEDED)
    return Entry(EntryState.SUCCEEDED, strict_json.compact(value["result"]))


def read_problem(status: int, body: bytes) -> Problem:
    """A refusal: the runner's own words where it has any, e.g. of a framework that answers with ``detail`` alone."""
    try:
        known = strict_json.loads(body[:MAX_PROBLEM_BYTES])
    except StrictJsonError:
        known = {}
    fields = known if isinstance(known, dict) else {}
    detail = fields.get("detail")
    if detail is not None and not isinstance(detail, str):
        detail = orjson.dumps(detail).decode()
    return Problem(
        title="refused by the runner",
        status=status,
        code=_text(fields.get("code", ""), MAX_CODE_CHARACTERS),
        detail=_text(detail or f"the runner answered {status}", MAX_ERROR_CHARACTERS),
        **({"retryable": True} if fields.get("retryable") is True else {}),
    )


def read_boot(header: str | None) -> str | None:
    """The boot id, or None without a valid one."""
    if header is None or len(header) > MAX_BOOT_CHARACTERS or not _PRINTABLE_ASCII.fullmatch(header):
        return None
    return header


def read_retry_after(header: str | None) -> float:
    """Seconds until a busy runner may be asked again."""
    try:
        seconds = float(header or DEFAULT_RETRY_AFTER_SECONDS)
    except ValueError:
        seconds = DEFAULT_RETRY_AFTER_SECONDS
    return min(max(seconds, 0.01), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else DEFAULT_RETRY_AFTER_SECONDS


def _json(body: bytes, boot: str | None) -> Any:
    if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise BadAnswer(
            f"the runner's answer has more than {MAX_CONTAINERS} lists and objects; return a reference",
            boot=boot,
            would_repeat=True,
        )
    try:
        return strict_json.loads(body)
    except StrictJsonError as error:
        raise BadAnswer(f"the runner's answer is {error}", boot=boot, would_repeat=_is_loose_json(body)) from None


def _is_loose_json(body: bytes) -> bool:
    """Whether a less strict parser accepts it: then it was not garbled, and the runner will say it again."""
    try:
        json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict):
        return None
    task_id, attempt = entry.get("id"), entry.get("attempt")
    if not isinstance(task_id, str) or not isinstance(attempt, int) or isinstance(attempt, bool):
        return None
    return task_id, attempt


def _entry(fields: Mapping[str, Any]) -> Entry:
    """Raises ValueError. Progress and seconds are left out when they cannot be read."""
    named = fields.get("state")
    state = _STATES.get(named) if isinstance(named, str) else None
    if state is None:
        raise ValueError(f"there is no state {_text(named, 40)!r}")
    if state is EntryState.SUCCEEDED:
        result = strict_json.compact(fields["result"]) if "result" in fields else None
        return Entry(state, result, None, None, _seconds(fields.get("seconds")))
    return Entry(
        state,
        None,
        _error(fields.get("error")) if state is EntryState.FAILED else None,
        _progress(fields.get("progress")) if not state.is_final else None,
        _seconds(fields.get("seconds")),
    )


def _error(value: Any) -> RunError:
    fields = value if isinstance(value, dict) else {}
    traceback = fields.get("traceback")
    return RunError(
        code=_text(fields.get("code") or FailureCode.HANDLER_ERROR.value, MAX_CODE_CHARACTERS),
        message=_text(fields.get("message") or "the runner gave no reason", MAX_ERROR_CHARACTERS),
        retryable=fields.get("retryable") is True,
        traceback=_text(traceback, MAX_TRACEBACK_CHARACTERS, keep_end=True) if isinstance(traceback, str) else None,
    )


def _progress(value: Any) -> Progress | None:
    fields = value if isinstance(value, dict) else {}
    fraction, message = fields.get("fraction"), fields.get("message", "")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        return None
    return Progress(fraction=fraction, message=_text(message, MAX_PROGRESS_CHARACTERS).replace("\n", " "))


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= _MAX_SECONDS else None


def _text(value: Any, most: int, *, keep_end: bool = False) -> str:
    """At most so many characters, without control characters but tabs and line breaks."""
    text = value if isinstance(value, str) else str(value)[: most + 1]
    if len(text) > most:
        text = f"…{text[-most + 1 :]}" if keep_end else f"{text[: most - 1]}…"
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
