"""The body of ``POST /batch/{algorithm}``. Pure."""

import re
from typing import Any

from pydantic_core import from_json

from runnerlib.contract import TASK_ID_PATTERN
from runnerlib.refusals import Malformed, TooLarge

#: Items in one batch; more than any `batch` option makes sense.
MAX_ITEMS = 4096
#: Bytes of a batch, so that several large payloads do not come at once. One alone may be as large as any body.
MAX_BATCH_BYTES = 4 * 1024 * 1024

#: Numbers of attempts are below it.
MAX_ATTEMPT = 2**31
#: No deadline is farther away than thirty million years; NaN and infinities are no number of seconds either.
_MAX_DEADLINE_SECONDS = 1e15

_is_task_id = re.compile(TASK_ID_PATTERN).fullmatch


def read_items(body: bytes) -> list[dict[str, Any]]:
    """Raises Malformed, TooLarge.

    Not the strict parser: whoever sends batches has checked each payload at its own door (docs/protocol.md), and
    reading strictly costs as much for each task as everything else here.
    """
    try:
        items = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(items, list):
        raise Malformed('the body must be a list of {"id", "attempt", "deadline", "payload"}')
    if len(items) > MAX_ITEMS:
        raise Malformed(f"a batch has at most {MAX_ITEMS} items; send several")
    if len(items) > 1 and len(body) > MAX_BATCH_BYTES:
        raise TooLarge(f"a batch of several has at most {MAX_BATCH_BYTES} bytes; send smaller ones")
    for position, item in enumerate(items):
        if not _is_item(item):
            raise Malformed(
                f'item {position} must have "id" (1–128 of A-Z a-z 0-9 . _ : -), "attempt" (a whole number from 1) '
                'and, if any, "deadline" (seconds left)'
            )
    return items


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    id, attempt, deadline = item.get("id"), item.get("attempt"), item.get("deadline")
    return (
        type(id) is str
        and _is_task_id(id) is not None
        and type(attempt) is int
        and 1 <= attempt < MAX_ATTEMPT
        and (
            deadline is None
            or (type(deadline) in (int, float) and -_MAX_DEADLINE_SECONDS < deadline < _MAX_DEADLINE_SECONDS)
        )
    )
