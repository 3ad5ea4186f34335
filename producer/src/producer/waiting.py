"""Waits for a task and shows how far it is."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from producer.client import GatewayClient
from producer.printable import one_line
from runnerlib.contract import TaskView

#: Short tasks answer within this, and then no progress bar flashes up.
_QUIET_SECONDS = 0.5


def wait_with_progress(client: GatewayClient, task: TaskView, timeout_seconds: float, console: Console) -> TaskView:
    """The task when it has ended, or as it is when the time is over. Progress is shown on a terminal only."""
    end = time.monotonic() + timeout_seconds
    if not task.state.is_terminal:
        task = client.get(task.id, wait_seconds=min(timeout_seconds, _QUIET_SECONDS))
    if task.state.is_terminal:
        return task
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(one_line(task.state.value), total=None)

        def show(view: TaskView) -> None:
            done = view.progress
            message = done.message if done is not None and done.message else view.state.value
            progress.update(
                bar,
                description=one_line(message),
                total=None if done is None else 1.0,
                completed=0 if done is None else done.fraction,
            )

        return client.wait(task.id, max(0.0, end - time.monotonic()), on_view=show)
