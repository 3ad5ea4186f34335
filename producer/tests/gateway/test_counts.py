"""Counting is shared by all who ask."""

import asyncio

import pytest

from producer.gateway import counts
from producer.gateway.counts import CountsCache
from taskqueue.errors import StoreUnavailable
from taskqueue.tasks import Counts


class Store:
    """Counts how often it is asked to count."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def counts(self) -> list[Counts]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        return [Counts("upper", {}, float(self.asked))]


def test_many_who_ask_at_once_cost_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store = Store()
        cache = CountsCache(store)  # type: ignore[arg-type]
        answers = await asyncio.gather(*(cache.counts() for _ in range(50)))
        assert store.asked == 1
        assert all(answer == answers[0] for answer in answers)
        monkeypatch.setattr(counts, "FRESH_SECONDS", -1.0)
        [after] = await cache.counts()
        assert (store.asked, after.oldest_waiting_at) == (2, 2.0)

    asyncio.run(scenario())


def test_store_that_is_away_is_told_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store = Store()
        cache = CountsCache(store)  # type: ignore[arg-type]
        store.is_away = True
        with pytest.raises(StoreUnavailable):
            await cache.counts()
        store.is_away = False
        assert len(await cache.counts()) == 1

    asyncio.run(scenario())
