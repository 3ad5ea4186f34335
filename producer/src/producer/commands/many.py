"""``producer send-many``: a file of messages, each line one task."""

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client.client import GatewayClient
from producer.commands.ending import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    NO_GATEWAY,
    NOT_FINISHED,
    end_with,
    errors,
    explained,
    say,
    when_interrupted,
)
from producer.commands.options import Gateway, Timeout, connected
from producer.errors import BadInput, GatewayUnreachable, Refused
from producer.models import TaskState, is_algorithm
from producer.printable import printable_json
from producer.sending.plan import Fresh, GoOn, Wish, plan
from producer.sending.results import LineResults
from producer.sending.results_file import results_file
from producer.sending.send import FileSender
from producer.sending.sent_note import SentNote, note_path, read_note, write_note
from producer.sending.show import SendingShow, WaitingShow
from producer.sending.source import Source, open_source
from producer.sending.strict import refuse_bad_lines

File = Annotated[
    Path, typer.Argument(metavar="FILE.jsonl", allow_dash=True, help="One message on each line; - for standard input.")
]
Algorithm = Annotated[
    str | None,
    typer.Option("--algorithm", metavar="NAME", help="The lines are payloads alone, for this algorithm."),
]
WaitForAll = Annotated[bool, typer.Option("--wait", help="Wait until all have ended, and count them.")]
Results = Annotated[
    Path | None,
    typer.Option(
        "--results", metavar="OUT.jsonl", allow_dash=True, help="With --wait: what became of each line; - prints it."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Check all lines first; send nothing when one is bad.")]
Again = Annotated[
    bool, typer.Option("--again", help="Send a file that was sent wholly once more, as new tasks.", show_default=False)
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="The same under another name: another run, new tasks.")
]
Sent = Annotated[
    Path | None,
    typer.Option("--sent", metavar="PATH", help="Where it is noted how far it is: a file or folder. [FILE.jsonl.sent]"),
]
Patience = Annotated[
    float, typer.Option(min=0, max=86_400, help="How long it is tried again while the gateway is away, in seconds.")
]


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for."""

    algorithm: str | None
    again: bool
    run: str | None
    strict: bool


def send_many(
    file: File,
    algorithm: Algorithm = None,
    wait: WaitForAll = False,
    results: Results = None,
    timeout: Timeout = 3600,
    strict: Strict = False,
    again: Again = False,
    run: Run = None,
    sent: Sent = None,
    patience: Patience = 60,
    gateway: Gateway = "",
) -> None:
    """Queue every line of a file as a task. Interrupted, the same command goes on, and no task runs twice.

    A line is {"algorithm": ..., "payload": ...}, if wanted with "id" and "expires_seconds", or with --algorithm the
    payload alone. A line without an id gets one from the file's content and the line's number, so the same content
    sent again is the same tasks, unless --again or --run ask for new ones.
    """
    path = None if str(file) == "-" else file
    order = _Order(algorithm, again, run, strict)
    with explained(), connected(gateway, patience) as client:
        _check(order, wait, results)
        _check_apart(path, results)
        with open_source(path, sys.stdin.buffer) as (source, is_file):
            place = note_path(file, sent) if is_file or sent is not None else None
            sender = _sent(client, source, order, place)
            codes = {BAD_INPUT} if sender.refusals else set()
            if wait:
                codes |= _waited(client, sender, results, timeout)
        end_with(codes)


def _check(order: _Order, wait: bool, results: Path | None) -> None:
    if order.algorithm is not None and not is_algorithm(order.algorithm):
        raise BadInput(f"--algorithm: {order.algorithm!r} is not a name of lower-case letters, digits and _")
    if results is not None and not wait:
        raise BadInput("--results needs --wait: results are there when the tasks have ended")


def _check_apart(path: Path | None, results: Path | None) -> None:
    """The results would be put in the place of what they are the results of."""
    if path is not None and results is not None and results.exists() and path.exists() and results.samefile(path):
        raise BadInput(f"--results: {results} is the file that is sent; name another one for its results")


def _sent(client: GatewayClient, source: Source, order: _Order, place: Path | None) -> FileSender:
    note = _planned(client, source, order, place)
    show = SendingShow(source.total, note)
    sender = FileSender(client, source, order.algorithm, note, _saver(place), show.seen)
    if order.strict:
        refuse_bad_lines(sender.read_all(), client, errors())
    # What leaves no note must be told the name of its new series.
    again = f"run again with --run {note.run} in place of --again" if order.again and place is None else "run again"
    with _to_be_gone_on_with(sender, source, again), show:
        sender.run()
    say(show.summary(sender))
    return sender


def _planned(client: GatewayClient, source: Source, order: _Order, place: Path | None) -> SentNote:
    """Where to begin. Raises BadInput when what was sent before does not fit."""
    digest = f"{source.digest}:{order.algorithm or ''}"
    note = read_note(place) if place is not None else None
    wish = Wish(client.url, digest, order.again, order.run)
    still_known = note is None or note.gateway != client.url or _is_known(client, note.last_id)
    match plan(wish, note, still_known=still_known, new_run=uuid.uuid4().hex):
        case GoOn(note):
            return note
        case Fresh(run):
            return SentNote(client.url, digest, run)
        case refused:
            raise BadInput(refused.reason)


def _is_known(client: GatewayClient, task_id: str | None) -> bool:
    if task_id is None:
        return True
    try:
        client.get(task_id)
    except Refused as error:
        if error.status == 404:
            return False
        raise
    return True


def _saver(place: Path | None) -> Any:
    return (lambda _note: None) if place is None else (lambda note: write_note(place, note))


@contextmanager
def _to_be_gone_on_with(sender: FileSender, source: Source, again: str) -> Iterator[None]:
    """Whatever ends it half-way: how far it is, and how to go on."""

    def how_far() -> str:
        return (
            f"{sender.lines:,} of {source.total:,} lines are sent; the same command, {again}, goes on, "
            "and no task runs twice"
        )

    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {how_far()}")
        raise typer.Exit(INTERRUPTED) from None
    except GatewayUnreachable as error:
        say(f"{_clause(error)}; {how_far()}")
        raise typer.Exit(NO_GATEWAY) from None
    except Refused as error:
        say(f"{_clause(error)}; {how_far()}")
        raise typer.Exit(NO_GATEWAY if error.status >= 500 or error.status == 429 else BAD_INPUT) from None


def _clause(error: Exception) -> str:
    """Its sentence, to be gone on with."""
    return str(error).rstrip(".")


def _waited(client: GatewayClient, sender: FileSender, results: Path | None, timeout: float) -> set[int]:
    show = WaitingShow(sender.tasks)
    entries = LineResults(client, sender.read_all(), sender.refusals, time.monotonic() + timeout, show.seen)
    how = "the tasks go on; the same command, run again with --wait, waits for them"
    try:
        with when_interrupted(f"interrupted; {how}"), show, results_file(results) as write:
            for entry in entries:
                write(printable_json(entry))
    except GatewayUnreachable as error:
        raise GatewayUnreachable(f"{_clause(error)}; {how}") from None
    say(show.summary(entries))
    counts = entries.counts
    bad = counts[TaskState.FAILED.value] + counts[TaskState.CANCELLED.value] + counts["unknown"]
    return ({FAILED} if bad else set()) | ({NOT_FINISHED} if entries.unfinished else set())
