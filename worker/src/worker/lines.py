"""Whole lines from what a process writes."""

import asyncio
from collections.abc import AsyncIterator

_CHUNK = 64 * 1024


class LineSplitter:
    """Turns chunks of bytes into whole lines. A line that never ends is cut, so that memory stays bounded."""

    #: longer than any log line of ours; a progress bar or a dump is cut here
    LIMIT = 64 * 1024

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > self.LIMIT:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace") for line in lines]

    def end(self) -> list[str]:
        """What is left when the writer is gone."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []


async def read_lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Every line until the writer has gone."""
    splitter = LineSplitter()
    while chunk := await stream.read(_CHUNK):
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.end():
        yield line
