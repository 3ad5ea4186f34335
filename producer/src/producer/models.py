"""What the gateway answers, as plain data: tasks, dead letters, and the names that clients and gateway share.

A client may be older or newer than its gateway, so it ignores fields that it does not know.
"""

import re
import types
import uuid
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

#: RabbitMQ 4 refuses larger messages; larger things are passed by reference.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_ALGORITHM = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def is_algorithm(name: object) -> bool:
    return isinstance(name, str) and _ALGORITHM.fullmatch(name) is not None


def is_task_id(text: object) -> bool:
    return isinstance(text, str) and _TASK_ID.fullmatch(text) is not None


def new_task_id() -> str:
    """A random id of 122 bits, so that ids cannot be guessed."""
    return uuid.uuid4().hex


class TaskState(str, Enum):
    """``queued → running → succeeded | failed | cancelled``, with ``retrying`` between attempts."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class FailureCode(str, Enum):
    """Why a task failed. A newer gateway may know more codes, so views carry a plain string."""

    MALFORMED = "malformed"
    INVALID_PAYLOAD = "invalid_payload"
    UNKNOWN_ALGORITHM = "unknown_algorithm"
    TOO_LARGE = "too_large"
    ID_CONFLICT = "id_conflict"
    EXPIRED = "expired"
    HANDLER_ERROR = "handler_error"
    BAD_RESULT = "bad_result"
    TIMEOUT = "timeout"
    RUNNER_LOST = "runner_lost"
    CONTROLLER_LOST = "controller_lost"


@dataclass(frozen=True, kw_only=True)
class TaskError:
    """Why a task failed: a FailureCode, and the author's message."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, from 0 to 1, as its handler last reported."""

    fraction: float
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class _Task:
    id: str
    algorithm: str
    state: TaskState
    #: number of the current or last attempt; 1 is the first
    attempt: int
    #: only when `failed` or `retrying`
    error: TaskError | None = None
    progress: Progress | None = None
    cancel_requested: bool = False
    #: the runner that has it or had it last, when known
    runner: str | None = None
    #: why a waiting task is not running; None when a runner takes it as soon as it can
    waiting_for: str | None = None
    #: how often it was put back into the queue after it had failed
    replays: int = 0
    #: whom it is for: groups of one algorithm take turns
    group: str | None = None
    #: its first attempt starts no earlier
    not_before: datetime | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class TaskSummaryView(_Task):
    """A task in a list, without its result."""

    #: it fails as `expired` unless it starts by then
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class TaskView(_Task):
    """A task with its result."""

    #: what the handler returned; only when `succeeded`
    result: Any = None


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One attempt that did not succeed."""

    attempt: int
    code: str
    message: str
    runner: str | None = None
    at: datetime
    #: whether the whole runner was lost, and not only the process of this task
    whole_runner: bool = False


@dataclass(frozen=True, kw_only=True)
class DeadLetterView:
    """A failed task that waits for a decision, until it is replayed or discarded."""

    dead_id: int
    task_id: str
    #: empty when the message never named one
    algorithm: str
    code: str
    message: str
    #: attempts that failed
    attempts: int
    created_at: datetime
    replayed_at: datetime | None = None
    discarded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class DeadLetterDetail(DeadLetterView):
    """All of a dead letter. `body` is the message as it came, when it is text; `body_base64` is it in any case."""

    history: list[HistoryEntry]
    traceback: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    body: str | None = None
    body_base64: str


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Chooses dead letters. None and empty mean any; a time without a zone is this machine's."""

    algorithm: str | None = None
    codes: Iterable[FailureCode] = ()
    task_id: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None

    def query(self) -> dict[str, str | list[str]]:
        """As parameters of a URL; `code` once for each."""
        body = self.body()
        codes = body.pop("codes", None)
        return body | ({"code": codes} if codes else {})

    def body(self) -> dict[str, Any]:
        """As JSON."""
        found = {
            "algorithm": self.algorithm,
            "codes": [FailureCode(code).value for code in self.codes] or None,
            "task_id": self.task_id,
            "created_from": time_text(self.created_from),
            "created_before": time_text(self.created_before),
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SkippedDeadLetter:
    """A dead letter that was neither replayed nor discarded, and why."""

    dead_id: int
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class DeadLettersDone:
    """How many were replayed or discarded, and which were skipped."""

    done: int
    skipped: list[SkippedDeadLetter] = field(default_factory=list)
    next: str | None = None


def time_text(time: datetime | None) -> str | None:
    """A time in ISO 8601, with its zone."""
    return None if time is None else time.astimezone().isoformat()


def from_json(kind: type[T], content: Any) -> T:
    """Parsed JSON as one of these classes. Raises ValueError or TypeError when it has another shape."""
    found: T = _read(kind, content)
    return found


def to_json(value: Any) -> Any:
    """One of these classes as JSON values, with every field."""
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, dict):
        return {name: to_json(each) for name, each in value.items()}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.value if isinstance(value, Enum) else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, content: Any) -> Any:
    if kind is Any:
        return content
    if get_origin(kind) in (Union, types.UnionType):
        return None if content is None else _read(get_args(kind)[0], content)
    if get_origin(kind) is list:
        return [_read(get_args(kind)[0], each) for each in _of(list, content)]
    if get_origin(kind) is dict:
        return _of(dict, content)
    if is_dataclass(kind):
        return _read_fields(kind, _of(dict, content))
    if kind is datetime:
        return datetime.fromisoformat(_of(str, content).replace("Z", "+00:00"))
    if issubclass(kind, Enum):
        return kind(content)
    return float(_of((int, float), content)) if kind is float else _of(kind, content)


def _read_fields(kind: Any, content: dict[str, Any]) -> Any:
    hints, values = _hints(kind), {}
    for each in fields(kind):
        if each.name in content:
            values[each.name] = _read(hints[each.name], content[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{each.name} is missing")
    return kind(**values)


def _of(kind: type[T] | tuple[type[Any], ...], content: Any) -> Any:
    if not isinstance(content, kind) or (isinstance(content, bool) and kind is not bool):
        raise ValueError(f"{content!r:.80} is not what it should be")
    return content
