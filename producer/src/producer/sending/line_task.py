"""A line of a file as a message for the gateway. Pure.

A line without an id gets one that its series and its number decide, so that sending the file again sends the same
tasks. A series is one sending of one content: see :func:`series_of`.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from producer.json_text import BadJson, dumps, loads
from producer.models import MAX_MESSAGE_BYTES, FailureCode
from producer.sending.lines import Line

_ID_DIGITS = 32
_SHAPE = (
    'a line is a message, {"algorithm": ..., "payload": ...}; '
    "when the lines are payloads alone, name their algorithm with --algorithm"
)


@dataclass(frozen=True, slots=True)
class LineTask:
    """`body` is the message with its id, on one line."""

    line: Line
    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can never be a task; `code` and `message` say why."""

    line: Line
    code: str
    message: str


def series_of(content_digest: str, run: str) -> str:
    """Names one sending of one content. Another `run` of the same content is another series: new tasks."""
    return hashlib.sha256(f"{len(run)}:{run}:{content_digest}".encode()).hexdigest()


def read_task(line: Line, algorithm: str | None, series: str) -> LineTask | BadLine:
    """`algorithm` is that of all lines, which are payloads alone then."""
    if line.data is None:
        why = f"it has more than {MAX_MESSAGE_BYTES} bytes; store the data elsewhere and send a reference"
        return BadLine(line, FailureCode.TOO_LARGE.value, why)
    try:
        value = loads(line.data)
        message = value if algorithm is None else {"algorithm": algorithm, "payload": value}
        if not isinstance(message, dict) or "algorithm" not in message:
            return BadLine(line, FailureCode.MALFORMED.value, _SHAPE)
    except BadJson as error:
        return BadLine(line, FailureCode.MALFORMED.value, f"it is {error}")
    given = message.get("id")
    # The gateway says what is wrong with an id that is none.
    task_id = _line_id(series, line.number) if given is None else str(given)
    return LineTask(line, task_id, _body(line.data, message, algorithm, task_id))


def _line_id(series: str, number: int) -> str:
    """Not to be guessed from another line's id: an id is all that it takes to read a result."""
    return hashlib.sha256(f"{series}:{number}".encode()).hexdigest()[:_ID_DIGITS]


def _body(data: bytes, message: dict[str, Any], algorithm: str | None, task_id: str) -> bytes:
    """What was written goes out as it was written; only the id is added."""
    quoted = json.dumps(task_id).encode()
    if algorithm is not None:
        return b'{"algorithm":"%b","id":%b,"payload":%b}' % (algorithm.encode(), quoted, data)
    if "id" not in message:
        return b'{"id":%b,%b' % (quoted, data[1:])
    return data if message["id"] is not None else dumps({**message, "id": task_id})
