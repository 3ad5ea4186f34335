"""Tasks and refusals as bytes for the wire.

A stored result is embedded as it is: it was checked when it was stored, and may have megabytes.
"""

from datetime import datetime, timezone
from http import HTTPStatus
from typing import Any

import orjson

from producer.gateway.submission import Refused
from runnerlib.contract import FailureCode, Problem, TaskState
from taskqueue.tasks import NewTask, TaskRow

#: HTTP status of a refusal.
STATUS_OF = {
    FailureCode.MALFORMED: 400,
    FailureCode.UNKNOWN_ALGORITHM: 404,
    FailureCode.ID_CONFLICT: 409,
    FailureCode.TOO_LARGE: 413,
    FailureCode.INVALID_PAYLOAD: 422,
}


def task_bytes(row: TaskRow) -> bytes:
    """A task, in the shape of the contract's TaskView."""
    error = None
    if row.error_code is not None and row.state in (TaskState.FAILED, TaskState.RETRYING):
        error = {"code": row.error_code, "message": row.error_message or ""}
    progress = None
    if row.progress is not None and row.state is TaskState.RUNNING:
        progress = {"fraction": row.progress.fraction, "message": row.progress.message}
    view = {
        "id": row.id,
        "algorithm": row.algorithm,
        "state": row.state,
        "attempt": row.attempt,
        "error": error,
        "progress": progress,
        "cancel_requested": row.cancel_requested,
        "runner": row.runner,
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
        "finished_at": None if row.finished_at is None else _time(row.finished_at),
    }
    result = row.result if row.state is TaskState.SUCCEEDED and row.result is not None else b"null"
    return orjson.dumps(view, option=orjson.OPT_UTC_Z)[:-1] + b',"result":' + result + b"}"


def queued_bytes(task: NewTask, now: float) -> bytes:
    """A task that was queued this moment: what :func:`task_bytes` would say, without asking the store."""
    row = TaskRow(
        id=task.id,
        algorithm=task.algorithm,
        payload=task.payload,
        digest=task.digest,
        state=TaskState.QUEUED,
        attempt=1,
        created_at=now,
        updated_at=now,
    )
    return task_bytes(row)


def problem_bytes(status: int, code: str, detail: str, **more: Any) -> bytes:
    """A problem (RFC 9457) with members of its own, such as `state`."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, **more)
    return problem.model_dump_json(exclude_none=True).encode()


def refusal_bytes(refused: Refused) -> bytes:
    """A refusal as a problem: its id when it had one, and the fields at fault."""
    more: dict[str, Any] = {}
    if refused.id is not None:
        more["id"] = refused.id
    if refused.errors:
        more["errors"] = [{"field": error.field, "message": error.message} for error in refused.errors]
    if refused.near:
        more["near"] = list(refused.near)
    return problem_bytes(STATUS_OF[refused.code], refused.code.value, refused.message, **more)


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


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
