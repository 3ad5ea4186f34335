"""Claims in turn: which groups have tasks that may be claimed, and their oldest. All runs inside a transaction.

`available_at` of such a task is -1 (`IN_TURN`). One that was late or leased is made so when its time has come.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, Select, bindparam, func, literal, null, select, update

from taskqueue.sql.leases import CLAIMED, DELIVERY
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.statements import IN_TURN, execute
from taskqueue.sql.tables import IS_OUT, NO_GROUP, tasks
from taskqueue.turns import Taken, Turns

#: Tasks that come due with one claim; the rest with the next.
MAX_DUE = 1000

_of_algorithm = tasks.c.algorithm == bindparam("the_algorithm")
_in_turn = _of_algorithm & (tasks.c.available_at == IN_TURN)
_of_group = tasks.c.task_group == bindparam("the_group")
_most: BindParameter[int] = bindparam("the_most")
_late = _of_algorithm & tasks.c.task_group.is_not(None) & (tasks.c.available_at > 0)

#: Locks rows where the database has row locks, passing over those that others are about to claim or to end.
_next = select(tasks.c.seq).where(_in_turn & _of_group).order_by(tasks.c.seq).limit(_most)
_locked_next = _next.with_for_update(skip_locked=True).cte("next_ones")
CLAIM_OF_GROUP = update(tasks).where(tasks.c.seq.in_(select(_locked_next.c.seq))).values(CLAIMED).returning(*DELIVERY)
_due = select(tasks.c.seq).where(_late & (tasks.c.available_at <= bindparam("the_now"))).order_by(tasks.c.available_at)
_locked_due = _due.limit(MAX_DUE).with_for_update(skip_locked=True).cte("due")
#: The old receipt of one whose lease is over settles nothing any more.
NOW_DUE = update(tasks).where(tasks.c.seq.in_(select(_locked_due.c.seq))).values(available_at=IN_TURN, receipt=null())
NEXT_DUE = select(func.min(tasks.c.available_at)).where(_late & (tasks.c.available_at > bindparam("the_now")))

#: Steps from one group to the next, each by one look into the index.
_first = select(func.min(tasks.c.task_group).label("name"), literal(1).label("place")).where(
    _in_turn & (tasks.c.task_group > bindparam("the_group"))
)
_turn = _first.cte("turn", recursive=True)
_next_name = (
    select(func.min(tasks.c.task_group))
    .where(_in_turn & (tasks.c.task_group > _turn.c.name))
    .correlate(_turn)
    .scalar_subquery()
)
_turns = _turn.union_all(
    select(_next_name, _turn.c.place + 1).where(_turn.c.name.is_not(None) & (_turn.c.place < _most))
)
GROUPS = select(_turns.c.name).where(_turns.c.name.is_not(None)).order_by(_turns.c.place)

#: How many of these groups are claimed.
OUT = (
    select(tasks.c.task_group, func.count())
    .where(_of_algorithm & tasks.c.task_group.in_(bindparam("the_groups", expanding=True)) & IS_OUT)
    .group_by(tasks.c.task_group)
)
#: Whether any task of a group has not ended; whether any waits for its turn, or is out.
ANY_GROUPED, ANY_IN_TURN, ANY_OUT = (
    select(literal(1)).where(_of_algorithm & tasks.c.task_group.is_not(None) & condition).limit(1)
    for condition in (
        tasks.c.available_at.is_not(None),
        tasks.c.available_at == IN_TURN,
        IS_OUT,
    )
)


class Groups(NamedTuple):
    """What a claim has found out about an algorithm: whether any task of a group has not ended; whether any waits for
    its turn, or is out."""

    are_there: bool
    take_turns: bool


class Claim:
    """One claim of an algorithm's tasks, in turn. Call `take` first."""

    def __init__(
        self, connection: Connection, algorithm: str, now: float, lease: Mapping[str, Any], slots: int | None = None
    ) -> None:
        """`now` is on the clock of `available_at`; `lease` are the values of `leases.CLAIMED`."""
        self._connection = connection
        self._where = {"the_algorithm": algorithm}
        self._now = now
        self._lease = lease
        self._slots = slots

    def take(self, most: int, last: str) -> Taken[AnyRow]:
        """Up to `most` rows, beginning with the group behind `last`; those whose delay or lease is over come, too."""
        execute(self._connection, NOW_DUE, {**self._where, "the_now": self._now})
        return Turns(self._groups_after, self._take, self._room).take(most, last)

    def groups(self, *, is_all: bool) -> Groups | None:
        """`is_all`: this claim has taken all there is. None: it cannot tell."""
        return Groups(are_there=True, take_turns=not is_all or self._any(ANY_IN_TURN) or self._any(ANY_OUT))

    def _any(self, statement: Select[int]) -> bool:
        return self._connection.scalar(statement, self._where) is not None

    def next_due_in(self) -> float | None:
        """Seconds until the next delay or lease is over."""
        due = self._connection.scalar(NEXT_DUE, {**self._where, "the_now": self._now})
        return None if due is None else max(0.0, due - self._now)

    def _groups_after(self, group: str, count: int) -> Sequence[str]:
        where = {**self._where, "the_group": group, "the_most": count}
        return self._connection.scalars(GROUPS, where).all()

    def _take(self, group: str, count: int) -> Sequence[AnyRow]:
        values = {**self._where, "the_group": group, "the_most": count, **self._lease}
        return oldest_first(self._connection.execute(CLAIM_OF_GROUP, values).all())

    def _room(self, groups: Sequence[str]) -> dict[str, int]:
        """How many more of each may be out; nothing bounds those without a group."""
        named = [group for group in groups if group != NO_GROUP]
        if self._slots is None or not named:
            return {}
        out = dict.fromkeys(named, 0)
        for group, count in self._connection.execute(OUT, {**self._where, "the_groups": named}).all():
            out[group] = count
        return {group: self._slots - count for group, count in out.items()}


def oldest_first(rows: Iterable[AnyRow]) -> list[AnyRow]:
    return sorted(rows, key=lambda row: row[0])
