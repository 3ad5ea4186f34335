"""What there is, and how it is doing. Counting is shared by all who ask."""

import asyncio
from typing import Any

import pytest

from producer.gateway import algorithms
from producer.gateway.algorithms import CountsCache
from taskqueue.errors import StoreUnavailable
from taskqueue.tasks import Counts
from taskqueue.tokens import EVERYTHING, Reach


class Store:
    """Counts how often it is asked to count."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def counts(self, reach: Reach) -> list[Counts]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        return [Counts("upper", {}, float(self.asked))]


def test_many_who_ask_at_once_cost_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store = Store()
        cache = CountsCache(store)  # type: ignore[arg-type]
        answers = await asyncio.gather(*(cache.counts(EVERYTHING) for _ in range(50)))
        assert store.asked == 1
        assert all(answer == answers[0] for answer in answers)
        monkeypatch.setattr(algorithms, "FRESH_SECONDS", -1.0)
        [after] = await cache.counts(EVERYTHING)
        assert (store.asked, after.oldest_waiting_at) == (2, 2.0)

    asyncio.run(scenario())


def test_store_that_is_away_is_told_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        store = Store()
        cache = CountsCache(store)  # type: ignore[arg-type]
        store.is_away = True
        with pytest.raises(StoreUnavailable):
            await cache.counts(EVERYTHING)
        store.is_away = False
        assert len(await cache.counts(EVERYTHING)) == 1

    asyncio.run(scenario())


def test_algorithms_are_listed_with_all_that_a_sender_needs(gateway: Any) -> None:
    gateway.post("upper", {"text": "a"})
    listed = gateway.get("/algorithms").json()
    assert listed["complete"] is True
    anything, upper = listed["algorithms"]
    assert (anything["name"], anything["input_schema"]) == ("anything", None)
    assert upper["input_schema"]["required"] == ["text"]
    assert upper["tasks"]["waiting"] == 1
    assert upper["tasks"]["oldest_waiting_seconds"] >= 0
    [runner] = upper["runners"]
    assert runner["docs"] == "http://127.0.0.1:9001/docs"
    assert gateway.get("/algorithms/upper").json()["summary"] == "Does upper."


def test_unknown_algorithm_has_no_page(gateway: Any) -> None:
    answer = gateway.get("/algorithms/uper")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_algorithm")
    assert "'upper'" in answer.json()["detail"]


def test_status_counts_tasks_of_unknown_algorithms_too(gateway: Any) -> None:
    gateway.watch.is_sure = False
    gateway.post("later", {})
    gateway.post("upper", {"text": "a"})
    gateway.fail("upper", "no")
    status = gateway.get("/status").json()
    by_name = {entry["name"]: entry for entry in status["algorithms"]}
    assert (by_name["later"]["runners"], by_name["later"]["tasks"]["waiting"]) == (0, 1)
    assert by_name["upper"]["tasks"]["failed"] == 1
    assert (status["tasks"]["waiting"], status["tasks"]["failed"]) == (1, 1)
    assert [runner["name"] for runner in status["runners"]] == ["text"]
