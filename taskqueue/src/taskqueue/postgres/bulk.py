"""Many rows in one statement, by `unnest` of one array for each column.

The arrays are sent as PostgreSQL's array literals: the driver's own conversion of a list costs five times as much.
Text must be free of NUL (see `rows.clean`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.types import UserDefinedType


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


#: Outcomes as whole rows with their final values, inserted, or written over what is there if the fence lets them.
#: `attempt` of a retry is the next attempt; the fence is about the one that failed. Another task under the same id,
#: which a controller may take before the row is there, never ends this one.
RECORD = """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at, finished_at,
                   expires_at, result, error_code, error_message, history, runner, reply_to, correlation_id)
SELECT id, algorithm, payload, digest, state, attempt, available_at, %(now)s, %(now)s,
       CASE WHEN available_at IS NULL THEN %(now)s::float8 END,
       expires_at, result, error_code, error_message, history, runner, reply_to, correlation_id
FROM unnest(%(id)s::text[], %(algorithm)s::text[], %(payload)s::bytea[], %(digest)s::text[], %(state)s::text[],
            %(attempt)s::int[], %(available_at)s::float8[], %(expires_at)s::float8[], %(result)s::bytea[],
            %(error_code)s::text[], %(error_message)s::text[], %(history)s::text[], %(runner)s::text[],
            %(reply_to)s::text[], %(correlation_id)s::text[])
  AS new (id, algorithm, payload, digest, state, attempt, available_at, expires_at, result,
          error_code, error_message, history, runner, reply_to, correlation_id)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempt = excluded.attempt, available_at = excluded.available_at, receipt = NULL,
    updated_at = excluded.updated_at, finished_at = excluded.finished_at, result = excluded.result,
    error_code = excluded.error_code, error_message = excluded.error_message,
    history = coalesce(excluded.history, tasks.history), runner = coalesce(excluded.runner, tasks.runner),
    placed_attempt = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_attempt END,
    placed_runner = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_runner END,
    placed_boot = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.placed_boot END,
    progress_fraction = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.progress_fraction END,
    progress_message = CASE WHEN excluded.finished_at IS NOT NULL THEN tasks.progress_message END
WHERE tasks.finished_at IS NULL AND tasks.digest = excluded.digest
  AND tasks.attempt <= excluded.attempt - CASE WHEN excluded.finished_at IS NULL THEN 1 ELSE 0 END
RETURNING id
"""

#: Tasks that a gateway has just sent; the rows of known ones stay as they are.
ADMIT = """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at,
                   expires_at, reply_to, correlation_id)
SELECT id, algorithm, payload, digest, 'queued', 1, 0, %(now)s, %(now)s, expires_at, reply_to, correlation_id
FROM unnest(%(id)s::text[], %(algorithm)s::text[], %(payload)s::bytea[], %(digest)s::text[], %(expires_at)s::float8[],
            %(reply_to)s::text[], %(correlation_id)s::text[])
  AS new (id, algorithm, payload, digest, expires_at, reply_to, correlation_id)
ON CONFLICT (id) DO NOTHING
RETURNING id
"""

#: Runs that have a runner; with an empty boot id no controller can attach to them, without a runner they wait again.
PLACE = """
INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at, updated_at,
                   expires_at, placed_attempt, placed_runner, placed_boot, runner, reply_to, correlation_id)
SELECT id, algorithm, payload, digest, CASE WHEN runner <> '' THEN 'running' ELSE 'queued' END, attempt,
       %(now)s, %(now)s, %(now)s, expires_at,
       CASE WHEN boot <> '' THEN attempt END, CASE WHEN boot <> '' THEN runner END, nullif(boot, ''),
       nullif(runner, ''), reply_to, correlation_id
FROM unnest(%(id)s::text[], %(algorithm)s::text[], %(payload)s::bytea[], %(digest)s::text[], %(attempt)s::int[],
            %(expires_at)s::float8[], %(runner)s::text[], %(boot)s::text[], %(reply_to)s::text[],
            %(correlation_id)s::text[])
  AS new (id, algorithm, payload, digest, attempt, expires_at, runner, boot, reply_to, correlation_id)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempt = excluded.attempt, available_at = excluded.available_at,
    placed_attempt = excluded.placed_attempt, placed_runner = excluded.placed_runner,
    placed_boot = excluded.placed_boot, runner = excluded.runner, updated_at = excluded.updated_at
WHERE tasks.finished_at IS NULL AND tasks.digest = excluded.digest AND tasks.attempt <= excluded.attempt
"""

INSERT_DEAD_LETTERS = """
INSERT INTO dead_letters (task_id, algorithm, code, message, traceback, body, headers, history, created_at)
SELECT * FROM unnest(%(task_id)s::text[], %(algorithm)s::text[], %(code)s::text[], %(message)s::text[],
                     %(traceback)s::text[], %(body)s::bytea[], %(headers)s::text[], %(history)s::text[],
                     %(created_at)s::float8[])
"""

_Column = Callable[[Sequence[Any]], str]
_NUMBERS = ("attempt", "available_at", "expires_at", "created_at")
_BYTES = ("payload", "result", "body")


def _arrays(*names: str) -> Mapping[str, _Column]:
    return MappingProxyType(
        {name: number_array if name in _NUMBERS else bytes_array if name in _BYTES else text_array for name in names}
    )


#: By column, in the order of the tuples that `write_rows` takes: how its values become one parameter.
TASK_ARRAYS = _arrays("id", "algorithm", "payload", "digest", "expires_at", "reply_to", "correlation_id")
RECORD_ARRAYS = _arrays(
    *TASK_ARRAYS, "state", "attempt", "available_at", "result", "error_code", "error_message", "history", "runner"
)
PLACE_ARRAYS = _arrays(*TASK_ARRAYS, "attempt", "runner", "boot")
DEAD_LETTER_ARRAYS = _arrays(
    "task_id", "algorithm", "code", "message", "traceback", "body", "headers", "history", "created_at"
)


#: Of one statement: an array's text is twice as long as its bytes, here and in the server.
MAX_BYTES = 4 * 1024 * 1024
MAX_ROWS = 1024


def write_rows(
    connection: Connection,
    statement: str,
    arrays: Mapping[str, _Column],
    rows: Sequence[tuple[Any, ...]],
    **more: Any,
) -> set[str]:
    """Runs the statement for all rows, in their order, and returns the ids that it returns."""
    done: set[str] = set()
    for part in _portions(rows):
        columns = zip(*part, strict=True)
        parameters = {name: array(values) for (name, array), values in zip(arrays.items(), columns, strict=True)}
        result = connection.exec_driver_sql(statement, parameters | more)
        if result.returns_rows:
            done.update(result.scalars())
    return done


def _portions(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    part: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        more = sum([len(value) for value in row if isinstance(value, bytes)])
        if part and (size + more > MAX_BYTES or len(part) == MAX_ROWS):
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    yield part
