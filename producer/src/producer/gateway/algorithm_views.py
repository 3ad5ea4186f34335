"""What the environment offers and how it is doing: ``GET /algorithms`` and ``GET /status``."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import BaseModel, Field

from runnerlib.contract import AlgorithmView, Catalogue, Example, Limits, RunnerLevel, RunnerView, TaskState
from taskqueue.tasks import Counts, Pause


class RunnerInfo(BaseModel):
    """A live runner."""

    id: str
    name: str
    host: str
    docs: str | None = Field(description="Its documentation, when it has one.")


class TaskCounts(BaseModel):
    """Tasks of one algorithm. `waiting`: queued, or between two attempts."""

    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    oldest_waiting_seconds: float | None = None


class PauseInfo(BaseModel):
    """A pause of an algorithm."""

    by: str = Field(description="Name of the token that paused it; empty where no tokens are in use.")
    since: datetime

    @classmethod
    def of(cls, pause: Pause | None) -> "PauseInfo | None":
        return None if pause is None else cls(by=pause.by, since=datetime.fromtimestamp(pause.at, tz=timezone.utc))


class AlgorithmInfo(BaseModel):
    """One algorithm, with all that a sender needs."""

    name: str
    summary: str
    description: str
    input_schema: dict[str, Any] | None = Field(description="JSON Schema of the payload; null: not told.")
    output_schema: dict[str, Any] | None
    example: Example | None
    limits: Limits
    runners: list[RunnerInfo] = Field(description="Who offers it now; empty: tasks wait.")
    conflicts: list[RunnerInfo] = Field(description="Runners with another schema: they get no new work.")
    owner: str | None = Field(default=None, description="Name of the runner that it belongs to.")
    clashing: list[RunnerInfo] = Field(
        default_factory=list, description="Runners of another name that offer it: they get no work of it."
    )
    tasks: TaskCounts
    paused: PauseInfo | None = Field(default=None, description="Its tasks are not handed out; null: they are.")


class AlgorithmList(BaseModel):
    """`complete` is false while runners may be missing: discovery has just started or does not answer."""

    algorithms: list[AlgorithmInfo]
    complete: bool


class RunnerStatus(RunnerInfo):
    level: RunnerLevel
    algorithms: list[str]
    clashes: dict[str, str] = Field(
        default_factory=dict,
        description="Algorithm of it → the runner that owns that: this one gets no work of it.",
    )


class AlgorithmStatus(BaseModel):
    name: str
    runners: int
    tasks: TaskCounts
    waiting_for_runner: bool = Field(description="It is known, tasks of it wait, and no runner offers it now.")
    paused: PauseInfo | None = Field(default=None, description="Its tasks are not handed out; null: they are.")


class Status(BaseModel):
    """The environment at a glance."""

    runners: list[RunnerStatus]
    algorithms: list[AlgorithmStatus] = Field(description="Known ones, and those that tasks ask for.")
    tasks: TaskCounts = Field(description="Over all algorithms.")
    complete: bool


def algorithm_infos(
    catalogue: Catalogue | None, counts: Iterable[Counts], paused: Mapping[str, Pause], now: float
) -> list[AlgorithmInfo]:
    """All known algorithms, by name."""
    if catalogue is None:
        return []
    tasks = _tasks_by_algorithm(counts, now)
    return [
        _algorithm_info(catalogue.algorithms[name], catalogue, tasks.get(name, TaskCounts()), paused.get(name))
        for name in sorted(catalogue.algorithms)
    ]


def environment_status(
    catalogue: Catalogue | None, complete: bool, counts: Sequence[Counts], paused: Mapping[str, Pause], now: float
) -> Status:
    tasks = _tasks_by_algorithm(counts, now)
    known = catalogue.algorithms if catalogue is not None else {}
    runners = catalogue.runners if catalogue is not None else {}
    return Status(
        runners=[_runner_status(runners[runner_id], known) for runner_id in sorted(runners)],
        algorithms=[
            _algorithm_status(name, known.get(name), tasks.get(name, TaskCounts()), paused.get(name))
            for name in sorted({*known, *tasks, *paused} - {""})
        ],
        tasks=_task_counts(counts, now),
        complete=complete,
    )


def _algorithm_status(name: str, view: AlgorithmView | None, tasks: TaskCounts, pause: Pause | None) -> AlgorithmStatus:
    runners = len(view.runners) if view is not None else 0
    waits = view is not None and not runners and tasks.waiting > 0
    info = PauseInfo.of(pause)
    return AlgorithmStatus(name=name, runners=runners, tasks=tasks, waiting_for_runner=waits, paused=info)


def _algorithm_info(view: AlgorithmView, catalogue: Catalogue, tasks: TaskCounts, pause: Pause | None) -> AlgorithmInfo:
    def live(ids: Iterable[str]) -> list[RunnerInfo]:
        return [RunnerInfo(**_about(catalogue.runners[one])) for one in sorted(ids) if one in catalogue.runners]

    about = view.description
    return AlgorithmInfo(
        name=about.name,
        summary=about.summary,
        description=about.description,
        input_schema=about.input_schema,
        output_schema=about.output_schema,
        example=about.example,
        limits=about.limits,
        runners=live(view.runners),
        conflicts=live(view.outdated),
        owner=view.owner,
        clashing=live(view.clashing),
        tasks=tasks,
        paused=PauseInfo.of(pause),
    )


def _runner_status(runner: RunnerView, known: Mapping[str, AlgorithmView]) -> RunnerStatus:
    views = {name: known[name] for name in runner.algorithms if name in known}
    return RunnerStatus(
        **_about(runner),
        level=runner.level,
        algorithms=sorted(runner.algorithms),
        clashes={name: str(view.owner) for name, view in sorted(views.items()) if runner.id in view.clashing},
    )


def _about(runner: RunnerView) -> dict[str, Any]:
    """The fields of RunnerInfo. Only a runner of the full level promises documentation."""
    docs = f"{runner.host}/docs" if runner.level is RunnerLevel.FULL else None
    return {"id": runner.id, "name": runner.name, "host": runner.host, "docs": docs}


def _tasks_by_algorithm(counts: Iterable[Counts], now: float) -> dict[str, TaskCounts]:
    return {count.algorithm: _task_counts([count], now) for count in counts}


def _task_counts(counts: Sequence[Counts], now: float) -> TaskCounts:
    """The sum of `counts`."""
    by_state: Counter[TaskState] = Counter()
    for count in counts:
        by_state.update(count.by_state)
    oldest = min((count.oldest_waiting_at for count in counts if count.oldest_waiting_at is not None), default=None)
    return TaskCounts(
        waiting=by_state[TaskState.QUEUED] + by_state[TaskState.RETRYING],
        running=by_state[TaskState.RUNNING],
        succeeded=by_state[TaskState.SUCCEEDED],
        failed=by_state[TaskState.FAILED],
        cancelled=by_state[TaskState.CANCELLED],
        oldest_waiting_seconds=None if oldest is None else round(max(0.0, now - oldest), 3),
    )
