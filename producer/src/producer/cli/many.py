"""``producer send-many``: a file of messages, each line one task.

The file is read once, in requests of bounded size, and nothing is kept between two calls of the command: ids come from
the lines (see `message_file`), so sending a file again makes no task twice. With ``--wait`` a temporary file keeps what
is needed of each line, a hundred bytes.
"""

import json
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.cli.exit_codes import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    NO_GATEWAY,
    NOT_FINISHED,
    code_of,
    exit_on_errors,
    exit_with,
    on_interrupt,
    say,
    stderr_console,
)
from producer.cli.message_file import LineTask, MessageFile, RefusedLine, bad_lines, open_messages
from producer.cli.options import GatewayOption, TimeoutOption, connect
from producer.cli.progress import activity, outcome
from producer.client.calls import LOOKUP_SIZE, batches
from producer.client.client import GatewayClient
from producer.errors import BadInput, GatewayUnreachable, Refused
from producer.models import TaskState, TaskView, is_algorithm
from producer.printable import one_line, printable_json

#: What became of a line, besides the states of tasks.
_REFUSED, _UNKNOWN = "refused", "unknown"
#: Bad lines that are named; of more only how many.
_MAX_NAMED = 20

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE.jsonl", allow_dash=True, help="One message on each line; - for standard input.")
]
PayloadsOption = Annotated[
    str | None,
    typer.Option("--algorithm", metavar="NAME", help="The lines are payloads alone, for this algorithm."),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until all have ended, and count them.")]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results", metavar="OUT.jsonl", allow_dash=True, help="With --wait: what became of each line; - prints it."
    ),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Check all lines first; send nothing when one is bad.")]
AgainOption = Annotated[bool, typer.Option("--again", help="Send all lines as new tasks.", show_default=False)]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="The same under another name: another run, new tasks.")
]
PatienceOption = Annotated[
    float, typer.Option(min=0, max=86_400, help="How long it is tried again while the gateway is away, in seconds.")
]


def send_many(
    file: FileArgument,
    algorithm: PayloadsOption = None,
    wait: WaitOption = False,
    results: ResultsOption = None,
    timeout: TimeoutOption = 3600,
    strict: StrictOption = False,
    again: AgainOption = False,
    run: RunOption = None,
    patience: PatienceOption = 60,
    gateway: GatewayOption = "",
) -> None:
    """Queue every line of a file as a task. The same command can be run again at any time, and no task runs twice.

    A line is {"algorithm": ..., "payload": ...}, if wanted with "id", "expires_seconds", "delay_seconds" and "group",
    or with --algorithm the payload alone. A line without an id gets one from the file's name, the line's number and
    its text, so a line that was corrected is a new task, and the others are not. --again and --run make new tasks of
    all.
    """
    path = None if str(file) == "-" else file
    new_run = uuid.uuid4().hex if again and run is None else None
    how = "run again" if new_run is None else f"run again with --run {new_run} in place of --again"
    with exit_on_errors(), connect(gateway, patience) as client:
        _check_options(path, algorithm, wait, results)
        with (
            open_messages(path, algorithm, run or new_run or "", is_read_twice=strict) as messages,
            results_file(results) as write,
            tempfile.TemporaryFile("w+", encoding="utf-8") as sent,
        ):
            if strict:
                _check_lines(client, messages)
            sender = _Sender(client, messages, sent if wait else None)
            sender.run(how)
            codes = {BAD_INPUT} if sender.refused else set()
            if wait:
                sent.seek(0)
                codes |= _wait(client, sent, sender.accepted, write, timeout, how)
        exit_with(codes)


def _check_options(path: Path | None, algorithm: str | None, wait: bool, results: Path | None) -> None:
    if algorithm is not None and not is_algorithm(algorithm):
        raise BadInput(f"--algorithm: {algorithm!r} is not a name of lower-case letters, digits and _")
    if results is not None and not wait:
        raise BadInput("--results needs --wait: results are there when the tasks have ended")
    if path is not None and results is not None and results.exists() and path.exists() and results.samefile(path):
        raise BadInput(f"--results: {results} is the file that is sent; name another one for its results")


def _check_lines(client: GatewayClient, messages: MessageFile) -> None:
    """Names the bad lines. Raises BadInput if there are any."""
    count = 0
    for count, (number, reason) in enumerate(bad_lines(messages.tasks(), client), 1):
        if count <= _MAX_NAMED:
            _name_line(stderr_console(), number, reason)
    if count:
        raise BadInput(f"{_count(count, 'bad line')}; nothing was sent")
    messages.file.seek(0)


class _Sender:
    """Sends the lines, and notes in `sent` what became of each: its number, its id, and why it was refused.

    `line` is the last line that was sent. `accepted` counts the tasks of this file, `known` those of them that had
    started after an earlier call, and `refused` the bad lines.
    """

    def __init__(self, client: GatewayClient, messages: MessageFile, sent: TextIO | None) -> None:
        self._client = client
        self._messages = messages
        self._sent = sent
        self._console = stderr_console()
        self.line = self.accepted = self.known = self.refused = 0

    def run(self, how: str) -> None:
        """Whatever ends it half-way: says how far it is, and that the same command, `how`, is safe."""
        began_at = time.monotonic()
        try:
            with _progress(self._console) as progress:
                bar = progress.add_task("sending", total=self._messages.size)
                for batch in batches(self._messages.tasks(), _size):
                    self._send(batch)
                    read = 0 if self._messages.size is None else self._messages.file.tell()
                    done = f"sending: {_count(self.accepted, 'task')}"
                    progress.update(bar, completed=read, description=done)
        except KeyboardInterrupt:
            self._break_off("interrupted", how, INTERRUPTED)
        except (BadInput, GatewayUnreachable, Refused) as error:
            self._break_off(str(error).rstrip("."), how, code_of(error))
        say(self._summary(time.monotonic() - began_at, how))

    def _break_off(self, why: str, how: str, code: int) -> NoReturn:
        so_far = (
            f"{_count(self.accepted, 'task')} accepted, up to line {self.line:,}" if self.line else "none accepted yet"
        )
        say(f"{why}; {so_far}; the same command, {how}, sends the rest, and no task runs twice")
        raise typer.Exit(code) from None

    def _send(self, batch: list[LineTask | RefusedLine]) -> None:
        tasks = [line for line in batch if isinstance(line, LineTask)]
        answers = iter(self._answers(tasks))
        for line in batch:
            answer = next(answers) if isinstance(line, LineTask) else line
            if isinstance(answer, Refused):
                answer = RefusedLine(line.number, line.id, answer.code, str(answer))
            entry: dict[str, Any] = {"line": line.number, "id": line.id}
            if isinstance(answer, RefusedLine):
                entry |= {"state": _REFUSED, "error": {"code": answer.code, "message": answer.message}}
                self.refused += 1
                if self.refused <= _MAX_NAMED:
                    _name_line(self._console, answer.number, answer.message)
            else:
                self.accepted += 1
                self.known += answer is not TaskState.QUEUED
            if self._sent is not None:
                print(json.dumps(entry), file=self._sent)
        self.line = batch[-1].number

    def _answers(self, tasks: list[LineTask]) -> list[Refused | TaskState]:
        try:
            return self._client.submit_lines([task.body for task in tasks]) if tasks else []
        except Refused as error:
            if len(tasks) > 1 or code_of(error) == NO_GATEWAY:
                raise
            return [error]

    def _summary(self, seconds: float, how: str) -> str:
        summary = f"{_count(self.accepted - self.known, 'task')} queued in {seconds:.1f} s"
        if seconds > 1:
            summary += f" ({self.accepted / seconds:,.0f}/s)"
        if self.known:
            summary += f"; {_count(self.known, 'task')} sent before, not run again (--again makes new tasks)"
        if self.refused:
            not_named = f" ({self.refused - _MAX_NAMED:,} of them not named)" if self.refused > _MAX_NAMED else ""
            summary += (
                f"; {_count(self.refused, 'line')} refused{not_named}: correct them, or empty them so that the others "
                f"keep their numbers; the same command, {how}, sends them"
            )
        return summary


def _wait(
    client: GatewayClient, sent: TextIO, tasks: int, write: Callable[[str], None], timeout: float, how: str
) -> set[int]:
    """Waits for the tasks and writes what became of each line, in order; the exit codes.

    When the time is over, it waits no more and writes the others as they are.
    """
    counts: Counter[str] = Counter()
    began_at = time.monotonic()
    how = f"the same command, {how}, waits for them"
    try:
        with on_interrupt(f"interrupted; the tasks go on; {how}"), _progress(stderr_console()) as progress:
            bar = progress.add_task("waiting", total=tasks)

            def show(view: TaskView | None) -> None:
                reason = "" if view is None or view.waiting_for is None else f" ({activity(view)})"
                ended = sum(counts[state.value] for state in TaskState if state.is_terminal)
                progress.update(bar, completed=ended, description=one_line(f"{_counted(counts)}{reason}", 60))

            entries = map(json.loads, sent)
            while part := list(islice(entries, LOOKUP_SIZE)):
                ids = [entry["id"] for entry in part if "state" not in entry]
                views = client.wait_for_part(ids, began_at + timeout, show)
                for entry in part:
                    entry = entry if "state" in entry else entry | _outcome(views.get(entry["id"]))
                    counts[entry["state"]] += 1
                    write(printable_json(entry))
                show(None)
    except GatewayUnreachable as error:
        raise GatewayUnreachable(f"{str(error).rstrip('.')}; the tasks go on; {how}") from None
    unfinished = sum(counts[state.value] for state in TaskState if not state.is_terminal)
    if unfinished:
        say(f"after {time.monotonic() - began_at:.0f} s: {_counted(counts)}; {how}")
    else:
        say(f"all have ended: {_counted(counts)}")
    bad = counts[TaskState.FAILED.value] + counts[TaskState.CANCELLED.value] + counts[_UNKNOWN]
    return ({FAILED} if bad else set()) | ({NOT_FINISHED} if unfinished else set())


def _outcome(view: TaskView | None) -> dict[str, Any]:
    if view is not None:
        return outcome(view)
    message = "the gateway does not know this task any more; tasks that ended long ago are dropped"
    return {"state": _UNKNOWN, "error": {"code": "unknown_task", "message": message}}


@contextmanager
def results_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes one line. None: nowhere; ``-``: standard output.

    A file is replaced when everything was written, and stays as it was if that fails.
    """
    if path is None or str(path) == "-":
        yield print if path is not None else lambda _line: None
        return
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            yield lambda line: print(line, file=file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)


def _progress(console: Console) -> Progress:
    """A bar on a terminal; nothing elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _counted(counts: Counter[str]) -> str:
    """``12 succeeded, 1 failed``."""
    states = sorted(TaskState, key=lambda state: not state.is_terminal)
    order = [*(state.value for state in states), _REFUSED, _UNKNOWN]
    return ", ".join(f"{counts[name]:,} {name}" for name in order if counts[name]) or "waiting"


def _name_line(console: Console, number: int, message: str) -> None:
    console.print(f"line {number}: {one_line(message, 500)}", markup=False, soft_wrap=True)


def _size(line: LineTask | RefusedLine) -> int:
    return len(line.body) if isinstance(line, LineTask) else 0


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
