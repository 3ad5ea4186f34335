"""Says why a waiting task does not run. Pure: decides from the task and the catalogue alone."""

from datetime import datetime, timezone
from typing import Protocol

from producer.gateway.submission import Known
from runnerlib.contract import AlgorithmView, Catalogue, TaskState, near_names


class Waiting(Protocol):
    """What is looked at: of a task's row, or of its line in a list."""

    @property
    def state(self) -> TaskState: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def replays(self) -> int: ...
    @property
    def created_at(self) -> float: ...
    @property
    def updated_at(self) -> float: ...
    @property
    def expires_at(self) -> float | None: ...
    @property
    def held_up(self) -> str | None: ...


def waiting_for(task: Waiting, known: Known, unknown_grace_seconds: float) -> str | None:
    """None for a task that has ended or runs, and for one that a runner takes as soon as it has room."""
    if task.state not in (TaskState.QUEUED, TaskState.RETRYING):
        return None
    # a task that started once does not expire any more
    expires_at = task.expires_at if task.state is TaskState.QUEUED else None
    name, until = task.algorithm, _until(expires_at)
    catalogue = known.catalogue
    if catalogue is None:
        return f"discovery has not answered yet, so nobody knows who offers {name!r}; it waits{until}"
    algorithm = catalogue.algorithms.get(name)
    if algorithm is None:
        return _unknown(task, catalogue, unknown_grace_seconds) if known.is_sure else _nobody(name, until)
    if not algorithm.runners:
        return _away(algorithm, until)
    if task.held_up is not None:
        return f"{task.held_up}; it waits{until}"
    if task.state is TaskState.RETRYING:
        return f"attempt {task.attempt} comes after a pause: attempt {task.attempt - 1} failed"
    return None


def _nobody(name: str, until: str) -> str:
    return f"no runner offers {name!r} now; it waits for one{until}"


def _away(algorithm: AlgorithmView, until: str) -> str:
    name = algorithm.description.name
    if algorithm.outdated:
        return (
            f"all runners that offer {name!r} now have another schema than the newest of it; "
            f"it waits for one with the newest{until}"
        )
    if algorithm.clashing:
        return (
            f"{name!r} belongs to runner {algorithm.owner!r}, which is away; it waits for it{until}, though another "
            f"runner offers it, too: that gets it by: worker take-over {name} RUNNER"
        )
    return _nobody(name, until)


def _unknown(task: Waiting, catalogue: Catalogue, grace_seconds: float) -> str:
    near = near_names(task.algorithm, catalogue.algorithms)
    meant = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    end = (task.updated_at if task.replays else task.created_at) + grace_seconds
    if task.expires_at is not None:
        end = min(end, task.expires_at)
    return (
        f"unknown algorithm: no runner ever offered {task.algorithm!r}{meant}; fails at {_clock(end)} unless one does"
    )


def _until(expires_at: float | None) -> str:
    return "" if expires_at is None else f" until {_clock(expires_at)}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
