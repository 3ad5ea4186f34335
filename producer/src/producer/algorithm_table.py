"""``producer algorithms``: what can be asked for, as a table."""

from typing import Any

from rich.table import Table
from rich.text import Text


def algorithm_table(algorithms: list[dict[str, Any]]) -> Table:
    """One row for each algorithm; texts of runners are shown as they are, never read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("algorithm", "fields", "what it does", "runners", "waiting", "running"):
        table.add_column(column, overflow="fold")
    for algorithm in algorithms:
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
    """``text: string, top_k: integer = 3``."""
    if schema is None:
        return "?"
    required = schema.get("required", [])
    shown = []
    for name, field in schema.get("properties", {}).items():
        kind = _kind(field, schema)
        shown.append(f"{name}: {kind}" if name in required else f"{name}: {kind} = {field.get('default')!r}")
    return ", ".join(shown)


def runners(algorithm: dict[str, Any]) -> str:
    text = str(len(algorithm["runners"])) if algorithm["runners"] else "none now"
    return f"{text} (+{len(algorithm['conflicts'])} outdated)" if algorithm["conflicts"] else text


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
