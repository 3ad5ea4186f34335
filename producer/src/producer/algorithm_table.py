"""``producer algorithms``: what can be asked for, as a table."""

import json
from typing import Any

from rich.table import Table
from rich.text import Text

_MOST_FIELDS = 8


def algorithm_table(algorithms: list[dict[str, Any]]) -> Table:
    """One row for each algorithm, those with runners first. Texts of runners are never read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("algorithm", no_wrap=True)
    for column in ("fields", "what it does", "runners", "waiting", "running"):
        table.add_column(column, overflow="fold")
    for algorithm in sorted(algorithms, key=lambda one: not one["runners"]):
        tasks = algorithm["tasks"]
        row = (
            algorithm["name"],
            fields(algorithm["input_schema"]),
            algorithm["summary"],
            runners(algorithm),
            str(tasks["waiting"]),
            str(tasks["running"]),
        )
        table.add_row(*map(Text, row))
    return table


def fields(schema: dict[str, Any] | None) -> str:
    """``text: string, top_k: integer = 3``; ``?`` for a runner that tells no schema."""
    if schema is None:
        return "?"
    required = schema.get("required", [])
    known = schema.get("properties", {})
    shown = [_field(name, field, name in required, schema) for name, field in list(known.items())[:_MOST_FIELDS]]
    more = [f"and {len(known) - _MOST_FIELDS} more"] if len(known) > _MOST_FIELDS else []
    return ", ".join(shown + more)


def runners(algorithm: dict[str, Any]) -> str:
    text = str(len(algorithm["runners"])) if algorithm["runners"] else "none now"
    also = [f"+{len(algorithm['conflicts'])} outdated"] if algorithm["conflicts"] else []
    also += [f"+{len(algorithm['clashing'])} of another name"] if algorithm.get("clashing") else []
    return f"{text} ({', '.join(also)})" if also else text


def _field(name: str, field: dict[str, Any], is_required: bool, schema: dict[str, Any]) -> str:
    text = f"{name}: {_kind(field, schema)}"
    if is_required:
        return text
    return (
        f"{text} = {json.dumps(field['default'], ensure_ascii=False)}" if "default" in field else f"{text} (optional)"
    )


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[-1]
        target = schema.get("$defs", {}).get(name)
        return _kind(target, {}) if isinstance(target, dict) else name
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " | ".join(dict.fromkeys(_kind(one, schema) for one in field[union]))
    if "enum" in field:
        return " | ".join(map(repr, field["enum"][:5]))
    if field.get("type") == "array" and isinstance(field.get("items"), dict):
        return f"list of {_kind(field['items'], schema)}"
    return str(field.get("format") or field.get("type") or "any")
