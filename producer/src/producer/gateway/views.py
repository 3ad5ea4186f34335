"""How responses show tasks, and why a task waits."""

import time
from datetime import datetime, timezone
from typing import Any

import orjson
from starlette.responses import Response

from producer.gateway.admission import CatalogueView
from producer.gateway.query_params import TASK_CURSOR
from runnerlib.contract import AlgorithmView, TaskState, near_names
from taskqueue.pauses import PauseWatch, pause_sentence
from taskqueue.tasks import Page, Pause, TaskRow, TaskSummary

Task = TaskRow | TaskSummary


class TaskResponder:
    """Writes tasks as JSON. `unknown_grace_seconds`: how long controllers keep a task of an unknown algorithm."""

    def __init__(self, view: CatalogueView, pauses: PauseWatch, unknown_grace_seconds: float) -> None:
        self._view = view
        self._pauses = pauses
        self._unknown_grace_seconds = unknown_grace_seconds

    def response(self, row: TaskRow, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return Response(self.task(row), status, headers, "application/json")

    def task(self, row: TaskRow) -> bytes:
        """A task, in the shape of the contract's TaskView.

        Its result is embedded as stored: it was checked then, and may have megabytes.
        """
        result = row.result if row.state is TaskState.SUCCEEDED and row.result is not None else b"null"
        return orjson.dumps(self._fields(row), option=orjson.OPT_UTC_Z)[:-1] + b',"result":' + result + b"}"

    def page(self, page: Page[TaskSummary]) -> bytes:
        """A page of the list of tasks, in the shape of the contract's TaskListView."""
        tasks = [{**self._fields(task), "expires_at": iso_time(task.expires_at)} for task in page]
        return orjson.dumps({"tasks": tasks, "next": TASK_CURSOR.write(page.next)}, option=orjson.OPT_UTC_Z)

    def _fields(self, task: Task) -> dict[str, Any]:
        error = None
        if task.error_code is not None and task.state in (TaskState.FAILED, TaskState.RETRYING):
            error = {"code": task.error_code, "message": task.error_message or ""}
        progress = None
        if task.progress is not None and task.state is TaskState.RUNNING:
            progress = {"fraction": task.progress.fraction, "message": task.progress.message}
        return {
            "id": task.id,
            "algorithm": task.algorithm,
            "state": task.state,
            "attempt": task.attempt,
            "error": error,
            "progress": progress,
            "cancel_requested": task.cancel_requested,
            "runner": task.runner,
            "waiting_for": self._waiting_for(task),
            "replays": task.replays,
            "group": task.group,
            "not_before": iso_time(task.not_before),
            "created_at": iso_time(task.created_at),
            "updated_at": iso_time(task.updated_at),
            "finished_at": iso_time(task.finished_at),
        }

    def _waiting_for(self, task: Task) -> str | None:
        pause = self._pauses.paused.get(task.algorithm)
        return pending_reason(task, self._view, self._unknown_grace_seconds, pause, now=time.time())


def iso_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc)


def pending_reason(
    task: Task, view: CatalogueView, unknown_grace_seconds: float, pause: Pause | None = None, *, now: float
) -> str | None:
    """Why a waiting task does not run. None if it runs, has ended, or only waits its turn. Pure.

    `now` is in seconds since the epoch. A delayed task also tells what would keep it waiting after its delay.
    """
    if task.state not in (TaskState.QUEUED, TaskState.RETRYING):
        return None
    # a task that has started once does not expire any more
    expires_at = task.expires_at if task.state is TaskState.QUEUED else None
    until = "" if expires_at is None else f" until {_clock(expires_at)}"
    obstacle = _obstacle(task, view, unknown_grace_seconds, pause, until)
    not_before = task.not_before if task.state is TaskState.QUEUED else None
    if not_before is not None and not_before > now:
        delay = f"it was sent to start not before {_clock(not_before)}"
        return delay if obstacle is None else f"{delay}; {obstacle}"
    if obstacle is not None:
        return obstacle
    if task.pending_reason is not None:
        return f"{task.pending_reason}; it waits{until}"
    if task.state is TaskState.RETRYING:
        return f"attempt {task.attempt} comes after a pause: attempt {task.attempt - 1} failed"
    return None


def _obstacle(
    task: Task, view: CatalogueView, unknown_grace_seconds: float, pause: Pause | None, until: str
) -> str | None:
    """What keeps every task of its algorithm waiting: a pause, or that no runner gets them."""
    name = task.algorithm
    if pause is not None:
        return f"{pause_sentence(name, pause)}; it waits{until}"
    nobody = f"no runner offers {name!r} now; it waits for one{until}"
    if view.catalogue is None:
        return f"discovery has not answered yet, so nobody knows who offers {name!r}; it waits{until}"
    algorithm = view.catalogue.algorithms.get(name)
    if algorithm is None:
        if not view.is_sure:
            return nobody
        return _unknown_reason(task, near_names(name, view.catalogue.algorithms), unknown_grace_seconds)
    if not algorithm.runners:
        return _ineligible_reason(algorithm, until) or nobody
    return None


def _ineligible_reason(algorithm: AlgorithmView, until: str) -> str | None:
    """Why the runners that offer it get no work; None if there are none."""
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
    return None


def _unknown_reason(task: Task, near: list[str], grace_seconds: float) -> str:
    meant = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    end = (task.updated_at if task.replays else task.created_at) + grace_seconds
    if task.expires_at is not None:
        end = min(end, task.expires_at)
    return (
        f"unknown algorithm: no runner ever offered {task.algorithm!r}{meant}; fails at {_clock(end)} unless one does"
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
