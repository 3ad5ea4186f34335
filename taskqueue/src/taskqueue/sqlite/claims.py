"""Claims on SQLite: in the order of arrival, or in the groups' turns, with all tasks without a group as one of them."""

from collections.abc import Sequence

from taskqueue.sql.groups import ANY_GROUPED, ANY_IN_TURN, ANY_OUT, Claim, Groups, oldest_first
from taskqueue.sql.rows import AnyRow
from taskqueue.sql.tables import NO_GROUP
from taskqueue.sqlite.queue_statements import ANY_WITHOUT_GROUP, CLAIM, NEXT_AVAILABLE
from taskqueue.turns import Taken


class ClaimInTurn(Claim):
    """See `taskqueue.sql.groups.Claim`."""

    def groups(self, *, is_all: bool) -> Groups | None:
        # Also if all of them are late: only in turn are such tasks found when their time has come.
        are_there = self._any(ANY_GROUPED)
        return Groups(are_there, take_turns=are_there and (self._any(ANY_IN_TURN) or self._any(ANY_OUT)))

    def next_due_in(self) -> float | None:
        next_at = NEXT_AVAILABLE.execute(self._connection, {**self._where, "the_now": self._now}).scalar()
        return None if next_at is None else max(0.0, next_at - self._now)

    def _groups_after(self, group: str, count: int) -> Sequence[str]:
        groups = super()._groups_after(group, count)
        return [NO_GROUP, *groups][:count] if group < NO_GROUP and self._any_without_group() else groups

    def _take(self, group: str, count: int) -> Sequence[AnyRow]:
        return self._take_without_group(count) if group == NO_GROUP else super()._take(group, count)

    def _any_without_group(self) -> bool:
        where = {**self._where, "the_now": self._now}
        return ANY_WITHOUT_GROUP.execute(self._connection, where).first() is not None

    def _take_without_group(self, count: int) -> list[AnyRow]:
        claim = {**self._where, "the_now": self._now, "the_most": count, **self._lease}
        return oldest_first(CLAIM.execute(self._connection, claim).all())


class ClaimInOrder(ClaimInTurn):
    """Of an algorithm that has no tasks of groups."""

    def take(self, most: int, last: str) -> Taken[AnyRow]:
        return Taken(self._take_without_group(most), last)

    def groups(self, *, is_all: bool) -> Groups | None:
        return None
