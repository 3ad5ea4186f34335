"""Many rows in one statement, by `unnest` of one array for each column.

The arrays are sent as PostgreSQL's array literals: the driver's own conversion of a list costs five times as much.
Text must be free of NUL (see `messages.clean`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect
from sqlalchemy.types import UserDefinedType

from taskqueue.sql.recording import OUTCOME_COLUMNS

Item = TypeVar("Item")


def text_array(values: Sequence[str | None]) -> str:
    if len(set(values)) == 1:
        return _repeated(_quoted(values[0]), len(values))
    return "{" + ",".join([_quoted(value) for value in values]) + "}"


def bytes_array(values: Sequence[bytes | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def number_array(values: Sequence[float | None]) -> str:
    if len(set(values)) == 1:
        return _repeated(_number(values[0]), len(values))
    return "{" + ",".join([_number(value) for value in values]) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(value: float | None) -> str:
    return "NULL" if value is None else repr(value)


def _repeated(word: str, times: int) -> str:
    return "{" + f"{word}," * (times - 1) + word + "}"


#: By column: the type of its array in PostgreSQL, and how the array is written. All others are text.
_ARRAYS: Mapping[str, tuple[str, Callable[[Sequence[Any]], str]]] = MappingProxyType(
    {"attempt": ("int", number_array)}
    | dict.fromkeys(("available_at", "expires_at", "not_before", "created_at"), ("float8", number_array))
    | dict.fromkeys(("payload", "result", "body"), ("bytea", bytes_array))
)
_TEXT = ("text", text_array)


class IdArray(UserDefinedType[Sequence[str]]):
    """One parameter for any number of ids.

    It is sent with the column's type: were it cast from text, a plan without the index would parse it for each row.
    """

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARCHAR[]"

    def bind_processor(self, dialect: Dialect) -> Any:
        return text_array


#: Of one statement: an array's text is twice as long as its bytes, here and in the server.
MAX_BYTES = 4 * 1024 * 1024
MAX_ROWS = 1024


class BulkStatement:
    """A statement for many rows: `<new>` in its text becomes a table `new` of these columns."""

    def __init__(self, text: str, *columns: str) -> None:
        self.columns = columns
        arrays = ", ".join(f"%({name})s::{_ARRAYS.get(name, _TEXT)[0]}[]" for name in columns)
        self._text = text.replace("<new>", f"unnest({arrays}) AS new ({', '.join(columns)})")
        self._encoders = tuple(_ARRAYS.get(name, _TEXT)[1] for name in columns)

    def execute(self, connection: Connection, rows: Sequence[tuple[Any, ...]], **more: Any) -> set[str]:
        """Writes the rows, in their order, and returns the ids that the statement returns.

        `rows` have the order of `columns`; `more` are the statement's other parameters.
        """
        done: set[str] = set()
        for part in split(rows, _size, MAX_BYTES, MAX_ROWS):
            values = zip(self.columns, self._encoders, zip(*part, strict=True), strict=True)
            parameters = {name: encode(column) for name, encode, column in values}
            result = connection.exec_driver_sql(self._text, parameters | more)
            if result.returns_rows:
                done.update(result.scalars())
        return done


def split(
    items: Sequence[Item], size: Callable[[Item], int], max_size: int, max_items: float = math.inf
) -> Iterator[list[Item]]:
    """The items in as few lists as possible, each within both limits or of one item."""
    part: list[Item] = []
    total = 0
    for item in items:
        more = size(item)
        if part and (total + more > max_size or len(part) == max_items):
            yield part
            part, total = [], 0
        part.append(item)
        total += more
    if part:
        yield part


def _size(row: tuple[Any, ...]) -> int:
    return sum([len(value) for value in row if isinstance(value, bytes)])


_TASK = ("id", "algorithm", "payload", "digest", "expires_at", "reply_to", "correlation_id", "submitted_by")

#: Outcomes as whole rows with their final values, inserted, or written over what is there if the fence lets them.
#: `attempt` of a retry is the next attempt; the fence is about the one that failed. Another task under the same id,
#: which a controller may take before the row is there, never ends this one.
RECORD = BulkStatement(
    """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at, finished_at,
                   expires_at, result, error_code, error_message, history, runner, reply_to, correlation_id,
                   submitted_by)
SELECT id, algorithm, payload, digest, state, attempt, available_at, %(now)s, %(now)s,
       CASE WHEN available_at IS NULL THEN %(now)s::float8 END,
       expires_at, result, error_code, error_message, history, runner, reply_to, correlation_id, submitted_by
FROM <new>
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempt = excluded.attempt, available_at = excluded.available_at, receipt = NULL,
    updated_at = excluded.updated_at, finished_at = excluded.finished_at, result = excluded.result,
    error_code = excluded.error_code, error_message = excluded.error_message,
    history = coalesce(excluded.history, tasks.history), runner = coalesce(excluded.runner, tasks.runner),
    delivery_count = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.delivery_count ELSE 0 END,
    placed_attempt = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_attempt END,
    placed_runner = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_runner END,
    placed_boot = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_boot END,
    progress_fraction = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.progress_fraction END,
    progress_message = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.progress_message END
WHERE tasks.finished_at IS NULL AND tasks.digest = excluded.digest
  AND tasks.attempt <= excluded.attempt - CASE WHEN excluded.finished_at IS NULL THEN 1 ELSE 0 END
RETURNING id
""",
    *_TASK,
    *OUTCOME_COLUMNS,
)

#: The ids of deliveries that must not simply be started; see `TaskStore.rows_that_forbid_start`.
UNUSUAL = BulkStatement(
    """
SELECT tasks.id FROM <new> JOIN tasks ON tasks.id = new.id
WHERE tasks.finished_at IS NOT NULL OR tasks.cancel_requested OR tasks.placed_attempt IS NOT NULL
   OR tasks.history IS NOT NULL OR tasks.attempt <> new.attempt OR tasks.digest <> new.digest
   OR tasks.task_group IS NOT NULL
""",
    "id",
    "attempt",
    "digest",
)

#: Tasks that a gateway has just sent; the rows of known ones stay as they are.
ADMIT = BulkStatement(
    """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at,
                   expires_at, reply_to, correlation_id, submitted_by)
SELECT id, algorithm, payload, digest, 'queued', 1, 0, %(now)s, %(now)s, expires_at, reply_to, correlation_id,
       submitted_by
FROM <new>
ON CONFLICT (id) DO NOTHING
RETURNING id
""",
    *_TASK,
)

#: Tasks that wait here for their turn or their time.
ADMIT_IN_TURN = BulkStatement(
    """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at,
                   expires_at, reply_to, correlation_id, submitted_by, task_group, not_before)
SELECT id, algorithm, payload, digest, 'queued', 1,
       CASE WHEN not_before > %(now)s THEN extract(epoch FROM clock_timestamp()) + not_before - %(now)s ELSE -1 END,
       %(now)s, %(now)s, expires_at, reply_to, correlation_id, submitted_by, task_group, not_before
FROM <new>
ON CONFLICT (id) DO NOTHING
RETURNING id
""",
    *_TASK,
    "task_group",
    "not_before",
)

#: Runs that have a runner; with an empty boot id no controller can attach to them, without a runner they wait again.
#: The lease of a task that was claimed here is not touched.
PLACE = BulkStatement(
    """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at,
                   expires_at, placed_attempt, placed_runner, placed_boot, runner, reply_to, correlation_id,
                   submitted_by)
SELECT id, algorithm, payload, digest, CASE WHEN runner <> '' THEN 'running' ELSE 'queued' END, attempt,
       %(now)s, %(now)s, %(now)s, expires_at,
       CASE WHEN boot <> '' THEN attempt END, CASE WHEN boot <> '' THEN runner END, nullif(boot, ''),
       nullif(runner, ''), reply_to, correlation_id, submitted_by
FROM <new>
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempt = excluded.attempt,
    available_at = CASE WHEN tasks.task_group IS NULL THEN excluded.available_at ELSE tasks.available_at END,
    placed_attempt = excluded.placed_attempt, placed_runner = excluded.placed_runner,
    placed_boot = excluded.placed_boot, runner = excluded.runner, updated_at = excluded.updated_at
WHERE tasks.finished_at IS NULL AND tasks.digest = excluded.digest AND tasks.attempt <= excluded.attempt
""",
    *_TASK,
    "attempt",
    "runner",
    "boot",
)

#: A dead letter belongs to whom its task does; that of a conflict, which has another digest, to nobody.
INSERT_DEAD_LETTERS = BulkStatement(
    """
INSERT INTO dead_letters (task_id, algorithm, code, message, traceback, body, headers, history, created_at,
                          submitted_by)
SELECT new.task_id, new.algorithm, new.code, new.message, new.traceback, new.body, new.headers, new.history,
       new.created_at, (SELECT submitted_by FROM tasks WHERE tasks.id = new.task_id AND tasks.digest = new.digest)
FROM <new>
""",
    "task_id",
    "algorithm",
    "code",
    "message",
    "traceback",
    "body",
    "headers",
    "history",
    "created_at",
    "digest",
)
