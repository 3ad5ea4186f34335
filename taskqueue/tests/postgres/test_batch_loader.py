"""Shared looks: few of them, each fresh enough, and nobody is left without an answer."""

import asyncio

import pytest

from taskqueue.postgres.batch_loader import MAX_BATCH, BatchLoader


class Table:
    """Counts the looks; each waits until it is let go."""

    def __init__(self):
        self.rows = {"a": 1, "b": 2}
        self.looks = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def look(self, keys):
        self.looks.append(list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await self.go_on.wait()
        if "broken" in keys:
            raise RuntimeError("cannot look")
        return found


def test_those_who_ask_together_share_a_look(run):
    async def scenario():
        table = Table()
        loader = BatchLoader(table.look)
        assert await asyncio.gather(*(loader.get(key) for key in ["a", "b", "a", "c"])) == [1, 2, 1, None]
        assert table.looks == [["a", "b", "c"]]
        assert await loader.get("a") == 1
        assert table.looks == [["a", "b", "c"], ["a"]]

    run(scenario())


def test_who_asks_during_a_look_gets_what_is_there_now(run):
    async def scenario():
        table = Table()
        loader = BatchLoader(table.look)
        table.go_on.clear()
        early = asyncio.create_task(loader.get("a"))
        await asyncio.wait([early], timeout=0.05)
        table.rows["a"] = 10
        late = asyncio.create_task(loader.get("a"))
        await asyncio.wait([late], timeout=0.05)
        table.go_on.set()
        assert (await early, await late) == (1, 10)

    run(scenario())


def test_error_reaches_those_who_shared_the_look_and_nobody_else(run):
    async def scenario():
        table = Table()
        loader = BatchLoader(table.look)
        answers = await asyncio.gather(loader.get("broken"), loader.get("a"), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["cannot look"] * 2
        with pytest.raises(RuntimeError):
            await loader.get("broken")
        assert await loader.get("a") == 1

    run(scenario())


def test_who_gives_up_takes_nothing_from_the_others(run):
    async def scenario():
        table = Table()
        loader = BatchLoader(table.look)
        table.go_on.clear()
        first, second = asyncio.create_task(loader.get("a")), asyncio.create_task(loader.get("a"))
        await asyncio.wait([first], timeout=0.05)
        first.cancel()
        table.go_on.set()
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    run(scenario())


def test_look_has_a_largest_size(run):
    async def scenario():
        table = Table()
        loader = BatchLoader(table.look)
        await asyncio.gather(*(loader.get(f"k{n}") for n in range(MAX_BATCH + 1)))
        assert [len(look) for look in table.looks] == [MAX_BATCH, 1]

    run(scenario())
