"""A running environment as a person or a program wants to see it."""

from typing import Any

from rich.table import Table

from runnerlib.contract import Catalogue
from worker.output import Output
from worker.state_file import EnvironmentState


def schemas_of(catalogue: Catalogue) -> dict[str, Any]:
    """Algorithm → its summary, schemas, example and limits."""
    return {
        name: view.description.model_dump(mode="json", exclude={"name", "description"})
        for name, view in sorted(catalogue.algorithms.items())
    }


def show_status(output: Output, state: EnvironmentState, catalogue: Catalogue, status: Any) -> None:
    runners = Table("runner", "address", "algorithms", title=f"gateway {state.gateway}/docs")
    for view in sorted(catalogue.runners.values(), key=lambda runner: runner.id):
        runners.add_row(view.name, view.host, ", ".join(sorted(view.algorithms)))
    for name, url in state.runners.items():
        if url not in {view.host for view in catalogue.runners.values()}:
            runners.add_row(name, url, "not registered", style="red")
    output.show(runners)
    output.show(_tasks(catalogue, status))


def _tasks(catalogue: Catalogue, status: Any) -> Table:
    table = Table("algorithm", "runners", "waiting", "running", "oldest waits", "failed", "done")
    return table
