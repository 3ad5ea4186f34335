"""Lines of a file of any size, with their numbers and places. Memory: one line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from producer.json_text import BYTE_ORDER_MARK
from producer.models import MAX_MESSAGE_BYTES

_SKIP_BYTES = 1024 * 1024
_BLANKS = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1, `start` and `end` are places in the file. `data` is None for a line beyond the limit
    of a message."""

    number: int
    start: int
    end: int
    data: bytes | None


def read_lines(file: BinaryIO, *, after: int = 0, offset: int = 0) -> Iterator[Line]:
    """The lines that are not blank, from where `file` stands: behind line `after`, at `offset`."""
    number = after
    while data := file.readline(MAX_MESSAGE_BYTES + 2):
        number += 1
        start, offset = offset, offset + len(data)
        if not data.endswith(b"\n"):
            offset += _skip_rest(file)
        if offset - start > MAX_MESSAGE_BYTES + 1:
            yield Line(number, start, offset, None)
            continue
        text = _bare(data)
        if text:
            yield Line(number, start, offset, text)


def read_lines_at(file: BinaryIO, places: Iterable[tuple[int, int]]) -> Iterator[Line]:
    """These (number, start) of the file again."""
    for number, start in places:
        file.seek(start)
        yield from _first(read_lines(file, after=number - 1, offset=start))


def _first(lines: Iterator[Line]) -> Iterator[Line]:
    for line in lines:
        yield line
        return


def _bare(data: bytes) -> bytes:
    """Without blanks around it, and without byte order marks: files that were put one behind another have more."""
    text = data.strip(_BLANKS)
    while text.startswith(BYTE_ORDER_MARK):
        text = text.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANKS)
    return text


def _skip_rest(file: BinaryIO) -> int:
    """To the end of a line that is too long, or of the file."""
    skipped = 0
    while data := file.readline(_SKIP_BYTES):
        skipped += len(data)
        if data.endswith(b"\n"):
            break
    return skipped
