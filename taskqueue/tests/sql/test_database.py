"""The writer: one commit for many, and nobody's error is another's."""

import asyncio
import threading

import pytest
from sqlalchemy.exc import OperationalError, ResourceClosedError

from taskqueue.sql import database
from taskqueue.sql.database import Writer
from taskqueue.sqlite.engine import SqliteHooks, writing_engine


@pytest.fixture
def make_writer(tmp_path):
    def make(idle_seconds: float = 60.0) -> Writer:
        connection = writing_engine(tmp_path / "numbers.db").connect()
        with connection.begin():
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY)")
        return Writer(connection, SqliteHooks(idle_seconds))

    return make


def insert(number: int):
    def function(connection):
        connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return function


def numbers(connection):
    return [row[0] for row in connection.exec_driver_sql("SELECT n FROM numbers ORDER BY n")]


def test_functions_that_wait_together_share_a_transaction(run, make_writer):
    async def scenario():
        writer = make_writer()
        held, go_on = threading.Event(), threading.Event()

        def hold(_connection):
            held.set()
            assert go_on.wait(10)

        def transaction(connection):
            return id(connection.get_transaction())

        first = asyncio.create_task(writer.run(hold))
        await asyncio.to_thread(held.wait, 10)
        rest = [asyncio.create_task(writer.run(transaction)) for _ in range(20)]
        await asyncio.sleep(0)
        go_on.set()
        await first
        assert len(set(await asyncio.gather(*rest))) == 1
        await writer.close()

    run(scenario())


def test_function_that_raises_costs_its_neighbours_nothing(run, make_writer):
    async def scenario():
        writer = make_writer()

        def broken(connection):
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1000)")
            raise RuntimeError("mine alone")

        functions = [insert(1), broken, insert(2), insert(1), insert(3)]
        answers = await asyncio.gather(*(writer.run(function) for function in functions), return_exceptions=True)
        assert [answers[0], answers[2], answers[4]] == [1, 2, 3]
        assert isinstance(answers[1], RuntimeError)
        assert answers[3] is not None
        assert await writer.run(numbers) == [1, 2, 3]
        await writer.close()

    run(scenario())


def test_error_after_which_sqlite_has_rolled_back_by_itself_is_the_one_reported(run, make_writer):
    async def scenario():
        writer = make_writer()

        def rolled_back(connection):
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("SELECT * FROM no_such_table")

        with pytest.raises(OperationalError, match="no_such_table"):
            await writer.run(rolled_back)
        assert await writer.run(insert(2)) == 2
        assert await writer.run(numbers) == [2]
        await writer.close()

    run(scenario())


def test_what_follows_a_commit_happens_though_its_caller_was_cancelled(run, make_writer):
    async def scenario():
        writer = make_writer()
        told = asyncio.get_running_loop().create_future()
        caller = asyncio.create_task(writer.run(insert(7), then=told.set_result))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await asyncio.wait_for(told, 10) == 7
        await writer.close()

    run(scenario())


def test_closing_finishes_what_waits_and_refuses_what_comes_later(run, make_writer):
    async def scenario():
        writer = make_writer()
        waiting = [asyncio.create_task(writer.run(insert(n))) for n in range(600)]
        await asyncio.sleep(0)
        await writer.close()
        await writer.close()
        assert await asyncio.gather(*waiting) == list(range(600))
        with pytest.raises(ResourceClosedError):
            await writer.run(insert(601))
        again = make_writer()
        assert await again.run(numbers) == list(range(600))
        await again.close()

    run(scenario())


def test_writer_that_was_idle_goes_on(run, make_writer):
    async def scenario():
        writer = make_writer(idle_seconds=0.01)
        for n in range(3):
            await writer.run(insert(n))
            await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.05)
        assert await writer.run(numbers) == [0, 1, 2]
        await writer.close()

    run(scenario())


def test_who_asks_again_after_an_outage_is_not_refused_for_it(run, make_writer, monkeypatch):
    """The writer's thread may be slow to go on after it has told its callers."""
    asked_again = threading.Event()
    announce = database._announce

    def announce_and_pause(group):
        failed = group[0].error is not None
        announce(group)
        assert not failed or asked_again.wait(10)

    monkeypatch.setattr(database, "_announce", announce_and_pause)
    monkeypatch.setattr(SqliteHooks, "is_away", lambda _hooks, error, _stage: isinstance(error, ConnectionError))

    async def scenario():
        writer = make_writer()

        def lost(_connection):
            raise ConnectionError("the server is away")

        with pytest.raises(ConnectionError):
            await writer.run(lost)
        again = asyncio.create_task(writer.run(insert(1)))
        await asyncio.sleep(0)
        asked_again.set()
        assert await again == 1
        await writer.close()

    run(scenario())
