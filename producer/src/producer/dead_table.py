"""``producer dead list | show``: dead letters for people."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from producer.printable import one_line, printable
from producer.task_table import id_width
from runnerlib.contract import DeadLetterDetail, DeadLetterView

#: Of a message or a traceback that is shown; --json has all of it.
_MOST_TEXT = 20_000


def dead_table(letters: Sequence[DeadLetterView]) -> Table:
    """One row for each. Texts of strangers are never read as markup."""
    table = _table()
    table.add_column("dead id", justify="right", no_wrap=True)
    table.add_column("task", overflow="fold", min_width=id_width(letter.task_id for letter in letters))
    for column in ("algorithm", "code"):
        table.add_column(column, overflow="fold")
    table.add_column("attempts", justify="right", no_wrap=True)
    table.add_column("failed at", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for letter in letters:
        reason = one_line(letter.message, 200)
        table.add_row(
            str(letter.dead_id),
            Text(one_line(letter.task_id, 128)),
            Text(one_line(letter.algorithm)),
            letter.code.value,
            str(letter.attempts),
            _time(letter.created_at),
            Text(f"[{_settled(letter)}] {reason}" if _settled(letter) else reason),
        )
    return table


def dead_letter(letter: DeadLetterDetail) -> Iterator[Text | Table]:
    """All of one, piece by piece: why, each attempt, the traceback, and the message as it came."""
    algorithm = one_line(letter.algorithm) or "no algorithm"
    yield Text(f"dead letter {letter.dead_id}: task {one_line(letter.task_id, 128)} ({algorithm})", style="bold")
    yield Text(f"failed at {_time(letter.created_at)} with {letter.code.value}: {printable(letter.message)}")
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
            entry.code.value,
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
