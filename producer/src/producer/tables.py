"""What ``producer list``, ``dead list | show`` and ``algorithms`` show to people. Texts of strangers are never markup.

A list is a table where there is room for it. On a narrower terminal each entry has lines of its own: an id stands whole
on one line, to be copied.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from producer.models import DeadLetterDetail, DeadLetterView, TaskState, TaskSummaryView
from producer.printable import one_line, printable
from producer.task_sentences import doing

T = TypeVar("T")

_MOST_FIELDS = 8
#: Of a schema within a schema.
_MOST_NESTING = 8
#: Of a message or a traceback that is shown; --json has all of it.
_MOST_TEXT = 20_000
#: Columns that sentences need, each, to be read without effort.
_SENTENCE_WIDTH = 30
_GAP = 2
_NUMBERS = ("dead id", "attempts")
_STYLE = {
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.CANCELLED: "yellow",
    TaskState.RETRYING: "magenta",
    TaskState.RUNNING: "cyan",
    TaskState.QUEUED: "",
}


@dataclass(frozen=True)
class Listing:
    """The same entries twice. `width`: columns that the table needs."""

    table: Table
    entries: list[RenderableType]
    width: int


def task_list(tasks: Sequence[TaskSummaryView]) -> Listing:
    rows = [(*_task_cells(task), Text(_about(task))) for task in tasks]
    entries = [
        _entry(Text(task.id, style="bold"), [_joined(row[1:3]) + f"  attempt {row[3]}  {row[4]}", row[5]])
        for task, row in zip(tasks, rows, strict=True)
    ]
    return _listing(("id", "algorithm", "state", "attempt", "created", "about"), rows, 1, entries)


def dead_list(letters: Sequence[DeadLetterView]) -> Listing:
    rows = [(*_dead_cells(letter), Text(_dead_reason(letter))) for letter in letters]
    entries = [
        _entry(
            Text(f"dead letter {row[0]}  task {row[1]}", style="bold"),
            [_joined(row[2:4]) + f"  attempts {row[4]}  {row[5]}", row[6]],
        )
        for row in rows
    ]
    columns = ("dead id", "task", "algorithm", "code", "attempts", "failed at", "reason")
    return _listing(columns, rows, 1, entries)


def algorithm_list(algorithms: Iterable[dict[str, Any]]) -> Listing:
    """Those with runners first."""
    rows, entries = [], []
    for algorithm in sorted(algorithms, key=lambda one: not one["runners"]):
        tasks = algorithm["tasks"]
        name, offered = one_line(algorithm["name"], 63), runners(algorithm)
        counts = [offered, str(tasks["waiting"]), str(tasks["running"])]
        given, summary = one_line(fields(algorithm["input_schema"]), 400), one_line(algorithm["summary"], 400)
        rows.append(tuple(map(Text, (name, *counts, given, summary))))
        entries.append(
            _entry(
                Text.assemble((name, "bold"), f"  {given}"),
                [Text(summary), Text(f"runners: {counts[0]}, waiting: {counts[1]}, running: {counts[2]}")],
            )
        )
    return _listing(("algorithm", "runners", "waiting", "running", "fields", "what it does"), rows, 2, entries)


def fields(schema: dict[str, Any] | None) -> str:
    """``text: string, top_k: integer = 3``; ``?`` for a runner that tells no schema.

    Schemas come as runners wrote them: a part that is not what it should be says nothing.
    """
    if schema is None:
        return "?"
    required = _as(list, schema.get("required"))
    known = _as(dict, schema.get("properties"))
    shown = [_field(name, field, name in required, schema) for name, field in list(known.items())[:_MOST_FIELDS]]
    more = [f"and {len(known) - _MOST_FIELDS} more"] if len(known) > _MOST_FIELDS else []
    return ", ".join(shown + more)


def runners(algorithm: dict[str, Any]) -> str:
    text = str(len(algorithm["runners"])) if algorithm["runners"] else "none now"
    also = [f"+{len(algorithm['conflicts'])} outdated"] if algorithm["conflicts"] else []
    also += [f"+{len(algorithm['clashing'])} of another name"] if algorithm.get("clashing") else []
    return f"{text} ({', '.join(also)})" if also else text


def dead_letter(letter: DeadLetterDetail) -> Iterator[RenderableType]:
    """All of one, piece by piece: why, each attempt, the traceback, and the message as it came."""
    algorithm = one_line(letter.algorithm) or "no algorithm"
    yield Text(f"dead letter {letter.dead_id}: task {one_line(letter.task_id, 128)} ({algorithm})", style="bold")
    yield Text(f"failed at {_time(letter.created_at)} with {letter.code}: {printable(letter.message)}")
    yield Text(f"it {settled}" if (settled := _settled(letter)) else "it waits to be replayed or discarded")
    if letter.history:
        yield _heading("attempts")
        yield _history(letter)
    if letter.traceback:
        yield _heading("traceback")
        yield Text(printable(letter.traceback.rstrip(), _MOST_TEXT))
    if letter.headers:
        yield _heading("headers")
        yield Text(
            "\n".join(f"{one_line(name)}: {one_line(str(value), 300)}" for name, value in letter.headers.items())
        )
    yield _heading("message, as it came" if letter.body is not None else "message, as it came (not text; in base64)")
    yield Text(printable(letter.body_base64 if letter.body is None else letter.body, _MOST_TEXT) or "(empty)")


def _task_cells(task: TaskSummaryView) -> tuple[Text, ...]:
    return (
        Text(one_line(task.id, 128)),
        Text(one_line(task.algorithm)),
        Text(task.state.value, style=_STYLE[task.state]),
        Text(str(task.attempt)),
        Text(_time(task.created_at)),
    )


def _about(task: TaskSummaryView) -> str:
    if task.state is TaskState.FAILED and task.error is not None:
        return one_line(f"{task.error.code}: {task.error.message}", 200)
    if task.state.is_terminal:
        return ""
    told = doing(task)
    far = "" if task.progress is None else f"{task.progress.fraction:.0%} "
    return one_line(far + ("" if told == task.state.value else told), 200)


def _dead_cells(letter: DeadLetterView) -> tuple[Text, ...]:
    return (
        Text(str(letter.dead_id)),
        Text(one_line(letter.task_id, 128)),
        Text(one_line(letter.algorithm)),
        Text(one_line(letter.code)),
        Text(str(letter.attempts)),
        Text(_time(letter.created_at)),
    )


def _dead_reason(letter: DeadLetterView) -> str:
    reason = one_line(letter.message, 200)
    return f"[{_settled(letter)}] {reason}" if _settled(letter) else reason


def _listing(
    columns: Sequence[str], rows: Sequence[Sequence[Text]], sentences: int, entries: list[RenderableType]
) -> Listing:
    """The last columns hold sentences, which may be folded; the others never are."""
    table = _table()
    whole = len(columns) - sentences
    for place, column in enumerate(columns):
        justify: JustifyMethod = "right" if column in _NUMBERS else "left"
        table.add_column(column, justify=justify, no_wrap=place < whole, overflow="fold")
    for row in rows:
        table.add_row(*row)
    widths = [
        max(cell_len(cell) for cell in (column, *(row[place].plain for row in rows)))
        for place, column in enumerate(columns)
    ]
    for place in range(whole, len(columns)):
        widths[place] = min(widths[place], _SENTENCE_WIDTH)
    return Listing(table, entries, sum(widths) + _GAP * (len(columns) - 1))


def _entry(title: Text, lines: Iterable[Text]) -> RenderableType:
    """A title, and what is told of it below, a little to the right."""
    entry = Table.grid()
    entry.add_column(overflow="fold")
    entry.add_row(title)
    for line in lines:
        if line.plain:
            entry.add_row(Padding(line, (0, 0, 0, 2)))
    return entry


def _joined(texts: Iterable[Text]) -> Text:
    return Text("  ").join(texts)


def _field(name: str, field: Any, is_required: bool, schema: dict[str, Any]) -> str:
    text = f"{name}: {_kind(field, schema)}"
    if is_required:
        return text
    field = _as(dict, field)
    return (
        f"{text} = {json.dumps(field['default'], ensure_ascii=False)}" if "default" in field else f"{text} (optional)"
    )


def _kind(field: Any, schema: dict[str, Any], depth: int = 0) -> str:
    if not isinstance(field, dict) or depth == _MOST_NESTING:
        return "any"
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[-1]
        target = _as(dict, schema.get("$defs")).get(name)
        return _kind(target, {}, depth + 1) if isinstance(target, dict) else name
    for union in ("anyOf", "oneOf"):
        if alternatives := _as(list, field.get(union)):
            return " | ".join(dict.fromkeys(_kind(one, schema, depth + 1) for one in alternatives))
    if choices := _as(list, field.get("enum")):
        return " | ".join(map(repr, choices[:5]))
    types = field.get("type")
    if types == "array" and isinstance(field.get("items"), dict):
        return f"list of {_kind(field['items'], schema, depth + 1)}"
    return str(field.get("format") or (" | ".join(map(str, types)) if isinstance(types, list) else types) or "any")


def _as(kind: type[T], value: Any) -> T:
    """The value when it is of this kind, else an empty one."""
    return value if isinstance(value, kind) else kind()


def _history(letter: DeadLetterDetail) -> Table:
    table = _table()
    table.add_column("attempt", justify="right")
    for column in ("at", "code", "runner"):
        table.add_column(column, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for entry in letter.history:
        table.add_row(
            str(entry.attempt),
            _time(entry.at),
            entry.code,
            Text(one_line(entry.runner or "")),
            Text(one_line(entry.message, 300)),
        )
    return table


def _settled(letter: DeadLetterView) -> str:
    if letter.replayed_at is not None:
        return f"was replayed at {_time(letter.replayed_at)}"
    return f"was discarded at {_time(letter.discarded_at)}" if letter.discarded_at is not None else ""


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False)


def _time(at: datetime) -> str:
    """In this machine's zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
