"""Reads messages whose headers pika cannot decode; without it, one such message would cut every connection."""

import struct

from pika import frame, spec
from pika.exceptions import InvalidFieldTypeException

#: The only header of such a message.
UNREADABLE = "x-unreadable-headers"

#: What decoding a hostile or careless header table raises: a time in milliseconds, an unknown type, endless nesting.
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


def read_without_headers(buffer: bytes) -> tuple[int, frame.Header] | None:
    """Decodes a message's header frame except for its header table: (length, frame), or None for another frame."""
    if len(buffer) < _FRAME_START.size:
        return None
    kind, channel, size = _FRAME_START.unpack_from(buffer)
    if kind != spec.FRAME_HEADER or size < _HEADER_START.size:
        return None
    content = buffer[_FRAME_START.size : _FRAME_START.size + size]
    _, _, body_size = _HEADER_START.unpack_from(content)
    properties = spec.BasicProperties()
    try:
        properties.decode(_drop_headers(content[_HEADER_START.size :]))
    except (*DECODING_ERRORS, IndexError):
        properties = spec.BasicProperties()
    properties.headers = {UNREADABLE: True}
    return _FRAME_START.size + size + spec.FRAME_END_SIZE, frame.Header(channel, body_size, properties)


def _drop_headers(encoded: bytes) -> bytes:
    """Cuts the header table out of encoded properties: flags, content type and encoding stand before it."""
    (flags,) = struct.unpack_from(">H", encoded)
    start = 2
    for flag in (spec.BasicProperties.FLAG_CONTENT_TYPE, spec.BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (size,) = struct.unpack_from(">I", encoded, start)
    rest = encoded[start + 4 + size :]
    return struct.pack(">H", flags & ~spec.BasicProperties.FLAG_HEADERS) + encoded[2:start] + rest
