"""Waits for a task and shows how far it is, or what it waits for."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer.client.client import GatewayClient
from producer.models import TaskView
from producer.printable import one_line
from producer.task_sentences import doing

#: Short tasks answer within this, and then no progress bar flashes up.
_QUIET_SECONDS = 0.5


def wait_with_progress(client: GatewayClient, task: TaskView, timeout_seconds: float, console: Console) -> TaskView:
    """The task when it has ended, or as it is when the time is over.

    A terminal sees a bar; elsewhere one line says why a task does not run yet.
    """
    end = time.monotonic() + timeout_seconds
    if not task.state.is_terminal:
        task = client.get(task.id, wait_seconds=min(timeout_seconds, _QUIET_SECONDS))
    if task.state.is_terminal:
        return task
    if not console.is_terminal:
        tell = _reasons(console)
        tell(task)
        return client.wait(task.id, max(0.0, end - time.monotonic()), on_view=tell)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[percent]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(one_line(doing(task)), total=None, percent="")

        def show(view: TaskView) -> None:
            done = view.progress
            progress.update(
                bar,
                description=one_line(doing(view)),
                total=None if done is None else 1.0,
                completed=0 if done is None else done.fraction,
                percent="" if done is None else f"{done.fraction:.0%}",
            )

        show(task)
        return client.wait(task.id, max(0.0, end - time.monotonic()), on_view=show)


def _reasons(console: Console) -> Callable[[TaskView], None]:
    """Says each reason to wait once."""
    told: set[str] = set()

    def show(view: TaskView) -> None:
        if view.waiting_for and view.waiting_for not in told:
            told.add(view.waiting_for)
            console.print(f"task {view.id} waits: {one_line(view.waiting_for, 300)}", markup=False, soft_wrap=True)

    return show
