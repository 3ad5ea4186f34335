"""``producer list``: tasks, one on each row."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from producer.printable import one_line
from producer.task_sentences import doing
from runnerlib.contract import TaskState, TaskSummaryView

#: Digits of an id that we chose, or of a UUID.
_USUAL_ID = 36
_STYLE = {
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.CANCELLED: "yellow",
    TaskState.RETRYING: "magenta",
    TaskState.RUNNING: "cyan",
    TaskState.QUEUED: "",
}


def task_table(tasks: Sequence[TaskSummaryView]) -> Table:
    """Texts of strangers are never read as markup."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("id", overflow="fold", min_width=id_width(task.id for task in tasks))
    table.add_column("algorithm", overflow="fold")
    for column in ("state", "attempt", "created"):
        table.add_column(column, no_wrap=True)
    table.add_column("about", overflow="fold")
    for task in tasks:
        table.add_row(
            task.id,
            Text(one_line(task.algorithm)),
            Text(task.state.value, style=_STYLE[task.state]),
            str(task.attempt),
            f"{task.created_at.astimezone():%Y-%m-%d %H:%M:%S}",
            Text(_about(task)),
        )
    return table


def id_width(ids: Iterable[str]) -> int:
    """So wide that ids of the usual length can be copied in one piece."""
    return min(_USUAL_ID, max(map(len, ids), default=0))


def _about(task: TaskSummaryView) -> str:
    if task.state is TaskState.FAILED and task.error is not None:
        return one_line(f"{task.error.code.value}: {task.error.message}", 200)
    if task.state.is_terminal:
        return ""
    told = doing(task)
    far = "" if task.progress is None else f"{task.progress.fraction:.0%} "
    return one_line(far + ("" if told == task.state.value else told), 200)
