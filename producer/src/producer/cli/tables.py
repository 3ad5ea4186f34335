"""What ``producer list``, ``dead list | show`` and ``algorithms`` show to people; texts of strangers are never markup.

A list is a table where there is room for it. On a narrower terminal each entry has lines of its own, so that an id is
whole on one line and can be copied.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from producer.cli.progress import activity
from producer.models import DeadLetterDetail, DeadLetterView, TaskState, TaskSummaryView
from producer.printable import one_line, printable

T = TypeVar("T")

_MAX_FIELDS = 8
#: Of a schema within a schema.
_MAX_NESTING = 8
#: Characters of a message or a traceback that are shown; --json has all of it.
_MAX_TEXT = 20_000
#: Columns that sentences need, each, to be read without effort.
_SENTENCE_WIDTH = 30
_GAP = 2
#: Of a table that goes to a pipe or a file: nobody wants folded lines there.
_PIPED_WIDTH = 200
_NUMBERS = ("dead id", "attempt", "attempts")
#: Columns whose entries mean nothing without their name.
_NAMED = ("dead id", "task", "attempt", "attempts", "runners", "waiting", "running")
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
    """A table where there is room for it, else one entry below the other.

    The last `sentences` columns may be folded, the others never are; the first `titles` head an entry.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    titles: int = 1
    sentences: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        rows = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]
        table = Table(box=None, header_style="bold", pad_edge=False)
        width = _GAP * (len(self.columns) - 1)
        for place, column in enumerate(self.columns):
            is_sentence = place >= len(self.columns) - self.sentences
            justify: JustifyMethod = "right" if column in _NUMBERS else "left"
            table.add_column(column, justify=justify, no_wrap=not is_sentence, overflow="fold")
            widest = max(cell_len(cell) for cell in (column, *(row[place].plain for row in rows)))
            width += min(widest, _SENTENCE_WIDTH) if is_sentence else widest
        if width > options.max_width:
            yield from map(self._entry, rows)
            return
        for row in rows:
            table.add_row(*row)
        yield table

    def _entry(self, row: Sequence[Text]) -> RenderableType:
        """A title, and below it what is not empty, indented: short facts on one line, each sentence on its own."""
        cells = [
            Text(f"{name} ") + cell if name in _NAMED else cell for name, cell in zip(self.columns, row, strict=True)
        ]
        facts = Text("  ").join(cells[self.titles : -self.sentences])
        entry = Table.grid()
        entry.add_column(overflow="fold")
        entry.add_row(Text("  ").join(cells[: self.titles]), style="bold")
        for line in (facts, *cells[-self.sentences :]):
            if line.plain:
                entry.add_row(Padding(line, (0, 0, 0, 2)))
        return entry


def display(*pieces: RenderableType) -> None:
    """Prints the pieces; a line of text that is longer than the terminal stays one line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    for piece in pieces:
        console.print(piece, soft_wrap=isinstance(piece, Text))


def task_list(tasks: Iterable[TaskSummaryView]) -> Listing:
    rows = [
        (
            one_line(task.id, 128),
            one_line(task.algorithm),
            Text(task.state.value, style=_STYLE[task.state]),
            str(task.attempt),
            _time(task.created_at),
            _about(task),
        )
        for task in tasks
    ]
    return Listing(("id", "algorithm", "state", "attempt", "created", "about"), rows)


def _about(task: TaskSummaryView) -> str:
    if task.state is TaskState.FAILED and task.error is not None:
        return one_line(f"{task.error.code}: {task.error.message}", 200)
    if task.state.is_terminal:
        return ""
    doing = activity(task)
    fraction = "" if task.progress is None else f"{task.progress.fraction:.0%} "
    return one_line(fraction + ("" if doing == task.state.value else doing), 200)


def dead_list(letters: Iterable[DeadLetterView]) -> Listing:
    rows = []
    for letter in letters:
        reason, settled = one_line(letter.message, 200), _settled(letter)
        row = (
            str(letter.dead_id),
            one_line(letter.task_id, 128),
            one_line(letter.algorithm),
            one_line(letter.code),
            str(letter.attempts),
            _time(letter.created_at),
            f"[{settled}] {reason}" if settled else reason,
        )
        rows.append(row)
    return Listing(("dead id", "task", "algorithm", "code", "attempts", "failed at", "reason"), rows, titles=2)


def algorithm_list(algorithms: Iterable[dict[str, Any]]) -> Listing:
    """Those with runners first."""
    rows = [
        (
            one_line(algorithm["name"], 63),
            _runners(algorithm),
            str(algorithm["tasks"]["waiting"]),
            str(algorithm["tasks"]["running"]),
            one_line(fields(algorithm["input_schema"]), 400),
            one_line(algorithm["summary"], 400),
        )
        for algorithm in sorted(algorithms, key=lambda one: not one["runners"])
    ]
    return Listing(("algorithm", "runners", "waiting", "running", "fields", "what it does"), rows, sentences=2)


def fields(schema: dict[str, Any] | None) -> str:
    """``text: string, top_k: integer = 3``; ``?`` for a runner without a schema.

    Schemas come as runners wrote them: a part that is not a proper schema shows as nothing or as `any`.
    """
    if schema is None:
        return "?"
    required = _as(list, schema.get("required"))
    properties = _as(dict, schema.get("properties"))
    shown = []
    for name, field in list(properties.items())[:_MAX_FIELDS]:
        text = f"{name}: {_kind(field, schema)}"
        if name not in required:
            has_default = isinstance(field, dict) and "default" in field
            text += f" = {json.dumps(field['default'], ensure_ascii=False)}" if has_default else " (optional)"
        shown.append(text)
    if len(properties) > _MAX_FIELDS:
        shown.append(f"and {len(properties) - _MAX_FIELDS} more")
    return ", ".join(shown)


def _kind(field: Any, schema: dict[str, Any], depth: int = 0) -> str:
    if not isinstance(field, dict) or depth == _MAX_NESTING:
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
    """The value if it is of this kind, else an empty one."""
    return value if isinstance(value, kind) else kind()


def _runners(algorithm: dict[str, Any]) -> str:
    text = str(len(algorithm["runners"])) if algorithm["runners"] else "none now"
    also = ["paused"] if algorithm.get("paused") else []
    also += [f"+{len(algorithm['conflicts'])} outdated"] if algorithm["conflicts"] else []
    also += [f"+{len(algorithm['clashing'])} of another name"] if algorithm.get("clashing") else []
    return f"{text} ({', '.join(also)})" if also else text


def dead_letter(letter: DeadLetterDetail) -> Iterator[RenderableType]:
    """A dead letter, piece by piece: why, each attempt, the traceback, and the message as it came."""
    algorithm = one_line(letter.algorithm) or "no algorithm"
    yield Text(f"dead letter {letter.dead_id}: task {one_line(letter.task_id, 128)} ({algorithm})", style="bold")
    yield Text(f"failed at {_time(letter.created_at)} with {letter.code}: {printable(letter.message)}")
    yield Text(f"it {_settled(letter) or 'waits to be replayed or discarded'}")
    if letter.history:
        yield _heading("attempts")
        rows = [
            (str(one.attempt), _time(one.at), one.code, one_line(one.runner or ""), one_line(one.message, 300))
            for one in letter.history
        ]
        yield Listing(("attempt", "at", "code", "runner", "reason"), rows)
    if letter.traceback:
        yield _heading("traceback")
        yield Text(printable(letter.traceback.rstrip(), _MAX_TEXT))
    if letter.headers:
        yield _heading("headers")
        lines = (f"{one_line(name)}: {one_line(str(value), 300)}" for name, value in letter.headers.items())
        yield Text("\n".join(lines))
    yield _heading("message, as it came" if letter.body is not None else "message, as it came (not text; in base64)")
    yield Text(printable(letter.body_base64 if letter.body is None else letter.body, _MAX_TEXT) or "(empty)")


def _settled(letter: DeadLetterView) -> str:
    if letter.replayed_at is not None:
        return f"was replayed at {_time(letter.replayed_at)}"
    return f"was discarded at {_time(letter.discarded_at)}" if letter.discarded_at is not None else ""


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _time(at: datetime) -> str:
    """In this machine's zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
