"""The part of a store that is alike in every database: lists, dead letters, retention."""

from collections.abc import Sequence

from sqlalchemy import text

from taskqueue.clock import Clock
from taskqueue.replays import in_order, portions
from taskqueue.sql import dead_letters, queries
from taskqueue.sql.access import Access
from taskqueue.sql.summaries import wanted_dead_letters, wanted_tasks
from taskqueue.sql.walking import walk_page
from taskqueue.tasks import (
    DeadAnswer,
    DeadFilter,
    DeadLetter,
    DeadSummary,
    Page,
    TaskFilter,
    TaskSummary,
)

#: Dead letters that are discarded in one transaction.
MOST_AT_ONCE = 1000


class Listed:
    """See `taskqueue.protocols.TaskStore`."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock

    async def list_tasks(self, wanted: TaskFilter, *, limit: int = 100, before: int | None = None) -> Page[TaskSummary]:
        return await walk_page(self._access.read, wanted_tasks(wanted), limit, before)

    async def dead_letters(
        self, wanted: DeadFilter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page[DeadSummary]:
        return await walk_page(self._access.read, wanted_dead_letters(wanted or DeadFilter()), limit, before)

    async def dead_letter(self, dead_id: int) -> DeadLetter | None:
        return await self._access.read(lambda connection: dead_letters.read_one(connection, dead_id))

    async def discard(self, dead_ids: Sequence[int]) -> list[DeadAnswer]:
        answers: dict[int, DeadAnswer] = {}
        for portion in portions(dead_ids, MOST_AT_ONCE):
            answers |= await self._discard(portion)
        return in_order(dead_ids, answers)

    async def check_writing(self) -> None:
        # Changes nothing, and has to be written all the same.
        await self._access.write(
            lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        )

    async def purge(self, finished_before: float, limit: int) -> int:
        return await self._access.write(
            lambda connection: queries.purge(connection, finished_before, limit), durable=False
        )

    async def _discard(self, dead_ids: Sequence[int]) -> dict[int, DeadAnswer]:
        return await self._access.write(
            lambda connection: dead_letters.discard(connection, dead_ids, self._clock.wall())
        )
