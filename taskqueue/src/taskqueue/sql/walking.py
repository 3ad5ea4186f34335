"""Pages of lists that may be long: walks back through the primary key in steps of bounded work.

No index fits every filter, and each one more would cost every task something. Rows that are not wanted are passed
over instead, for a fifth of a second; then the page ends where it is, and the next one goes on from there.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, func, select

from taskqueue.sql.rows import AnyRow
from taskqueue.tasks import Page

Item = TypeVar("Item")
Value = TypeVar("Value")

#: A page is not longer under way than this and one more step.
PAGE_SECONDS = 0.2
#: Rows of the first step, or as many as are asked for; each following one has so many times more,
FIRST_STEP = 256
STEP_GROWTH = 4
#: unless the one before took this long: rows with large contents are passed over slowly.
SLOW_STEP_SECONDS = 0.02
#: Rows are in the order of their creation but for this: clocks differ, and are set.
CLOCK_SECONDS = 60.0


class Read(Protocol):
    """Calls a function with a reading connection; each call lets others have their turn."""

    def __call__(self, function: Callable[[Connection], Value], /) -> Awaitable[Value]: ...


@dataclass(frozen=True, slots=True)
class Walk(Generic[Item]):
    """What to look for: rows of `table`, whose primary key is the first of `columns`, newest first.

    `few`: the conditions find their rows by an index, and need no steps.
    """

    table: Table
    columns: Sequence[ColumnElement[Any]]
    item: Callable[[AnyRow], Item]
    conditions: Sequence[ColumnElement[bool]] = ()
    created_from: float | None = None
    created_before: float | None = None
    few: bool = False


async def walk_page(read: Read, walk: Walk[Item], limit: int, before: int | None) -> Page[Item]:
    """Up to `limit` of what it looks for, from below the key `before`, or from the newest."""
    ends_at = time.monotonic() + PAGE_SECONDS
    lowest, top = await read(lambda connection: _bounds(connection, walk, before))
    found: list[AnyRow] = []
    step = max(FIRST_STEP, limit + 1)
    while top is not None and top >= lowest:
        began = time.monotonic()
        floor = lowest - 1 if walk.few else max(lowest, top - step + 1) - 1
        most = limit + 1 - len(found)
        rows, following = await read(_look(walk, top, floor, lowest, most))
        found += rows
        if len(found) > limit:
            # one more than asked for: there is a next page
            return Page(_items(walk, found[:limit]), found[limit - 1][0])
        if following is None:
            break
        if time.monotonic() >= ends_at:
            return Page(_items(walk, found), following + 1)
        step = step * STEP_GROWTH if time.monotonic() - began < SLOW_STEP_SECONDS else max(step // 2, FIRST_STEP)
        top = following
    return Page(_items(walk, found))


def _items(walk: Walk[Item], rows: Sequence[AnyRow]) -> tuple[Item, ...]:
    return tuple(walk.item(row) for row in rows)


def _look(
    walk: Walk[Any], top: int, floor: int, lowest: int, most: int
) -> Callable[[Connection], tuple[Sequence[AnyRow], int | None]]:
    """The rows from `top` down to above `floor`, and the key to go on from."""
    key = walk.columns[0]
    wanted = list(walk.conditions)
    if walk.created_from is not None:
        wanted.append(walk.table.c.created_at >= walk.created_from)
    if walk.created_before is not None:
        wanted.append(walk.table.c.created_at < walk.created_before)
    rows = select(*walk.columns).where(key <= top, key > floor, *wanted).order_by(key.desc()).limit(most)
    following = select(func.max(key)).where(key <= floor, key >= lowest)
    return lambda connection: (connection.execute(rows).all(), connection.scalar(following))


def _bounds(connection: Connection, walk: Walk[Any], before: int | None) -> tuple[int, int | None]:
    """The lowest and the highest key to look at; no highest: there is nothing."""
    key = walk.columns[0]
    # two statements: SQLite takes either from the end of the table, but reads all of it for both
    least, most = connection.scalar(select(func.min(key))), connection.scalar(select(func.max(key)))
    if least is None or most is None:
        return 0, None
    top = most if before is None else min(most, before - 1)
    if walk.created_before is not None:
        top = min(top, _first_since(connection, walk, walk.created_before + CLOCK_SECONDS, least, most) - 1)
    if walk.created_from is not None:
        least = _first_since(connection, walk, walk.created_from - CLOCK_SECONDS, least, most)
    return least, top


def _first_since(connection: Connection, walk: Walk[Any], moment: float, least: int, most: int) -> int:
    """The key from which on rows were created at or after that moment, by halving; one above `most` if none was."""
    key = walk.columns[0]
    above = most + 1
    while least < above:
        middle = (least + above) // 2
        query = select(key, walk.table.c.created_at).where(key <= middle).order_by(key.desc()).limit(1)
        row = connection.execute(query).first()
        if row is None or row[1] < moment:
            least = middle + 1
        else:
            above = row[0]
    return least
