"""What a client may ask for: the parameters of lists and of calls on many dead letters, as they come."""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from producer.gateway.cursors import DEAD_LETTERS, TASKS, CursorKind
from runnerlib.contract import ALGORITHM_PATTERN, TASK_ID_PATTERN, FailureCode, TaskState, is_algorithm, is_task_id
from runnerlib.contract.envelope import MAX_EXPIRES_SECONDS
from taskqueue.tasks import DeadFilter, TaskFilter

MOST_IN_PAGE = 1000
#: No counter gets that far, and every reader of JSON can tell it from its neighbours.
LAST_DEAD_ID = 2**53 - 1

#: A little more than half a microsecond.
_ROUNDING_SECONDS = 0.75e-6
_BEGINS_AS_DATE = re.compile(r"\d{4}-\d\d-\d\d($|[Tt ])")
#: An unescaped + of +02:00 in a URL arrives as a space.
_SPOILT_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:\d\d)$")


def _date(value: Any) -> Any:
    """No numbers: 1700000000 may be seconds or milliseconds."""
    if not isinstance(value, str) or not _BEGINS_AS_DATE.match(value):
        raise ValueError("must be a time such as 2026-05-31T12:00:00Z")
    return _SPOILT_PLUS.sub(r"\1+\2", value)


def _aware(value: datetime) -> datetime:
    """A time without a zone is one of UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)


def _algorithm(value: str) -> str:
    if not is_algorithm(value):
        raise ValueError("must be an algorithm's name: lower-case letters, digits and _, at most 63 characters")
    return value


def _task_id(value: str) -> str:
    if not is_task_id(value):
        raise ValueError("must be a task id: 1 to 128 of A-Z a-z 0-9 . _ : -")
    return value


def _number(value: Any) -> Any:
    """In JSON 1.0 is an integer, too; "1" and true are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a whole number")
    return value


def _place_in(kind: CursorKind) -> Callable[[Any], int]:
    def place(value: Any) -> int:
        return kind.read(value if isinstance(value, str) else "")

    return place


def _as_cursor(kind: CursorKind) -> WithJsonSchema:
    about = "The `next` of the page before; without it, the newest."
    return WithJsonSchema({"type": "string", "pattern": kind.pattern, "description": about})


Instant = Annotated[
    datetime,
    BeforeValidator(_date),
    AfterValidator(_aware),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Algorithm = Annotated[
    str, AfterValidator(_algorithm), WithJsonSchema({"type": "string", "pattern": f"^{ALGORITHM_PATTERN}$"})
]
TaskId = Annotated[str, AfterValidator(_task_id), WithJsonSchema({"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"})]
TaskPlace = Annotated[int, BeforeValidator(_place_in(TASKS)), _as_cursor(TASKS)]
DeadPlace = Annotated[int, BeforeValidator(_place_in(DEAD_LETTERS)), _as_cursor(DEAD_LETTERS)]
Limit = Annotated[int, Field(ge=1, le=MOST_IN_PAGE)]


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExpiresQuery(_Wanted):
    """Of a payload that comes alone."""

    expires_seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_EXPIRES_SECONDS,
        description="A task that has not started by then fails as `expired`.",
    )


class TaskQuery(_Wanted):
    """``GET /tasks``."""

    algorithm: Algorithm | None = None
    state: list[TaskState] = Field(default=[], description="One of these; may be given more than once.")
    created_from: Instant | None = None
    created_before: Instant | None = None
    limit: Limit = 100
    cursor: TaskPlace | None = None

    def as_filter(self) -> TaskFilter:
        return TaskFilter(
            self.algorithm, frozenset(self.state), _seconds(self.created_from), _seconds(self.created_before)
        )


class DeadQuery(_Wanted):
    """``GET /dead``."""

    algorithm: Algorithm | None = None
    code: list[FailureCode] = Field(default=[], description="One of these; may be given more than once.")
    task_id: TaskId | None = None
    created_from: Instant | None = None
    created_before: Instant | None = None
    all: bool = Field(default=False, description="Also those that were replayed or discarded.")
    limit: Limit = 100
    cursor: DeadPlace | None = None

    def as_filter(self) -> DeadFilter:
        return DeadFilter(
            self.algorithm,
            frozenset(self.code),
            self.task_id,
            _seconds(self.created_from),
            _seconds(self.created_before),
            waiting_only=not self.all,
        )


class DeadChoice(_Wanted):
    """Which open dead letters are meant; without anything: all of them."""

    algorithm: Algorithm | None = None
    codes: list[FailureCode] = []
    task_id: TaskId | None = None
    created_from: Instant | None = None
    created_before: Instant | None = None

    def as_filter(self) -> DeadFilter:
        return DeadFilter(
            self.algorithm,
            frozenset(self.codes),
            self.task_id,
            _seconds(self.created_from),
            _seconds(self.created_before),
        )


class DeadByIds(_Wanted):
    """Some dead letters, by their ids."""

    ids: list[Annotated[int, Field(ge=1, le=LAST_DEAD_ID), BeforeValidator(_number)]] = Field(max_length=MOST_IN_PAGE)


class DeadByFilter(_Wanted):
    """All open dead letters that fit, page by page, the newest first."""

    filter: DeadChoice
    limit: Annotated[Limit, BeforeValidator(_number)] = MOST_IN_PAGE
    cursor: DeadPlace | None = None


def _seconds(time: datetime | None) -> float | None:
    """Times are told in whole microseconds and kept more finely: what was told is not after the time it was told of."""
    return None if time is None else time.timestamp() - _ROUNDING_SECONDS
