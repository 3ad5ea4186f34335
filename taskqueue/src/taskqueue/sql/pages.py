"""Lists of tasks, dead letters and the audit in pages: keyset pagination down the primary key, in bounded steps.

No index fits every filter, and each one more would cost every task something. Rows that do not match are passed over
instead, for a fifth of a second; then the page ends where it is, and the next one goes on from there.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, false, func, or_, select

from runnerlib.contract import FailureCode, TaskState, strict_json
from taskqueue.messages import parse_history
from taskqueue.sql.rows import PENDING_REASON, AnyRow, failure_code, group_name, progress
from taskqueue.sql.tables import audit, dead_letters, tasks
from taskqueue.tasks import (
    MAX_SUMMARY_CHARACTERS,
    DeadFilter,
    DeadSummary,
    Page,
    TaskFilter,
    TaskSummary,
    shortened,
)
from taskqueue.tokens import AuditEntry, AuditFilter, Reach

Item = TypeVar("Item")
Value = TypeVar("Value")

#: A page takes no longer than this and one more step.
PAGE_SECONDS = 0.2
#: Rows of the first step, or as many as are asked for; each following one has so many times more,
FIRST_STEP = 256
STEP_GROWTH = 4
#: unless the one before took this long: rows with large contents are passed over slowly.
SLOW_STEP_SECONDS = 0.02
#: Rows are in the order of their creation but for this: clocks differ, and are set.
CLOCK_SECONDS = 60.0


class Read(Protocol):
    """Calls a function with a reading connection; other readers have their turn between two calls."""

    def __call__(self, function: Callable[[Connection], Value], /) -> Awaitable[Value]: ...


@dataclass(frozen=True, slots=True)
class KeysetQuery(Generic[Item]):
    """Which rows of `table` to list, newest first. Its primary key is the first of `columns`.

    `within`: conditions for which there is an index with the primary key, so that other rows are not passed over.
    `is_indexed`: an index finds the rows that meet the conditions, so that one step is enough.
    """

    table: Table
    columns: Sequence[ColumnElement[Any]]
    item: Callable[[AnyRow], Item]
    conditions: Sequence[ColumnElement[bool]] = ()
    created_from: float | None = None
    created_before: float | None = None
    is_indexed: bool = False
    within: Sequence[ColumnElement[bool]] = ()

    def items(self, rows: Sequence[AnyRow]) -> tuple[Item, ...]:
        return tuple(self.item(row) for row in rows)


async def read_page(read: Read, query: KeysetQuery[Item], limit: int, before: int | None) -> Page[Item]:
    """Up to `limit` items, from below the key `before`, or from the newest."""
    ends_at = time.monotonic() + PAGE_SECONDS
    lowest, top = await read(lambda connection: _key_range(connection, query, before))
    found: list[AnyRow] = []
    step = max(FIRST_STEP, limit + 1)
    while top is not None and top >= lowest:
        began = time.monotonic()
        floor = lowest - 1 if query.is_indexed else max(lowest, top - step + 1) - 1
        most = limit + 1 - len(found)
        rows, following = await read(_step(query, top, floor, lowest, most))
        found += rows
        if len(found) > limit:
            # one more than asked for: there is a next page
            return Page(query.items(found[:limit]), found[limit - 1][0])
        if following is None:
            break
        if time.monotonic() >= ends_at:
            return Page(query.items(found), following + 1)
        step = step * STEP_GROWTH if time.monotonic() - began < SLOW_STEP_SECONDS else max(step // 2, FIRST_STEP)
        top = following
    return Page(query.items(found))


def _step(
    query: KeysetQuery[Any], top: int, floor: int, lowest: int, most: int
) -> Callable[[Connection], tuple[Sequence[AnyRow], int | None]]:
    """Reads the rows from `top` down to above `floor`, and the key to go on from."""
    key = query.columns[0]
    conditions = list(query.conditions)
    if query.created_from is not None:
        conditions.append(query.table.c.created_at >= query.created_from)
    if query.created_before is not None:
        conditions.append(query.table.c.created_at < query.created_before)
    rows = select(*query.columns).where(*query.within, key <= top, key > floor, *conditions)
    newest = rows.order_by(key.desc()).limit(most)
    following = select(func.max(key)).where(*query.within, key <= floor, key >= lowest)
    return lambda connection: (connection.execute(newest).all(), connection.scalar(following))


def _key_range(connection: Connection, query: KeysetQuery[Any], before: int | None) -> tuple[int, int | None]:
    """The lowest and the highest key to look at; the highest is None if there are no rows."""
    key = query.columns[0]
    # two statements: SQLite takes either from the end of the table, but reads all of it for both
    least, most = (connection.scalar(select(end).where(*query.within)) for end in (func.min(key), func.max(key)))
    if least is None or most is None:
        return 0, None
    top = most if before is None else min(most, before - 1)
    if query.created_before is not None:
        top = min(top, _first_key_since(connection, query, query.created_before + CLOCK_SECONDS, least, most) - 1)
    if query.created_from is not None:
        least = _first_key_since(connection, query, query.created_from - CLOCK_SECONDS, least, most)
    return least, top


def _first_key_since(connection: Connection, query: KeysetQuery[Any], since: float, least: int, most: int) -> int:
    """The first key whose row was created at or after that time, by bisection; `most` + 1 if there is none."""
    key, above = query.columns[0], most + 1
    while least < above:
        middle = (least + above) // 2
        last = select(key, query.table.c.created_at).where(key <= middle).order_by(key.desc()).limit(1)
        row = connection.execute(last).first()
        if row is None or row[1] < since:
            least = middle + 1
        else:
            above = row[0]
    return least


def _reachable(table: Table, reach: Reach) -> list[ColumnElement[bool]]:
    """What `Reach.includes` says, as a condition. `*` and `?` are all that patterns have."""
    if reach.others and not reach.algorithms:
        return []
    fitting: list[ColumnElement[bool]] = []
    if reach.owner is not None:
        fitting.append(table.c.submitted_by == reach.owner)
    if reach.others:
        for pattern in reach.algorithms:
            like = pattern.replace("_", "\\_").replace("*", "%").replace("?", "_")
            fitting.append(table.c.algorithm.like(like, escape="\\"))
    return [or_(false(), *fitting)]


def _within(table: Table, reach: Reach) -> list[ColumnElement[bool]]:
    """The rows of a token that sees no others': it must not learn from an empty page that there are some."""
    return [] if reach.others or reach.owner is None else [table.c.submitted_by == reach.owner]


def _shortened(column: Column[str]) -> ColumnElement[str]:
    return func.substr(column, 1, MAX_SUMMARY_CHARACTERS + 1).label(column.name)


_TASK_SUMMARY: tuple[ColumnElement[Any], ...] = (
    tasks.c.seq,
    tasks.c.id,
    tasks.c.algorithm,
    tasks.c.state,
    tasks.c.attempt,
    tasks.c.created_at,
    tasks.c.updated_at,
    tasks.c.finished_at,
    tasks.c.expires_at,
    tasks.c.error_code,
    _shortened(tasks.c.error_message),
    tasks.c.runner,
    tasks.c.cancel_requested,
    tasks.c.progress_fraction,
    tasks.c.progress_message,
    tasks.c.replays,
    tasks.c.task_group,
    tasks.c.not_before,
    PENDING_REASON,
)
_DEAD_SUMMARY: tuple[ColumnElement[Any], ...] = (
    dead_letters.c.dead_id,
    dead_letters.c.task_id,
    dead_letters.c.algorithm,
    dead_letters.c.code,
    _shortened(dead_letters.c.message),
    dead_letters.c.history,
    dead_letters.c.created_at,
    dead_letters.c.replayed_at,
    dead_letters.c.discarded_at,
    dead_letters.c.submitted_by,
)


_AUDIT_ENTRY: tuple[ColumnElement[Any], ...] = (
    audit.c.audit_id,
    audit.c.created_at,
    audit.c.who,
    audit.c.action,
    audit.c.params,
    audit.c.count,
    audit.c.ids,
    audit.c.client,
)


def tasks_query(wanted: TaskFilter) -> KeysetQuery[TaskSummary]:
    # a tombstone has no digest
    conditions: list[ColumnElement[bool]] = [tasks.c.digest != "", *_reachable(tasks, wanted.reach)]
    if wanted.algorithm is not None:
        conditions.append(tasks.c.algorithm == wanted.algorithm)
    if wanted.states:
        conditions.append(tasks.c.state.in_(sorted(state.value for state in wanted.states)))
    created = (wanted.created_from, wanted.created_before)
    within = _within(tasks, wanted.reach)
    return KeysetQuery(tasks, _TASK_SUMMARY, _task_summary, conditions, *created, within=within)


def dead_letters_query(wanted: DeadFilter) -> KeysetQuery[DeadSummary]:
    conditions = _reachable(dead_letters, wanted.reach)
    if wanted.algorithm is not None:
        conditions.append(dead_letters.c.algorithm == wanted.algorithm)
    if wanted.codes:
        conditions.append(dead_letters.c.code.in_(sorted(code.value for code in wanted.codes)))
    if wanted.task_id is not None:
        conditions.append(dead_letters.c.task_id == wanted.task_id)
    if wanted.waiting_only:
        conditions.append(and_(dead_letters.c.replayed_at.is_(None), dead_letters.c.discarded_at.is_(None)))
    created = (wanted.created_from, wanted.created_before)
    by_task = wanted.task_id is not None
    return KeysetQuery(
        dead_letters,
        _DEAD_SUMMARY,
        _dead_summary,
        conditions,
        *created,
        is_indexed=by_task,
        within=_within(dead_letters, wanted.reach),
    )


def audit_query(wanted: AuditFilter) -> KeysetQuery[AuditEntry]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.who is not None:
        conditions.append(audit.c.who == wanted.who)
    if wanted.action is not None:
        conditions.append(audit.c.action == wanted.action)
    return KeysetQuery(audit, _AUDIT_ENTRY, _audit_entry, conditions, wanted.created_from, wanted.created_before)


def _task_summary(row: AnyRow) -> TaskSummary:
    values = dict(row._mapping)
    values["state"] = TaskState(row.state)
    values["error_code"] = failure_code(row.error_code)
    values["error_message"] = None if row.error_message is None else shortened(row.error_message)
    values["group"] = group_name(values.pop("task_group"))
    values["progress"] = progress(values.pop("progress_fraction"), values.pop("progress_message"))
    return TaskSummary(**values)


def _dead_summary(row: AnyRow) -> DeadSummary:
    values = dict(row._mapping)
    values["code"] = FailureCode(row.code)
    values["message"] = shortened(row.message)
    values["attempts"] = len(parse_history(values.pop("history")))
    return DeadSummary(**values)


def _audit_entry(row: AnyRow) -> AuditEntry:
    values = dict(row._mapping)
    values["params"] = strict_json.loads(row.params)
    values["ids"] = tuple(strict_json.loads(row.ids))
    return AuditEntry(**values)
