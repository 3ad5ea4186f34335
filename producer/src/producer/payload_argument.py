"""Reads a payload as it is written on a command line: JSON, ``-`` for standard input, ``@file``."""

from pathlib import Path
from typing import Any, BinaryIO

from producer.errors import BadInput
from producer.json_text import BadJson, loads
from producer.models import MAX_MESSAGE_BYTES


class BadPayload(BadInput):
    """The payload cannot be read; the message says why."""


def read_payload(argument: str, stdin: BinaryIO) -> Any:
    """The payload as a value. Raises BadPayload."""
    data, where = _read(argument, stdin)
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadPayload(f"{where} has more than {MAX_MESSAGE_BYTES} bytes; store the data and send a reference")
    try:
        return loads(data)
    except BadJson as error:
        hint = "" if where != "PAYLOAD" else """; write it in single quotes, e.g. '{"text": "hello"}'"""
        raise BadPayload(f"{where} is {error}{hint}") from None


def _read(argument: str, stdin: BinaryIO) -> tuple[bytes, str]:
    if argument == "-":
        return stdin.read(MAX_MESSAGE_BYTES + 1), "standard input"
    if not argument.startswith("@"):
        return argument.encode("utf-8", "surrogateescape"), "PAYLOAD"
    path = Path(argument[1:])
    try:
        with path.open("rb") as file:
            return file.read(MAX_MESSAGE_BYTES + 1), str(path)
    except OSError as error:
        raise BadPayload(f"{path} cannot be read: {error.strerror}") from None
