"""Pages of long tables: short ones that meet, gaps, clocks that were set."""

import sqlite3
from contextlib import asynccontextmanager

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.connect import open_embedded
from taskqueue.postgres import open_postgres
from taskqueue.sql import pages
from taskqueue.tasks import DeadFilter, Failed, Succeeded, TaskFilter

ROWS = 200


@pytest.fixture(params=["sqlite", "postgres"])
def open_database(request, tmp_path):
    """A store, and a way to change its rows past it."""
    if request.param == "sqlite":
        path = tmp_path / "tasks.db"

        def change(statement):
            with sqlite3.connect(path) as driver:
                driver.execute(statement)
            driver.close()

        @asynccontextmanager
        async def opened():
            async with open_embedded(path) as (_, store):
                yield store

        return opened, change
    url = request.getfixturevalue("database_url")
    return lambda: open_postgres(url), request.getfixturevalue("ask")


@pytest.fixture
def open_filled(open_database, run, make_delivery):
    """Opens a store with tasks t000, t001, …; these statements have changed its rows, while nobody had it open."""
    open_store, change = open_database

    async def fill():
        async with open_store() as store:
            await store.record([Succeeded(make_delivery(f"t{n:03}"), b"1") for n in range(ROWS)])

    def opened(*statements):
        run(fill())
        for statement in statements:
            change(statement)
        return open_store()

    return opened


@pytest.fixture
def no_time(monkeypatch):
    """Each page is one small step: its time is over at once."""
    monkeypatch.setattr(pages, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(pages, "FIRST_STEP", 3)


async def walk(list_page, **more):
    """(all lines, number of pages)"""
    lines, pages, before = [], 0, None
    while True:
        page = await list_page(before=before, **more)
        lines += page
        pages += 1
        assert pages <= 2 * ROWS
        if page.next is None:
            return lines, pages
        assert before is None or page.next < before, "each page begins below the one before"
        before = page.next


def test_pages_whose_time_is_over_leave_nothing_out(run, open_filled, no_time):
    filled = open_filled(
        "DELETE FROM tasks WHERE seq BETWEEN 20 AND 120 OR seq % 7 = 0",
        "UPDATE tasks SET state = 'failed' WHERE seq IN (2, 124, 199)",
    )

    async def scenario():
        async with filled as store:
            left = [f"t{n - 1:03}" for n in range(1, ROWS + 1) if not (20 <= n <= 120 or n % 7 == 0)]
            lines, _ = await walk(lambda **more: store.list_tasks(TaskFilter(), **more), limit=2)
            assert [line.id for line in lines] == left[::-1]
            failed = TaskFilter(states=frozenset({TaskState.FAILED}))
            lines, pages = await walk(lambda **more: store.list_tasks(failed, **more), limit=2)
            assert [line.id for line in lines] == ["t198", "t123", "t001"]
            assert pages > 10, "short pages were what this test is about"
            nobody = TaskFilter(algorithm="nobody")
            lines, pages = await walk(lambda **more: store.list_tasks(nobody, **more), limit=2)
            assert lines == []
            assert pages > 10

    run(scenario())


def test_pages_that_have_time_are_full(run, open_filled, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_SECONDS", 60.0)
    monkeypatch.setattr(pages, "FIRST_STEP", 3)
    filled = open_filled("UPDATE tasks SET state = 'failed' WHERE seq % 10 = 0")

    async def scenario():
        async with filled as store:
            failed = TaskFilter(states=frozenset({TaskState.FAILED}))
            lines, pages = await walk(lambda **more: store.list_tasks(failed, **more), limit=6)
            assert (len(lines), pages) == (20, 4)

    run(scenario())


def test_times_are_found_without_looking_at_all_rows(run, open_filled, no_time):
    filled = open_filled(
        "DELETE FROM tasks WHERE seq % 3 = 0",
        "UPDATE tasks SET created_at = 1000000.0 + seq * 1000",
        # a clock that was set back by some seconds
        "UPDATE tasks SET created_at = created_at - 1010 WHERE seq = 101",
    )

    async def scenario():
        async with filled as store:

            async def between(created_from, created_before):
                wanted = TaskFilter(created_from=created_from, created_before=created_before)
                lines, pages = await walk(lambda **more: store.list_tasks(wanted, **more), limit=3)
                assert pages < 12
                return [line.id for line in lines]

            assert await between(1_098_000.0, 1_104_000.0) == ["t102", "t100", "t099", "t097"]
            assert await between(1_100_000.0, 1_103_000.0) == ["t099"]
            assert await between(1_099_990.0, 1_100_000.0) == ["t100"]
            assert await between(None, 1_002_000.0) == ["t000"]
            assert await between(1_199_500.0, None) == ["t199"]
            assert await between(1_300_000.0, None) == []
            assert await between(None, 0.0) == []

    run(scenario())


def test_dead_letters_of_one_task_come_at_once(run, open_database, make_delivery, no_time):
    open_store, _ = open_database

    async def scenario():
        async with open_store() as store:
            records = [Failed(make_delivery(f"t{n:03}"), FailureCode.TIMEOUT, "slow") for n in range(ROWS)]
            await store.record(records)
            page = await store.dead_letters(DeadFilter(task_id="t007"))
            assert ([line.task_id for line in page], page.next) == (["t007"], None)
            lines, pages = await walk(store.dead_letters, limit=7)
            assert [line.task_id for line in lines] == [f"t{n:03}" for n in range(ROWS)][::-1]
            assert pages > 10

    run(scenario())
