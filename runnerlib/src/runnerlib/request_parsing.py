"""What callers send: the body of ``POST /batch/{algorithm}`` and the headers of runs."""

import math
import re
from typing import Any

from pydantic_core import from_json

from runnerlib.contract import HEADER_TASK_ATTEMPT, HEADER_TASK_DEADLINE, HEADER_TASK_ID, is_task_id, new_task_id
from runnerlib.errors import Refusal

#: Items in one batch; more than any `batch` option makes sense.
MAX_ITEMS = 4096
#: Bytes of a batch of several items. A single one may be as large as any body.
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: Numbers of attempts are below it.
MAX_ATTEMPT = 2**31
#: The longest wait in one call.
MAX_WAIT_SECONDS = 3600.0
#: No deadline is farther away than thirty million years; NaN and infinities are no number of seconds either.
_MAX_DEADLINE_SECONDS = 1e15

_wait = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6}(?:\.\d{1,6})?)", re.IGNORECASE)


def read_items(body: bytes) -> list[dict[str, Any]]:
    """The items of a batch. Raises Refusal.

    Not the strict parser: senders of batches have already checked each payload (docs/protocol.md), and strict reading
    costs as much per task as everything else here.
    """
    try:
        items = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Refusal("malformed", f"the body is not JSON: {error}") from None
    if not isinstance(items, list):
        raise Refusal("malformed", 'the body must be a list of {"id", "attempt", "deadline", "payload"}')
    if len(items) > MAX_ITEMS:
        raise Refusal("malformed", f"a batch has at most {MAX_ITEMS} items; send several")
    if len(items) > 1 and len(body) > MAX_BATCH_BYTES:
        raise Refusal("too_large", f"a batch of several has at most {MAX_BATCH_BYTES} bytes; send smaller ones")
    for position, item in enumerate(items):
        if not _is_item(item):
            raise Refusal(
                "malformed",
                f'item {position} must have "id" (1–128 of A-Z a-z 0-9 . _ : -), "attempt" (a whole number from 1) '
                'and, if any, "deadline" (seconds left)',
            )
    return items


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    attempt, deadline = item.get("attempt"), item.get("deadline")
    return (
        is_task_id(item.get("id"))
        and type(attempt) is int
        and 1 <= attempt < MAX_ATTEMPT
        and (
            deadline is None
            or (type(deadline) in (int, float) and -_MAX_DEADLINE_SECONDS < deadline < _MAX_DEADLINE_SECONDS)
        )
    )


def read_task(id: str | None, attempt: str | None) -> tuple[str, int]:
    """Task id and attempt from their headers; a new id and 1 where they are missing. Raises Refusal."""
    if id is None:
        id = new_task_id()
    elif not is_task_id(id):
        raise Refusal("malformed", f"header {HEADER_TASK_ID} must be 1–128 of A-Z a-z 0-9 . _ : -")
    if attempt is None:
        return id, 1
    if not attempt.isascii() or not attempt.isdigit() or len(attempt) > 10 or not 1 <= int(attempt) < MAX_ATTEMPT:
        raise Refusal("malformed", f"header {HEADER_TASK_ATTEMPT} must be a whole number from 1")
    return id, int(attempt)


def read_deadline(text: str | None) -> float | None:
    """Seconds left, from the header. Raises Refusal."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise Refusal("malformed", f"header {HEADER_TASK_DEADLINE} must be a number of seconds left")
    return seconds


def read_wait(prefer: str | None, default: float | None) -> float | None:
    """Seconds of ``Prefer: wait=...``, at most :data:`MAX_WAIT_SECONDS`."""
    found = None if prefer is None else _wait.search(prefer)
    return default if found is None else min(MAX_WAIT_SECONDS, float(found[1]))
