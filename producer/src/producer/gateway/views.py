"""Tasks and refusals as bytes for the wire.

A stored result is embedded as it is: it was checked when it was stored, and may have megabytes.
"""

from collections.abc import Callable
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any

import orjson

from producer.gateway.cursors import TASKS
from producer.gateway.problem_codes import ProblemCode
from producer.gateway.submission import Refused
from runnerlib.contract import Problem, TaskState
from taskqueue.tasks import NewTask, Page, TaskRow, TaskSummary

#: Why a task waits, if it does.
Why = Callable[[TaskRow | TaskSummary], str | None]


def task_bytes(row: TaskRow, why: Why) -> bytes:
    """A task, in the shape of the contract's TaskView."""
    result = row.result if row.state is TaskState.SUCCEEDED and row.result is not None else b"null"
    return orjson.dumps(_about(row, why), option=orjson.OPT_UTC_Z)[:-1] + b',"result":' + result + b"}"


def tasks_bytes(page: Page[TaskSummary], why: Why) -> bytes:
    """A page of the list of tasks, in the shape of the contract's TaskListView."""
    lines = [{**_about(task, why), "expires_at": iso_time(task.expires_at)} for task in page]
    after = None if page.next is None else TASKS.write(page.next)
    return orjson.dumps({"tasks": lines, "next": after}, option=orjson.OPT_UTC_Z)


def found_bytes(tasks: list[bytes], left_out: list[str]) -> bytes:
    """Tasks that were asked for by their ids, each written already."""
    return b'{"tasks":[' + b",".join(tasks) + b'],"left_out":' + orjson.dumps(left_out) + b"}"


def queued_row(task: NewTask, now: float) -> TaskRow:
    """A task that was queued this moment, as the store has it."""
    return TaskRow(
        id=task.id,
        algorithm=task.algorithm,
        payload=task.payload,
        digest=task.digest,
        state=TaskState.QUEUED,
        attempt=1,
        created_at=now,
        updated_at=now,
        expires_at=task.expires_at,
    )


def problem_bytes(code: ProblemCode, detail: str, **more: Any) -> bytes:
    """A problem (RFC 9457) with members of its own, such as `state`."""
    title = HTTPStatus(code.status).phrase
    problem = Problem(title=title, status=code.status, code=code.value, detail=detail, **more)
    return problem.model_dump_json(exclude_none=True).encode()


def code_of(refused: Refused) -> ProblemCode:
    """What a task would fail of, it is refused for."""
    return ProblemCode[refused.code.name]


def refusal_bytes(refused: Refused) -> bytes:
    """A refusal as a problem: its id when it had one, and the fields at fault."""
    more: dict[str, Any] = {}
    if refused.id is not None:
        more["id"] = refused.id
    if refused.errors:
        more["errors"] = [{"field": error.field, "message": error.message} for error in refused.errors]
    if refused.near:
        more["near"] = list(refused.near)
    return problem_bytes(code_of(refused), refused.message, **more)


def batch_bytes(entries: list[Refused | tuple[str, TaskState]]) -> bytes:
    """The answer to a batch: ``[{"id", "state"} or {"id", "problem"}]``, in the order of the messages."""
    return orjson.dumps(
        [
            {"id": entry.id, "problem": orjson.Fragment(refusal_bytes(entry))}
            if isinstance(entry, Refused)
            else {"id": entry[0], "state": entry[1]}
            for entry in entries
        ]
    )


def iso_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc)


def _about(task: TaskRow | TaskSummary, why: Why) -> dict[str, Any]:
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
        "waiting_for": why(task),
        "replays": task.replays,
        "created_at": iso_time(task.created_at),
        "updated_at": iso_time(task.updated_at),
        "finished_at": iso_time(task.finished_at),
    }
