"""A file of messages for ``send-many``: its lines, each line as a task, and a check of all. Memory: one line.

A line without an id gets one from the file's content, the run and the line's number, so that sending the file again
sends the same tasks.
"""

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
class Line:
    """`number` counts from 1; `end` is where the next line begins. `data` is None for a line above the limit of a
    message."""

    number: int
    end: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class LineTask:
    """`body` is the message with its id, on one line."""

    number: int
    end: int
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
    """A file with `total` lines of messages, or with `algorithm` of payloads alone for it. `digest` is that of its
    content and its algorithm."""

    file: BinaryIO
    name: str
    algorithm: str | None
    digest: str
    total: int
    size: int
    changed_at: int

    def tasks(self, run: str, *, after: int = 0, offset: int = 0) -> Iterator[LineTask | RefusedLine]:
        """The lines behind line `after`, which ends at `offset`, as tasks of this run."""
        series = hashlib.sha256(f"{len(run)}:{run}:{self.digest}".encode()).hexdigest()
        self.file.seek(offset)
        for line in read_lines(self.file, after=after, offset=offset):
            yield read_task(line, self.algorithm, series)

    def check_unchanged(self) -> None:
        """Raises BadInput if the file was written to: ids come from the content, so other content is other tasks."""
        now = os.fstat(self.file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self.changed_at):
            raise BadInput(
                f"{self.name} was changed while it was being sent; send it again when nobody writes to it any more"
            )


@contextmanager
def open_messages(path: Path | None, stdin: BinaryIO, algorithm: str | None) -> Iterator[tuple[MessageFile, bool]]:
    """The messages, and whether they are in a file. What can be read only once is first copied to disk.

    `path` None means `stdin`.
    """
    name = "standard input" if path is None else str(path)
    try:
        file = stdin if path is None else path.open("rb")
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from None
    try:
        if path is not None and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield _messages(file, name, algorithm), True
            return
        with tempfile.TemporaryFile() as copy:
            while data := file.read(_CHUNK_BYTES):
                copy.write(data)
            copy.flush()
            copy.seek(0)
            yield _messages(copy, name, algorithm), False
    finally:
        if path is not None:
            file.close()


def _messages(file: BinaryIO, name: str, algorithm: str | None) -> MessageFile:
    """Reads the file once. :meth:`MessageFile.check_unchanged` also finds changes from here on."""
    before = os.fstat(file.fileno())
    content, total, last = hashlib.sha256(), 0, b"\n"
    try:
        while data := file.read(_CHUNK_BYTES):
            content.update(data)
            total += data.count(b"\n")
            last = data[-1:]
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from None
    digest = f"{content.hexdigest()}:{algorithm or ''}"
    return MessageFile(file, name, algorithm, digest, total + (last != b"\n"), before.st_size, before.st_mtime_ns)


def read_lines(file: BinaryIO, *, after: int = 0, offset: int = 0) -> Iterator[Line]:
    """The lines that are not blank, from the file's position: behind line `after`, at `offset`."""
    number = after
    while data := file.readline(MAX_MESSAGE_BYTES + 2):
        number += 1
        start, offset = offset, offset + len(data)
        rest = data
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_CHUNK_BYTES)
            offset += len(rest)
        if offset - start > MAX_MESSAGE_BYTES + 1:
            yield Line(number, offset, None)
            continue
        # Files that were joined have byte order marks within them, too.
        text = data.strip(_BLANKS)
        while text.startswith(BYTE_ORDER_MARK):
            text = text.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANKS)
        if text:
            yield Line(number, offset, text)


def read_task(line: Line, algorithm: str | None, series: str) -> LineTask | RefusedLine:
    """The line as a message, or with `algorithm` as a payload for it. `series` names the content and the run."""
    if line.data is None:
        why = f"it has more than {MAX_MESSAGE_BYTES} bytes; store the data elsewhere and send a reference"
        return RefusedLine(line.number, None, FailureCode.TOO_LARGE.value, why)
    try:
        value = loads(line.data)
    except BadJson as error:
        return RefusedLine(line.number, None, FailureCode.MALFORMED.value, f"it is {error}")
    message = value if algorithm is None else {"algorithm": algorithm, "payload": value}
    if not isinstance(message, dict) or "algorithm" not in message:
        return RefusedLine(line.number, None, FailureCode.MALFORMED.value, _SHAPE)
    if message.get("id") is None:
        # A hash: who knows the id of one line must not guess another's, since an id is enough to read a result.
        task_id = hashlib.sha256(f"{series}:{line.number}".encode()).hexdigest()[:_ID_DIGITS]
    else:
        task_id = str(message["id"])  # the gateway checks it
    return LineTask(line.number, line.end, task_id, _body(line.data, message, algorithm, task_id))


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
