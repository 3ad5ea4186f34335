"""What a command says about a task, and what it shows while the task runs."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer.models import TaskState, TaskSummaryView, TaskView, to_json
from producer.printable import one_line

if TYPE_CHECKING:
    from producer.client.client import GatewayClient

#: Short tasks end within this; no progress bar flashes up for them.
_QUIET_SECONDS = 0.5


def without_result(task: TaskView, waited_seconds: float = 0) -> str:
    """Why there is no result, as a sentence."""
    if task.state is TaskState.FAILED and task.error is not None:
        return f"task {task.id} failed ({task.error.code}): {task.error.message}"
    if task.state is TaskState.CANCELLED:
        return f"task {task.id} was cancelled"
    waited = f" after {waited_seconds:g} s" if waited_seconds else ""
    why = f" ({task.waiting_for})" if task.waiting_for else ""
    return f"task {task.id} is {task.state.value}{waited}{why}; ask again with: producer result {task.id} --wait"


def activity(task: TaskView | TaskSummaryView) -> str:
    """What a task that has not ended is doing, or waiting for."""
    if task.progress is not None and task.progress.message:
        return task.progress.message
    if task.cancel_requested:
        return "is being stopped"
    if task.state is TaskState.RETRYING and task.error is not None:
        why = task.waiting_for or f"waits for attempt {task.attempt}"
        return f"{why} ({task.error.code}: {task.error.message})"
    return task.waiting_for or task.state.value


def outcome(task: TaskView) -> dict[str, Any]:
    """Id, group if it has one, state, and result or error, as JSON values."""
    entry: dict[str, Any] = {"id": task.id, "state": task.state.value}
    if task.group is not None:
        entry["group"] = task.group
    if task.state is TaskState.SUCCEEDED:
        entry["result"] = task.result
    elif task.error is not None:
        entry["error"] = to_json(task.error)
    return entry


def wait_with_progress(client: "GatewayClient", task: TaskView, timeout_seconds: float, console: Console) -> TaskView:
    """The task when it has ended, or as it is when the time is over.

    A terminal shows a bar; elsewhere a line says why a task does not run yet.
    """
    end = time.monotonic() + timeout_seconds
    if not task.state.is_terminal:
        task = client.get(task.id, wait_seconds=min(timeout_seconds, _QUIET_SECONDS))
    if task.state.is_terminal:
        return task
    if not console.is_terminal:
        show_reason = _reasons(console)
        show_reason(task)
        return client.wait(task.id, max(0.0, end - time.monotonic()), on_view=show_reason)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[percent]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None, percent="")

        def show(view: TaskView) -> None:
            done = view.progress
            progress.update(
                bar,
                description=one_line(activity(view)),
                total=None if done is None else 1.0,
                completed=0 if done is None else done.fraction,
                percent="" if done is None else f"{done.fraction:.0%}",
            )

        show(task)
        return client.wait(task.id, max(0.0, end - time.monotonic()), on_view=show)


def _reasons(console: Console) -> Callable[[TaskView], None]:
    """Prints each reason to wait once."""
    printed: set[str] = set()

    def show(view: TaskView) -> None:
        if view.waiting_for and view.waiting_for not in printed:
            printed.add(view.waiting_for)
            console.print(f"task {view.id} waits: {one_line(view.waiting_for, 300)}", markup=False, soft_wrap=True)

    return show
