"""What others wrote, for a terminal: shown, never obeyed.

Control characters (also those above 127), what turns the direction of text, what has no width, and breaks of lines and
paragraphs that are none for programs are written as escapes, as Python's `repr` does. Rich must not read the text as
markup either: give it as a `Text`, or print it with ``markup=False``.
"""

import json
import re
import unicodedata
from typing import Any

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n\t]")


def printable(text: str, most: int = 2000) -> str:
    """The text without anything that a terminal would obey; ends of lines and tabs stay."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return _NOT_ASCII.sub(_escaped, shown.replace("\r\n", "\n"))


def one_line(text: str, most: int = 80) -> str:
    """The same on one line."""
    return printable(text, most).replace("\n", " ").replace("\t", " ")


def printable_json(value: Any, *, compact: bool = False) -> str:
    """JSON on one line, for people and programs alike: what a terminal would obey is written as JSON's escapes."""
    separators = (",", ":") if compact else None
    return _NOT_ASCII.sub(_json_escaped, json.dumps(value, ensure_ascii=False, separators=separators))


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    return char if _is_shown(char) else repr(char)[1:-1]


def _json_escaped(found: re.Match[str]) -> str:
    char = found[0]
    return char if _is_shown(char) else json.dumps(char)[1:-1] if ord(char) != 0x7F else "\\u007f"


def _is_shown(char: str) -> bool:
    """Spaces of any width are harmless, although Python calls them not printable."""
    return char.isprintable() or unicodedata.category(char) == "Zs"
