"""The gateway's work on dead letters: list, show, replay, discard. No HTTP in here."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from taskqueue.protocols import Replayer, TaskStore
from taskqueue.tasks import DeadAnswer, DeadFilter, DeadLetter, DeadSummary, Page, TaskRow

#: Dead letters in one transaction: their messages, up to 16 MiB each, are in memory together.
_AT_ONCE = 50

Change = Callable[[Sequence[int]], Coroutine[Any, Any, list[DeadAnswer]]]


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of each of many: (dead id, answer), in order. `next` is where the list goes on."""

    answers: list[tuple[int, DeadAnswer]]
    next: int | None = None


class DeadDesk:
    """One for each gateway. Every method may raise QueueUnavailable or StoreUnavailable."""

    def __init__(self, store: TaskStore, replayer: Replayer) -> None:
        self._store = store
        self._replayer = replayer

    async def page(self, wanted: DeadFilter, limit: int, before: int | None) -> Page[DeadSummary]:
        return await self._store.dead_letters(wanted, limit=limit, before=before)

    async def letter(self, dead_id: int) -> DeadLetter | None:
        return await self._store.dead_letter(dead_id)

    async def task_of(self, letter: DeadLetter) -> TaskRow | None:
        return await self._store.get(letter.task_id)

    async def replay(self, dead_ids: Sequence[int]) -> Changed:
        """Puts the tasks of these back into the queue."""
        return Changed(await _in_parts(self._replayer.replay, dead_ids))

    async def discard(self, dead_ids: Sequence[int]) -> Changed:
        """Notes that nothing more will become of these."""
        return Changed(await _in_parts(self._store.discard, dead_ids))

    async def replay_fitting(self, wanted: DeadFilter, limit: int, before: int | None) -> Changed:
        """The same for one page of those that fit. Within the page the oldest goes first, as it once came."""
        page = await self.page(wanted, limit, before)
        ids = [letter.dead_id for letter in page][::-1]
        return Changed(await _in_parts(self._replayer.replay, ids), page.next)

    async def discard_fitting(self, wanted: DeadFilter, limit: int, before: int | None) -> Changed:
        page = await self.page(wanted, limit, before)
        ids = [letter.dead_id for letter in page]
        return Changed(await _in_parts(self._store.discard, ids), page.next)


async def _in_parts(change: Change, dead_ids: Sequence[int]) -> list[tuple[int, DeadAnswer]]:
    ids = list(dict.fromkeys(dead_ids))
    answers: list[tuple[int, DeadAnswer]] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        answers += zip(part, await change(part), strict=True)
    return answers
