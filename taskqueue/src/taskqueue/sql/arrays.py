"""Whole columns as PostgreSQL's array literals, for `unnest`: one parameter for many rows.

The driver's own conversion of a list costs five times as much. Text must be free of NUL (see `rows.clean`).
"""

from collections.abc import Sequence


def text_array(values: Sequence[str | None]) -> str:
    if len(set(values)) == 1:
        return _repeated(_quoted(values[0]), len(values))
    return "{" + ",".join([_quoted(value) for value in values]) + "}"


def bytes_array(values: Sequence[bytes | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def number_array(values: Sequence[float | None]) -> str:
    if len(set(values)) == 1:
        return _repeated(_number(values[0]), len(values))
    return "{" + ",".join([_number(value) for value in values]) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(value: float | None) -> str:
    return "NULL" if value is None else repr(value)


def _repeated(word: str, times: int) -> str:
    return "{" + f"{word}," * (times - 1) + word + "}"
