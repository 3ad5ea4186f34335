"""Makes text of strangers safe to show on a terminal.

Control characters (also those above 127), characters that change the direction of text or have no width, and Unicode's
line and paragraph separators become escapes, as in Python's `repr`. Rich must not read the text as markup either: pass
it as a `Text`, or print it with ``markup=False``.
"""

import json
import re
import unicodedata
from typing import Any

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n\t]")


def printable(text: str, most: int = 2000) -> str:
    """The text without anything that a terminal would obey; newlines and tabs stay. At most `most` characters."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return _NOT_ASCII.sub(_escaped, shown.replace("\r\n", "\n"))


def one_line(text: str, most: int = 80) -> str:
    """The same on one line."""
    return printable(text, most).replace("\n", " ").replace("\t", " ")


def printable_json(value: Any, *, compact: bool = False, indent: int | None = None) -> str:
    """JSON for people and programs, on one line without `indent`: what a terminal would obey becomes JSON escapes."""
    separators = (",", ":") if compact else None
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    return _NOT_ASCII.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    return char if _is_shown(char) else repr(char)[1:-1]


def _json_escaped(found: re.Match[str]) -> str:
    char = found[0]
    return char if _is_shown(char) else json.dumps(char)[1:-1] if ord(char) != 0x7F else "\\u007f"


def _is_shown(char: str) -> bool:
    """Spaces of any width are harmless, although Python calls them not printable."""
    return char.isprintable() or unicodedata.category(char) == "Zs"
