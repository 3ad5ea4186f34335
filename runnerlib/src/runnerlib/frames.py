"""Frames between the serving process and a worker process: a JSON header and raw bytes, each with its length."""

import struct
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

#: Lengths of header and body, in network order.
_LENGTHS = struct.Struct("!II")
_PREFIX = _LENGTHS.size
#: More than any payload, result or log line; a longer frame means that the stream is out of step.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: The exit code of a worker process that lost its connection to the serving process.
CONNECTION_LOST = 253


class FrameError(Exception):
    """The bytes are not frames, e.g. because other code wrote into the socket."""


def encode(header: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame as bytes."""
    return encode_raw(to_json(header), body)


def encode_raw(header: bytes, body: bytes = b"") -> bytes:
    """Like :func:`encode` for a header that is JSON already."""
    return _LENGTHS.pack(len(header), len(body)) + header + body


class FrameReader:
    """Splits a stream of bytes into frames, whatever the sizes of its chunks."""

    def __init__(self) -> None:
        self._pending = bytearray()
        #: Bytes that must be pending before the next frame can be complete.
        self._wanted = _PREFIX

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """The frames that `data` completes. Raises FrameError."""
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return []
            data = bytes(self._pending)
        frames: list[tuple[dict[str, Any], bytes]] = []
        start, have = 0, len(data)
        self._wanted = _PREFIX
        while have - start >= _PREFIX:
            header_bytes, body_bytes = _LENGTHS.unpack_from(data, start)
            if header_bytes + body_bytes > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {header_bytes + body_bytes} bytes")
            middle = start + _PREFIX + header_bytes
            end = middle + body_bytes
            if end > have:
                self._wanted = end - start
                break
            frames.append((_header(data[start + _PREFIX : middle]), data[middle:end]))
            start = end
        self._pending = bytearray(data[start:])
        return frames


def _header(data: bytes) -> dict[str, Any]:
    try:
        header = from_json(data)
    except ValueError:
        raise FrameError("a frame whose header is not JSON") from None
    if not isinstance(header, dict):
        raise FrameError("a frame whose header is not an object")
    return header
