"""The lines of a file for ``send-many``, each as a task with an id. Memory: one line.

A line without an id gets one from the file's name, the line's number and its text. So the same line sent again is the
same task, and a line that was corrected is a new one, without any effect on the others.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from producer.errors import BadInput
from producer.json_text import BYTE_ORDER_MARK, BadJson, dumps, loads
from producer.models import MAX_MESSAGE_BYTES, FailureCode

if TYPE_CHECKING:
    from producer.client.client import GatewayClient
    from runnerlib.contract import Catalogue

_CHUNK_BYTES = 1024 * 1024
_BLANKS = b" \t\r\n"
_ID_DIGITS = 32
_SHAPE = (
    'a line is a message, {"algorithm": ..., "payload": ...}; '
    "when the lines are payloads alone, name their algorithm with --algorithm"
)


@dataclass(frozen=True, slots=True)
class LineTask:
    """`number` counts from 1; `body` is the message with its id, on one line."""

    number: int
    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that did not become a task, and why. `id` is None if it can never be a task."""

    number: int
    id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class MessageFile:
    """Lines that are messages, or with `algorithm` payloads for it. `name` and `run` are part of the lines' ids.

    `size` is None for standard input and pipes; these have no name.
    """

    file: BinaryIO
    name: str
    size: int | None
    algorithm: str | None
    run: str

    def tasks(self) -> Iterator[LineTask | RefusedLine]:
        """The lines that are not blank. Raises BadInput if the file cannot be read any further."""
        series = json.dumps([self.run, self.name, self.algorithm])
        try:
            for number, data in read_lines(self.file):
                yield read_task(number, data, self.algorithm, series)
        except OSError as error:
            raise BadInput(f"{self.name or 'standard input'} cannot be read: {error.strerror}") from None


@contextmanager
def open_messages(path: Path | None, algorithm: str | None, run: str, *, is_read_twice: bool) -> Iterator[MessageFile]:
    """The messages of a file, or of standard input if `path` is None. A pipe that is read twice is copied to disk."""
    try:
        source = nullcontext(sys.stdin.buffer) if path is None else path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    with source as file:
        if path is not None and path.is_file():
            yield MessageFile(file, path.name, path.stat().st_size, algorithm, run)
        elif is_read_twice:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(file, copy, _CHUNK_BYTES)
                copy.seek(0)
                yield MessageFile(copy, "", None, algorithm, run)
        else:
            yield MessageFile(file, "", None, algorithm, run)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The number and the text of each line that is not blank; None for a line above the limit of a message."""
    number = 0
    while data := file.readline(MAX_MESSAGE_BYTES + 2):
        number += 1
        if len(data) == MAX_MESSAGE_BYTES + 2:
            while data and not data.endswith(b"\n"):
                data = file.readline(_CHUNK_BYTES)
            yield number, None
            continue
        # Files that were joined have byte order marks within them, too.
        text = data.strip(_BLANKS)
        while text.startswith(BYTE_ORDER_MARK):
            text = text.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANKS)
        if text:
            yield number, text


def read_task(number: int, data: bytes | None, algorithm: str | None, series: str) -> LineTask | RefusedLine:
    """The line as a message, or with `algorithm` as a payload for it. `series` makes ids differ from other files'."""
    if data is None:
        why = f"it has more than {MAX_MESSAGE_BYTES} bytes; store the data elsewhere and send a reference"
        return RefusedLine(number, None, FailureCode.TOO_LARGE.value, why)
    try:
        value = loads(data)
    except BadJson as error:
        return RefusedLine(number, None, FailureCode.MALFORMED.value, f"it is {error}")
    message = value if algorithm is None else {"algorithm": algorithm, "payload": value}
    if not isinstance(message, dict) or "algorithm" not in message:
        return RefusedLine(number, None, FailureCode.MALFORMED.value, _SHAPE)
    if message.get("id") is None:
        # A hash, so that the id of one line does not give away another's.
        task_id = hashlib.sha256(f"{series}:{number}:".encode() + data).hexdigest()[:_ID_DIGITS]
    else:
        task_id = str(message["id"])  # the gateway checks it
    return LineTask(number, task_id, _body(data, message, algorithm, task_id))


def _body(data: bytes, message: dict[str, Any], algorithm: str | None, task_id: str) -> bytes:
    """The line goes out as it was written; only the id is added."""
    quoted = json.dumps(task_id).encode()
    if algorithm is not None:
        return b'{"algorithm":"%b","id":%b,"payload":%b}' % (algorithm.encode(), quoted, data)
    if "id" not in message:
        return b'{"id":%b,%b' % (quoted, data[1:])
    return data if message["id"] is not None else dumps({**message, "id": task_id})


def bad_lines(lines: Iterable[LineTask | RefusedLine], client: "GatewayClient") -> Iterator[tuple[int, str]]:
    """Checks lines by the gateway's own rules, with the schemas that it has now: number and reason of each bad line.

    Raises BadInput if the gateway's packages are not installed.
    """
    try:
        # Imported here: no other command needs the gateway's checks.
        from producer.gateway.admission import Admission, Refused
    except ImportError:
        raise BadInput(
            "--strict checks as the gateway does, and needs its packages; from a checkout: "
            "pip install ./runnerlib ./taskqueue './producer[gateway]'; or send without --strict: bad lines are named, "
            "and the others sent"
        ) from None

    admission, now = Admission(_known_algorithms(client), MAX_MESSAGE_BYTES), time.time()
    for line in lines:
        found = line if isinstance(line, RefusedLine) else admission.one(line.body, now)
        if isinstance(found, RefusedLine | Refused):
            yield line.number, found.message


@dataclass(frozen=True, slots=True)
class _CatalogueView:
    """The gateway's algorithms, in the shape that its admission reads."""

    catalogue: "Catalogue"
    is_sure: bool


def _known_algorithms(client: "GatewayClient") -> _CatalogueView:
    from runnerlib.contract import AlgorithmDescription, AlgorithmView, Catalogue, schema_digest

    answer = client.algorithms_answer()
    algorithms = {}
    for entry in answer["algorithms"]:
        about = AlgorithmDescription(name=entry["name"], input_schema=entry["input_schema"])
        algorithms[about.name] = AlgorithmView(description=about, schema_digest=schema_digest(about))
    catalogue = Catalogue(epoch="", index=0, uptime_seconds=0, lease_seconds=0, runners={}, algorithms=algorithms)
    return _CatalogueView(catalogue, bool(answer["complete"]))
