"""What a person sees of a sending: a bar on a terminal, and in any case a sentence at the end."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.models import TaskState, TaskView
from producer.printable import one_line
from producer.sending.results import REFUSED, UNKNOWN, LineResults
from producer.sending.send import FileSender, Refusal
from producer.sending.sent_note import SentNote
from producer.task_sentences import doing

#: Refused lines that are named; of more only how many.
MOST_NAMED = 20


class _Bar:
    """A bar of so many steps; nothing where there is no terminal."""

    def __init__(self, what: str, total: int) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._bar = self._progress.add_task(what, total=total)
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

    def put(self, completed: int, what: str) -> None:
        self._progress.update(self._bar, completed=completed, description=one_line(what, 60))


class SendingShow(_Bar):
    """Of sending; names refused lines as they come."""

    def __init__(self, total: int, note: SentNote) -> None:
        super().__init__("sending", total)
        self._before = note
        self._named = 0
        self.put(note.line, "sending")

    def seen(self, sender: FileSender, refusals: list[Refusal]) -> None:
        for refusal in refusals[: max(0, MOST_NAMED - self._named)]:
            name_line(self.console, refusal.number, refusal.message)
        self._named += len(refusals)
        self.put(sender.lines, "sending")

    def summary(self, sender: FileSender) -> str:
        """One sentence for the end."""
        before = self._before
        now = sender.tasks - before.tasks
        if before.is_complete and not now and not sender.refusals:
            return (
                f"{_tasks(before.tasks)} of this file were queued before, nothing is left to send; "
                "send it as new tasks with --again"
            )
        earlier = f", {before.tasks:,} before" if before.tasks else ""
        rate = f" ({now / self.seconds:,.0f}/s)" if self.seconds > 1 else ""
        refused = len(sender.refusals)
        told = f"; and {refused:,} {'line was' if refused == 1 else 'lines were'} refused" if refused else ""
        more = f" ({refused - MOST_NAMED:,} of them not named)" if refused > MOST_NAMED else ""
        again = f"; {sender.known:,} of them were sent before and do not run again (--again makes new tasks)"
        known = again if sender.known else ""
        return f"{_tasks(now)} queued in {self.seconds:.1f} s{rate}{earlier}{known}{told}{more}"


class WaitingShow(_Bar):
    """Of waiting for results."""

    def __init__(self, total: int) -> None:
        super().__init__("waiting", total)

    def seen(self, results: LineResults, waits: TaskView | None) -> None:
        ended = sum(results.counts[state.value] for state in TaskState if state.is_terminal)
        reason = "" if waits is None or waits.waiting_for is None else f" ({doing(waits)})"
        self.put(ended, f"{counted(results)}{reason}")

    def summary(self, results: LineResults) -> str:
        """One sentence for the end."""
        if not results.unfinished:
            return f"all have ended: {counted(results)}"
        return f"after {self.seconds:.0f} s: {counted(results)}; the same command, run again, waits for the others"


def counted(results: LineResults) -> str:
    """``12 succeeded, 1 failed``."""
    order = [state.value for state in sorted(TaskState, key=lambda state: not state.is_terminal)] + [REFUSED, UNKNOWN]
    return ", ".join(f"{results.counts[name]:,} {name}" for name in order if results.counts[name]) or "waiting"


def name_line(console: Console, number: int, message: str) -> None:
    console.print(f"line {number}: {one_line(message, 500)}", markup=False, soft_wrap=True)


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count:,} tasks"
