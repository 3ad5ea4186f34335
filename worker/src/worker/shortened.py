"""JSON that fits into a cell of a table: what says least is left out first. Decides, prints nothing."""

import json
from typing import Any

#: Of an object inside another one, so many entries are shown when not all can be; the fewer the less room there is.
_INNER_ENTRIES = (None, 2, 1)
_OMITTED = "…"


def shortened(value: Any, most: int) -> str:
    """At most so many characters: without lists inside objects, then with fewer entries of inner objects, then cut."""
    text = json.dumps(value, ensure_ascii=False)
    for inner_entries in _INNER_ENTRIES:
        if len(text) > most:
            text = _text(value, 0, inner_entries)
    return text if len(text) <= most else text[: most - 1] + _OMITTED


def _text(value: Any, depth: int, inner_entries: int | None) -> str:
    if isinstance(value, list) and depth and value:
        return f"[{_OMITTED}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    shown = list(value.items())[: inner_entries if depth else None]
    parts = [f"{json.dumps(name, ensure_ascii=False)}: {_text(one, depth + 1, inner_entries)}" for name, one in shown]
    omitted = [_OMITTED] if len(shown) < len(value) else []
    return "{" + ", ".join(parts + omitted) + "}"
