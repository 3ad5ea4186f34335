"""Where lines come from: a file that can be read again, or a stream that cannot."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from producer.errors import BadInput

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """`total` lines in `file`, which was read once and stands at its beginning; `digest` is that of its content."""

    file: BinaryIO
    name: str
    digest: str
    total: int
    size: int
    changed_at: int

    def check_unchanged(self) -> None:
        """Ids are made from the content; with another content they would be those of other tasks. Raises BadInput."""
        now = os.fstat(self.file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self.changed_at):
            raise BadInput(
                f"{self.name} was changed while it was being sent; send it again when nobody writes to it any more"
            )


@contextmanager
def open_source(path: Path | None, stdin: BinaryIO) -> Iterator[tuple[Source, bool]]:
    """The source, and whether it is a file. What can be read but once is put aside on disk first (None: `stdin`)."""
    if path is None:
        with _kept(stdin, "standard input") as source:
            yield source, False
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield _source(file, str(path)), True
            return
        with _kept(file, str(path)) as source:
            yield source, False


@contextmanager
def _kept(stream: BinaryIO, name: str) -> Iterator[Source]:
    with tempfile.TemporaryFile() as file:
        while data := stream.read(_CHUNK_BYTES):
            file.write(data)
        file.flush()
        file.seek(0)
        yield _source(file, name)


def _source(file: BinaryIO, name: str) -> Source:
    """Reads it once. What changes while that is being done is found by :meth:`Source.check_unchanged`."""
    before = os.fstat(file.fileno())
    digest, total, last = hashlib.sha256(), 0, b"\n"
    try:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
            total += data.count(b"\n")
            last = data[-1:]
        file.seek(0)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from None
    return Source(file, name, digest.hexdigest(), total + (last != b"\n"), before.st_size, before.st_mtime_ns)
