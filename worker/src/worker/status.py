"""``worker status``: a running environment as a person or a program wants to see it."""

import asyncio
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from producer.gateway.algorithm_views import AlgorithmStatus, PauseInfo, RunnerStatus, Status, TaskCounts
from producer.printable import one_line, printable, printable_json
from runnerlib.contract import Catalogue, clash_sentence
from worker.environment_client import EnvironmentClient
from worker.output import Output
from worker.processes import explained
from worker.state_file import EnvironmentState, ProcessState, read_state

_REFRESH_SECONDS = 1.0
_DOING = {"installing": "being installed", "checking": "being checked", "starting": "starting"}
#: Longest name or address that is shown, since others registered it.
_MOST_CHARACTERS = 1000
#: One space right of each cell.
_PADDING = (0, 1, 0, 0)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class RunnerLine(BaseModel):
    """One process of a runner, or a runner without one."""

    name: str
    state: str = Field(
        description="ready, partly ready, starting, draining, not registered, elsewhere, not running, or what is done "
        "before it can run: installing, checking"
    )
    host: str = ""
    pid: int | None = None
    ready_since: float | None = Field(default=None, description="Seconds since 1970.")
    algorithms: list[str] = []
    problem: str = ""
    coming: str = Field(
        default="", description="How far its newest version is, which takes over then: installing, checking, starting."
    )


class StatusReport(BaseModel):
    """What ``worker status --json`` prints."""

    gateway: str
    discovery: str
    runners: list[RunnerLine]
    status: Status
    open_dead_letters: int
    more_dead_letters: bool = Field(description="Whether there are more than were counted.")


async def fetch_report(data: Path) -> StatusReport:
    """Raises NotRunning."""
    state = read_state(data)
    async with EnvironmentClient(state.gateway, state.discovery, data) as client:
        status, (dead_letters, more) = await asyncio.gather(client.status(), client.open_dead_letters())
        found = build_report(state, status, dead_letters, more)
        for line in found.runners:
            # It was ready once: what keeps it off the list now, only it knows.
            if line.state == "not registered" and not line.problem:
                line.problem = "; ".join(explained(await client.reasons(line.host)))
    return found


async def show_status(data: Path, output: Output, *, as_json: bool) -> None:
    found = await fetch_report(data)
    if as_json:
        output.console.file.write(printable_json(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        output.show(render(found))


async def watch_status(data: Path, output: Output, *, as_json: bool) -> None:
    """Until interrupted, or until the environment ends. On a terminal in one place; as JSON, one line each time."""
    if output.is_terminal and not as_json:
        with Live(console=output.console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(render(await fetch_report(data)), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)
    while True:
        if as_json:
            output.console.file.write(printable_json((await fetch_report(data)).model_dump(mode="json")) + "\n")
            output.console.file.flush()
        else:
            await show_status(data, output, as_json=False)
        await asyncio.sleep(_REFRESH_SECONDS)


def schemas_of(catalogue: Catalogue) -> dict[str, Any]:
    """Algorithm → its summary, schemas, example and limits."""
    return {
        name: view.description.model_dump(mode="json", exclude={"name"})
        for name, view in sorted(catalogue.algorithms.items())
    }


def build_report(state: EnvironmentState, status: Status, dead_letters: int, more: bool) -> StatusReport:
    return StatusReport(
        gateway=state.gateway,
        discovery=state.discovery,
        runners=runner_lines(state, status.runners),
        status=status,
        open_dead_letters=dead_letters,
        more_dead_letters=more,
    )


def runner_lines(state: EnvironmentState, registered: list[RunnerStatus]) -> list[RunnerLine]:
    """The processes that this environment started, then those that others started and registered."""
    by_host = {runner.host: runner for runner in registered}
    lines = []
    for name, runner in state.runners.items():
        if not runner.processes:
            lines.append(RunnerLine(name=name, state=runner.coming or "not running", problem=runner.problem))
        for number, process in enumerate(runner.processes):
            known = by_host.pop(process.url, None)
            lines.append(
                RunnerLine(
                    name=name,
                    state=_state(process, known is not None),
                    host=process.url,
                    pid=process.pid,
                    ready_since=process.since,
                    algorithms=_own(known),
                    problem=_problem(name, "" if number else runner.problem, known),
                    coming="" if number else runner.coming,
                )
            )
    for one in by_host.values():
        problem = _problem(one.name, "", one)
        lines.append(RunnerLine(name=one.name, state="elsewhere", host=one.host, algorithms=_own(one), problem=problem))
    return lines


def _own(runner: RunnerStatus | None) -> list[str]:
    """The algorithms that it gets tasks of."""
    return [] if runner is None else [name for name in runner.algorithms if name not in runner.clashes]


def _problem(name: str, known: str, runner: RunnerStatus | None) -> str:
    """What `worker` knows, and which algorithms the runner gets no tasks of, unless `known` says so already."""
    clashes = {} if runner is None else runner.clashes
    sentences = [clash_sentence(algorithm, owner, name) for algorithm, owner in clashes.items()]
    return "\n".join(filter(None, [known, *(each for each in sentences if each not in known)]))


def _state(process: ProcessState, is_registered: bool) -> str:
    if process.draining:
        return "draining"
    if process.since is None:
        # What works is offered even if something else cannot load.
        return "partly ready" if is_registered else "starting"
    return "ready" if is_registered else "not registered"


def render(report: StatusReport) -> RenderableType:
    """Two tables and the sentences below them, readable at 80 columns."""
    sentences = [Text(printable(text)) for text in _sentences(report)]
    return Group(_runner_table(report), "", _task_table(report.status), *sentences)


def _table(*columns: str, title: str | None = None) -> Table:
    style: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": _PADDING}
    table = Table(*columns, title=title, title_justify="left", **style)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _runner_table(report: StatusReport) -> Table:
    table = _table("runner", "state", "since", "address", "algorithms", title=f"gateway {report.gateway}/docs")
    # What is short is never folded, what is long takes the room that is left.
    for column in table.columns[1:3]:
        column.no_wrap = True
    now = time.time()
    for line in report.runners:
        since = "-" if line.ready_since is None else duration(now - line.ready_since)
        style = None if line.state in ("ready", "elsewhere", "draining") else "red"
        address = line.host.removeprefix("http://") or "-"
        cells = (line.name, line.state, since, address, ", ".join(line.algorithms))
        table.add_row(*(Text(one_line(cell, _MOST_CHARACTERS)) for cell in cells), style=style)
    return table


def _task_table(status: Status) -> Table:
    """Tasks of every algorithm by state."""
    table = _table("algorithm", "runners", "waiting", "running", "oldest\nwaits", "succeeded", "failed", "cancelled")
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for algorithm in status.algorithms:
        name = Text(one_line(algorithm.name, _MOST_CHARACTERS))
        table.add_row(name, str(algorithm.runners), *_counts(algorithm.tasks))
    table.add_section()
    table.add_row("all", str(len(status.runners)), *_counts(status.tasks))
    return table


def _sentences(report: StatusReport) -> list[str]:
    """What the tables cannot show."""
    found = [f"{line.name}: {line.problem}" for line in report.runners if line.problem]
    found += [
        f"{line.name}: its newest version is {_DOING[line.coming]}, what ran before goes on"
        for line in report.runners
        if line.coming in _DOING
    ]
    found += [_why_waiting(one) for one in report.status.algorithms if one.tasks.waiting and not one.runners]
    found += [_paused(one.name, one.paused) for one in report.status.algorithms if one.paused is not None]
    if report.open_dead_letters:
        count = f"{report.open_dead_letters}{'+' if report.more_dead_letters else ''}"
        found.append(f"{count} open dead letters; look at them with: producer dead list")
    if not report.status.complete:
        found.append("discovery has just started or does not answer: runners may be missing here")
    return found


def _why_waiting(algorithm: AlgorithmStatus) -> str:
    waiting = algorithm.tasks.waiting
    waits = f"{algorithm.name}: {waiting} {'waits' if waiting == 1 else 'wait'}"
    if algorithm.waiting_for_runner:
        return f"{waits}: no runner offers it now"
    return f"{waits}: no runner ever offered it; after a while they fail as unknown"


def _paused(algorithm: str, pause: PauseInfo) -> str:
    by = f" by {one_line(pause.by, _MOST_CHARACTERS)}" if pause.by else ""
    since = duration(time.time() - pause.since.timestamp())
    return f"{algorithm}: paused{by} for {since}; its tasks wait until: producer resume {algorithm}"


def _counts(tasks: TaskCounts) -> list[str]:
    oldest = tasks.oldest_waiting_seconds
    waits = "-" if oldest is None else duration(oldest)
    return [str(n) for n in (tasks.waiting, tasks.running, waits, tasks.succeeded, tasks.failed, tasks.cancelled)]


def duration(seconds: float) -> str:
    """A duration, rounded to a readable unit."""
    if seconds < _MINUTE:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"
