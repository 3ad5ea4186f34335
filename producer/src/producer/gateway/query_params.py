"""The query parameters and request bodies of lists and of calls on many tasks or dead letters, with their cursors."""

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from runnerlib.contract import (
    ALGORITHM_PATTERN,
    GROUP_PATTERN,
    TASK_ID_PATTERN,
    FailureCode,
    TaskState,
    is_algorithm,
    is_group,
    is_task_id,
)
from runnerlib.contract.envelope import (
    DELAY_RULE,
    EXPIRES_LATER_RULE,
    GROUP_RULE,
    MAX_DELAY_SECONDS,
    MAX_EXPIRES_SECONDS,
)
from taskqueue.tasks import DeadFilter, TaskFilter

MAX_PAGE_SIZE = 1000
MAX_LOOKUP_IDS = 100
#: No counter gets this far, and every JSON reader keeps integers up to here exact.
MAX_DEAD_ID = 2**53 - 1

#: What the fields of a task mean, in a message and as parameters.
EXPIRES_MEANING = "A task that has not started by then fails as `expired`."
DELAY_MEANING = "Its first attempt starts no earlier than so many seconds after it was submitted."
GROUP_MEANING = "Whom it is for: the groups of an algorithm take turns."

#: A little more than half a microsecond.
_ROUNDING_SECONDS = 0.75e-6
_DATE_START = re.compile(r"\d{4}-\d\d-\d\d($|[Tt ])")
#: An unescaped + of +02:00 in a URL arrives as a space.
_UNESCAPED_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:\d\d)$")


@dataclass(frozen=True, slots=True)
class CursorKind:
    """Opaque cursors of one list. `letter` keeps a cursor from being accepted by another list.

    The pattern is in the OpenAPI document, so that clients and fuzzers can tell what is not a cursor.
    """

    letter: str

    @property
    def pattern(self) -> str:
        """Positions are signed 64-bit integers above 0; 18 digits always fit."""
        return f"^{self.letter}[1-9][0-9]{{0,17}}$"

    def write(self, position: int | None) -> str | None:
        return None if position is None else f"{self.letter}{position}"

    def read(self, cursor: Any) -> int:
        """Raises ValueError if the list never returned this cursor."""
        if not isinstance(cursor, str) or not re.fullmatch(self.pattern.strip("^$"), cursor, re.ASCII):
            raise ValueError("must be the 'next' of the page before, as it was told")
        return int(cursor[len(self.letter) :])


TASK_CURSOR = CursorKind("t")
DEAD_LETTER_CURSOR = CursorKind("d")


def _date(value: Any) -> Any:
    """Numbers are refused: 1700000000 may be seconds or milliseconds."""
    if not isinstance(value, str) or not _DATE_START.match(value):
        raise ValueError("must be a time such as 2026-05-31T12:00:00Z")
    return _UNESCAPED_PLUS.sub(r"\1+\2", value)


def _aware(value: datetime) -> datetime:
    """A time without a zone is UTC."""
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)


def _algorithm(value: str) -> str:
    if not is_algorithm(value):
        raise ValueError("must be an algorithm's name: lower-case letters, digits and _, at most 63 characters")
    return value


def _task_id(value: str) -> str:
    if not is_task_id(value):
        raise ValueError("must be a task id: 1 to 128 of A-Z a-z 0-9 . _ : -")
    return value


def _group(value: str) -> str:
    if not is_group(value):
        raise ValueError(GROUP_RULE)
    return value


def _delay(value: float) -> float:
    if not 0 <= value <= MAX_DELAY_SECONDS:
        raise ValueError(DELAY_RULE)
    return value


def _number(value: Any) -> Any:
    """In JSON 1.0 is an integer, too; "1" and true are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a whole number")
    return value


def cursor_schema(kind: CursorKind) -> WithJsonSchema:
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
Group = Annotated[str, AfterValidator(_group), WithJsonSchema({"type": "string", "pattern": f"^{GROUP_PATTERN}$"})]
Delay = Annotated[
    float,
    AfterValidator(_delay),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_DELAY_SECONDS}),
]
TaskCursor = Annotated[int, BeforeValidator(TASK_CURSOR.read), cursor_schema(TASK_CURSOR)]
DeadLetterCursor = Annotated[int, BeforeValidator(DEAD_LETTER_CURSOR.read), cursor_schema(DEAD_LETTER_CURSOR)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)]


class Params(BaseModel):
    """A query, or an object in a body. What is not declared is refused."""

    model_config = ConfigDict(extra="forbid")


class SubmitQuery(Params):
    """Where the payload alone is the body: the other fields of a message, but for its id."""

    # comes first: what expires is compared with it
    delay_seconds: Delay | None = Field(default=None, description=DELAY_MEANING)
    expires_seconds: float | None = Field(default=None, gt=0, le=MAX_EXPIRES_SECONDS, description=EXPIRES_MEANING)
    group: Group | None = Field(default=None, description=GROUP_MEANING)

    @field_validator("expires_seconds")
    @classmethod
    def _is_after_the_delay(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        delay = info.data.get("delay_seconds")
        if seconds is not None and delay is not None and delay >= seconds:
            raise ValueError(EXPIRES_LATER_RULE)
        return seconds


class TaskQuery(Params):
    """``GET /tasks``."""

    algorithm: Algorithm | None = None
    state: list[TaskState] = Field(default=[], description="One of these; may be given more than once.")
    created_from: Instant | None = None
    created_before: Instant | None = None
    limit: Limit = 100
    cursor: TaskCursor | None = None

    def as_filter(self) -> TaskFilter:
        return TaskFilter(self.algorithm, frozenset(self.state), *_period(self))


class TasksByIds(Params):
    """Some tasks, by their ids."""

    ids: list[Annotated[TaskId, Field(strict=True)]] = Field(max_length=MAX_LOOKUP_IDS)


class DeadQuery(Params):
    """``GET /dead``."""

    algorithm: Algorithm | None = None
    code: list[FailureCode] = Field(default=[], description="One of these; may be given more than once.")
    task_id: TaskId | None = None
    created_from: Instant | None = None
    created_before: Instant | None = None
    all: bool = Field(default=False, description="Also those that were replayed or discarded.")
    limit: Limit = 100
    cursor: DeadLetterCursor | None = None

    def as_filter(self) -> DeadFilter:
        codes = frozenset(self.code)
        return DeadFilter(self.algorithm, codes, self.task_id, *_period(self), waiting_only=not self.all)


class DeadChoice(Params):
    """Which open dead letters are meant; without anything: all of them."""

    algorithm: Algorithm | None = None
    codes: list[FailureCode] = []
    task_id: TaskId | None = None
    created_from: Instant | None = None
    created_before: Instant | None = None

    def as_filter(self) -> DeadFilter:
        return DeadFilter(self.algorithm, frozenset(self.codes), self.task_id, *_period(self))


class DeadByIds(Params):
    """Some dead letters, by their ids."""

    ids: list[Annotated[int, Field(ge=1, le=MAX_DEAD_ID), BeforeValidator(_number)]] = Field(max_length=MAX_PAGE_SIZE)


class DeadByFilter(Params):
    """All open dead letters that fit, page by page, the newest first."""

    filter: DeadChoice
    limit: Annotated[Limit, BeforeValidator(_number)] = MAX_PAGE_SIZE
    cursor: DeadLetterCursor | None = None


def _period(params: TaskQuery | DeadQuery | DeadChoice) -> tuple[float | None, float | None]:
    """`created_from` and `created_before` in seconds since the epoch.

    Responses show whole microseconds of times that are stored more finely. A time copied from a response must include
    the task that it came from, so both bounds are moved back by more than the rounding.
    """
    return seconds_of(params.created_from), seconds_of(params.created_before)


def seconds_of(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp() - _ROUNDING_SECONDS
