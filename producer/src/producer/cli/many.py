"""``producer send-many``: a file of messages, each line one task."""

import math
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.cli.checkpoint import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    replaced,
    starting_point,
    write_checkpoint,
)
from producer.cli.exit_codes import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    NO_GATEWAY,
    NOT_FINISHED,
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
#: Refused lines that are named; of more only how many.
_MAX_NAMED = 20
#: Refused lines whose reasons are kept for the results; of more only that they were refused.
_MAX_REASONS = 10_000
_NO_REASON = "it was refused; send it alone to be told why"

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
AgainOption = Annotated[
    bool, typer.Option("--again", help="Send a file that was sent wholly once more, as new tasks.", show_default=False)
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="The same under another name: another run, new tasks.")
]
SentOption = Annotated[
    Path | None,
    typer.Option("--sent", metavar="PATH", help="Where it is noted how far it is: a file or folder. [FILE.jsonl.sent]"),
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
    sent: SentOption = None,
    patience: PatienceOption = 60,
    gateway: GatewayOption = "",
) -> None:
    """Queue every line of a file as a task. Interrupted, the same command goes on, and no task runs twice.

    A line is {"algorithm": ..., "payload": ...}, if wanted with "id" and "expires_seconds", or with --algorithm the
    payload alone. A line without an id gets one from the file's content and the line's number, so the same content
    sent again is the same tasks, unless --again or --run ask for new ones.
    """
    path = None if str(file) == "-" else file
    with exit_on_errors(), connect(gateway, patience) as client:
        _check(path, algorithm, wait, results)
        with open_messages(path, sys.stdin.buffer, algorithm) as (messages, is_file):
            place = checkpoint_path(file, sent) if is_file or sent is not None else None
            start = _start(client, messages, place, again, run)
            if strict:
                _check_lines(client, messages, start)
            # A new run without a checkpoint can only be continued by its name.
            how = f"run again with --run {start.run} in place of --again" if again and place is None else "run again"
            sender = _Sender(client, messages, start, place)
            sender.run(how)
            codes = {BAD_INPUT} if sender.refused else set()
            if wait:
                codes |= _wait(client, messages, start.run, sender, results, timeout)
        exit_with(codes)


def _check(path: Path | None, algorithm: str | None, wait: bool, results: Path | None) -> None:
    if algorithm is not None and not is_algorithm(algorithm):
        raise BadInput(f"--algorithm: {algorithm!r} is not a name of lower-case letters, digits and _")
    if results is not None and not wait:
        raise BadInput("--results needs --wait: results are there when the tasks have ended")
    if path is not None and results is not None and results.exists() and path.exists() and results.samefile(path):
        raise BadInput(f"--results: {results} is the file that is sent; name another one for its results")


def _start(
    client: GatewayClient, messages: MessageFile, place: Path | None, again: bool, run: str | None
) -> Checkpoint:
    found = read_checkpoint(place) if place is not None else None
    still_known = True
    if found is not None and found.gateway == client.url:
        ids = [task_id for task_id in (found.last_id, found.next_id) if task_id is not None]
        still_known = all(_is_known(client, task_id) for task_id in ids)
    return starting_point(
        found, client.url, messages.digest, again=again, run=run, still_known=still_known, new_run=uuid.uuid4().hex
    )


def _is_known(client: GatewayClient, task_id: str) -> bool:
    try:
        client.get(task_id)
    except Refused as error:
        if error.status != 404:
            raise
        return False
    return True


def _check_lines(client: GatewayClient, messages: MessageFile, start: Checkpoint) -> None:
    count = 0
    for count, (number, reason) in enumerate(bad_lines(messages.tasks(start.run), client), 1):
        if count <= _MAX_NAMED:
            _name_line(stderr_console(), number, reason)
    messages.check_unchanged()
    if count:
        raise BadInput(f"{'1 line is' if count == 1 else f'{count:,} lines are'} bad; nothing was sent")


class _Sender:
    """Sends a file from a checkpoint on, and writes a checkpoint to `place` after each request.

    Afterwards `lines` and `tasks` count what was sent and queued in all, also by earlier calls; `known` counts tasks
    that were sent now, but had started after an earlier call.
    """

    def __init__(self, client: GatewayClient, messages: MessageFile, start: Checkpoint, place: Path | None) -> None:
        self._client = client
        self._messages = messages
        self._start = start
        self._place = place
        self._bar = _Bar("sending", messages.total, start.line)
        self.lines, self.tasks, self.known = start.line, start.tasks, 0
        #: By number, in ascending order.
        self.refused: dict[int, RefusedLine] = {}

    def run(self, how: str) -> None:
        """Whatever ends it half-way: says how far it is, and how to continue."""
        try:
            with self._bar:
                self._send_all()
        except (KeyboardInterrupt, GatewayUnreachable, Refused) as error:
            if isinstance(error, KeyboardInterrupt):
                why, code = "interrupted", INTERRUPTED
            else:
                is_away = not isinstance(error, Refused) or _is_passing(error)
                why, code = str(error).rstrip("."), NO_GATEWAY if is_away else BAD_INPUT
            say(
                f"{why}; {self.lines:,} of {self._messages.total:,} lines are sent; the same command, {how}, goes on, "
                "and no task runs twice"
            )
            raise typer.Exit(code) from None
        say(self._summary())

    def _send_all(self) -> None:
        checkpoint = self._start
        self._save(checkpoint)
        lines = self._messages.tasks(checkpoint.run, after=checkpoint.line, offset=checkpoint.offset)
        for batch in batches(lines, lambda line: len(line.body) if isinstance(line, LineTask) else 0):
            self._messages.check_unchanged()
            ids = self._send(batch)
            checkpoint = replace(checkpoint, reached=self.lines, last_id=ids[-1] if ids else checkpoint.last_id)
            first_refused = next(iter(self.refused), math.inf)
            queued = [line for line in batch if isinstance(line, LineTask) and line.number < first_refused]
            if ids[len(queued) :]:
                checkpoint = replace(checkpoint, next_id=checkpoint.next_id or ids[len(queued)])
            if queued:
                tasks = checkpoint.tasks + len(queued)
                checkpoint = replace(checkpoint, line=queued[-1].number, offset=queued[-1].end, tasks=tasks)
            self._save(checkpoint)
        self.lines = self._messages.total
        if not self.refused:
            checkpoint = replace(checkpoint, line=self.lines, offset=self._messages.size, next_id=None)
        self._save(replace(checkpoint, reached=self.lines, is_complete=True))

    def _send(self, batch: list[LineTask | RefusedLine]) -> list[str]:
        """Sends the lines that can be tasks, and names the refused ones. Returns the ids of the tasks in the queue."""
        tasks = [line for line in batch if isinstance(line, LineTask)]
        refused = [line for line in batch if isinstance(line, RefusedLine)]
        ids: list[str] = []
        for task, answer in zip(tasks, self._answers(tasks), strict=True):
            if isinstance(answer, Refused):
                refused.append(RefusedLine(task.number, task.id, answer.code, str(answer)))
            else:
                self.tasks += 1
                self.known += answer is not TaskState.QUEUED
                ids.append(task.id)
        for line in sorted(refused, key=lambda line: line.number):
            if len(self.refused) < _MAX_NAMED:
                _name_line(self._bar.console, line.number, line.message)
            is_kept = len(self.refused) < _MAX_REASONS
            self.refused[line.number] = line if is_kept else replace(line, message=_NO_REASON)
        self.lines = batch[-1].number
        self._bar.update(self.lines, "sending")
        return ids

    def _answers(self, tasks: list[LineTask]) -> list[Refused | TaskState]:
        try:
            return self._client.submit_lines([task.body for task in tasks]) if tasks else []
        except Refused as error:
            if len(tasks) > 1 or _is_passing(error):
                raise
            return [error]

    def _save(self, checkpoint: Checkpoint) -> None:
        if self._place is not None:
            write_checkpoint(self._place, checkpoint)

    def _summary(self) -> str:
        before, seconds = self._start.tasks, self._bar.seconds
        now, refused = self.tasks - before, len(self.refused)
        if self._start.is_complete and not now and not refused:
            return (
                f"{_tasks(before)} of this file were queued before, nothing is left to send; "
                "send it as new tasks with --again"
            )
        summary = f"{_tasks(now)} queued in {seconds:.1f} s"
        if seconds > 1:
            summary += f" ({now / seconds:,.0f}/s)"
        if before:
            summary += f", {before:,} before"
        if self.known:
            summary += f"; {self.known:,} of them were sent before and do not run again (--again makes new tasks)"
        if refused:
            summary += f"; and {refused:,} {'line was' if refused == 1 else 'lines were'} refused"
        if refused > _MAX_NAMED:
            summary += f" ({refused - _MAX_NAMED:,} of them not named)"
        return summary


def _is_passing(error: Refused) -> bool:
    """Whether nothing is wrong with the lines: the same may be taken a little later."""
    return error.status >= 500 or error.status == 429


def _wait(
    client: GatewayClient, messages: MessageFile, run: str, sender: _Sender, path: Path | None, timeout: float
) -> set[int]:
    """Waits for the tasks and writes what became of each line, in order; the exit codes.

    When the time is over, it waits no more and writes the others as they are.
    """
    counts: Counter[str] = Counter()
    end = time.monotonic() + timeout
    how = "the tasks go on; the same command, run again with --wait, waits for them"
    bar = _Bar("waiting", sender.tasks)

    def show(view: TaskView | None) -> None:
        reason = "" if view is None or view.waiting_for is None else f" ({activity(view)})"
        ended = sum(counts[state.value] for state in TaskState if state.is_terminal)
        bar.update(ended, f"{_counted(counts)}{reason}")

    try:
        with on_interrupt(f"interrupted; {how}"), bar, results_file(path) as write:
            lines = messages.tasks(run)
            while part := list(islice(lines, LOOKUP_SIZE)):
                part = [sender.refused.get(line.number, line) if isinstance(line, LineTask) else line for line in part]
                views = client.wait_for_part([line.id for line in part if isinstance(line, LineTask)], end, show)
                for line in part:
                    entry = _result(line, views)
                    counts[entry["state"]] += 1
                    write(printable_json(entry))
                show(None)
            messages.check_unchanged()
    except GatewayUnreachable as error:
        raise GatewayUnreachable(f"{str(error).rstrip('.')}; {how}") from None
    unfinished = sum(counts[state.value] for state in TaskState if not state.is_terminal)
    if unfinished:
        say(f"after {bar.seconds:.0f} s: {_counted(counts)}; the same command, run again, waits for the others")
    else:
        say(f"all have ended: {_counted(counts)}")
    bad = counts[TaskState.FAILED.value] + counts[TaskState.CANCELLED.value] + counts[_UNKNOWN]
    return ({FAILED} if bad else set()) | ({NOT_FINISHED} if unfinished else set())


def _result(line: LineTask | RefusedLine, views: dict[str, TaskView]) -> dict[str, Any]:
    """``{"line", "id", "state", "result" or "error"}``."""
    entry: dict[str, Any] = {"line": line.number, "id": line.id}
    if isinstance(line, RefusedLine):
        return entry | {"state": _REFUSED, "error": {"code": line.code, "message": line.message}}
    if view := views.get(line.id):
        return entry | outcome(view)
    message = "the gateway does not know this task any more; tasks that ended long ago are dropped"
    return entry | {"state": _UNKNOWN, "error": {"code": "unknown_task", "message": message}}


@contextmanager
def results_file(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes one line. None: nowhere; ``-``: standard output. A file is there only when it is whole."""
    if path is None:
        yield lambda _line: None
    elif str(path) == "-":
        yield print
    else:
        try:
            with replaced(path) as file:
                yield lambda line: print(line, file=file)
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror}") from None


class _Bar:
    """A progress bar on a terminal; elsewhere it only takes the time."""

    def __init__(self, what: str, total: int, completed: int = 0) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.console = stderr_console()
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._bar = self._progress.add_task(what, total=total, completed=completed)
        self._began_at = time.monotonic()

    def __enter__(self) -> None:
        self._began_at = time.monotonic()
        self._progress.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_at

    def update(self, completed: int, what: str) -> None:
        self._progress.update(self._bar, completed=completed, description=one_line(what, 60))


def _counted(counts: Counter[str]) -> str:
    """``12 succeeded, 1 failed``."""
    states = sorted(TaskState, key=lambda state: not state.is_terminal)
    order = [*(state.value for state in states), _REFUSED, _UNKNOWN]
    return ", ".join(f"{counts[name]:,} {name}" for name in order if counts[name]) or "waiting"


def _name_line(console: Console, number: int, message: str) -> None:
    console.print(f"line {number}: {one_line(message, 500)}", markup=False, soft_wrap=True)


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"
