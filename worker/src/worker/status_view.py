"""A running environment as a person or a program wants to see it."""

from typing import Any

from rich.table import Table

from producer.gateway.algorithm_views import AlgorithmStatus, RunnerStatus, Status, TaskCounts
from runnerlib.contract import Catalogue
from worker.state_file import EnvironmentState


def schemas_of(catalogue: Catalogue) -> dict[str, Any]:
    """Algorithm → its summary, schemas, example and limits."""
    return {
        name: view.description.model_dump(mode="json", exclude={"name"})
        for name, view in sorted(catalogue.algorithms.items())
    }


def runner_table(state: EnvironmentState, runners: list[RunnerStatus]) -> Table:
    """Every runner that is registered, and those of this environment that are not."""
    table = Table("runner", "address", "algorithms", title=f"gateway {state.gateway}/docs", title_justify="left")
    for runner in runners:
        table.add_row(runner.name, runner.host, ", ".join(runner.algorithms))
    registered = {runner.host for runner in runners}
    for name, ours in state.runners.items():
        for process in ours.processes:
            if process.url not in registered:
                table.add_row(name, process.url, "not registered", style="red")
    return table


def task_table(status: Status) -> Table:
    """Tasks of every algorithm by state."""
    table = Table("algorithm", "runners", "waiting", "running", "oldest waits", "succeeded", "failed", "cancelled")
    for column in table.columns[1:]:
        column.justify = "right"
    for algorithm in status.algorithms:
        table.add_row(algorithm.name, *_cells(algorithm))
    table.add_section()
    table.add_row("all", str(len(status.runners)), *_counts(status.tasks))
    return table


def _cells(algorithm: AlgorithmStatus) -> list[str]:
    return [str(algorithm.runners), *_counts(algorithm.tasks)]


def _counts(tasks: TaskCounts) -> list[str]:
    oldest = tasks.oldest_waiting_seconds
    waits = "-" if oldest is None else f"{oldest:.1f} s"
    return [str(n) for n in (tasks.waiting, tasks.running, waits, tasks.succeeded, tasks.failed, tasks.cancelled)]
