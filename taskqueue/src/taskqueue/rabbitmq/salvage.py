"""Messages whose headers pika cannot decode: without this, one of them would cut the connection again and again."""

import struct
from typing import Any

from pika import frame, spec
from pika.exceptions import InvalidFieldTypeException

#: The only header of such a message.
UNREADABLE = "x-unreadable-headers"

#: What decoding a hostile or a careless header table raises: a time in milliseconds, an unknown type, endless nesting.
DECODING_ERRORS = (
    struct.error,
    ValueError,
    OverflowError,
    OSError,
    RecursionError,
    ArithmeticError,
    InvalidFieldTypeException,
)

_FRAME_START = struct.Struct(">BHL")
_HEADER_START = struct.Struct(">HHQ")


def salvaged(buffer: bytes) -> tuple[int, Any] | None:
    """Reads a message's header frame, less its header table: (length, frame). None for a frame of another kind."""
    if len(buffer) < _FRAME_START.size:
        return None
    kind, channel, size = _FRAME_START.unpack_from(buffer)
    if kind != spec.FRAME_HEADER or size < _HEADER_START.size:
        return None
    content = buffer[_FRAME_START.size : _FRAME_START.size + size]
    _, _, body_size = _HEADER_START.unpack_from(content)
    return _FRAME_START.size + size + spec.FRAME_END_SIZE, frame.Header(
        channel, body_size, _properties(content[_HEADER_START.size :])
    )


def _properties(encoded: bytes) -> spec.BasicProperties:
    properties = spec.BasicProperties()
    try:
        properties.decode(_without_headers(encoded))
    except (*DECODING_ERRORS, IndexError):
        properties = spec.BasicProperties()
    properties.headers = {UNREADABLE: True}
    return properties


def _without_headers(encoded: bytes) -> bytes:
    (flags,) = struct.unpack_from(">H", encoded)
    start = 2
    for flag in (spec.BasicProperties.FLAG_CONTENT_TYPE, spec.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (size,) = struct.unpack_from(">I", encoded, start)
    rest = encoded[start + 4 + size :]
    return struct.pack(">H", flags & ~spec.BasicProperties.FLAG_HEADERS) + encoded[2:start] + rest
