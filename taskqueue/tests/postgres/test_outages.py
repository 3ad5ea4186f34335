"""The database server stops, dies, freezes or drops connections: nobody hangs, nothing is lost, all heals by itself."""

import asyncio
import time

import psycopg
import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.errors import StoreUnavailable
from taskqueue.postgres import open_postgres
from taskqueue.tasks import Failed, Succeeded

#: An answer that does not come is waited for 8 s, a connection 5 s.
NEVER_LONGER_SECONDS = 12.0


def test_records_wait_out_a_server_that_is_stopped_under_load(run, own_postgres, make_delivery):
    async def scenario():
        async with open_postgres(own_postgres.url) as store:
            refused, stop = [], asyncio.Event()
            written: dict[str, int] = {}

            async def record_for_ever(lane):
                number = 0
                while not stop.is_set():
                    ids = [f"t{lane}-{number}-{n}" for n in range(20)]
                    records = [Failed(make_delivery(i), FailureCode.HANDLER_ERROR, "broken") for i in ids]
                    while True:
                        try:
                            done = await store.record(records)
                            break
                        except StoreUnavailable as error:
                            refused.append(str(error))
                            await asyncio.sleep(0.05)
                    for task_id, ok in zip(ids, done, strict=True):
                        written[task_id] = written.get(task_id, 0) + ok
                    number += 1

            lanes = [asyncio.create_task(record_for_ever(lane)) for lane in range(4)]
            await until(lambda: len(written) > 200)
            await asyncio.to_thread(own_postgres.stop)
            await until(lambda: len(refused) > 4)
            with pytest.raises(StoreUnavailable, match="PostgreSQL server"):
                await store.get("t0-0-0")
            await asyncio.to_thread(own_postgres.start)
            before = len(written)
            await until(lambda: len(written) > before + 200)
            stop.set()
            await asyncio.gather(*lanes)
            rows = await store.lookup(list(written))
            assert len(rows) == len(written)
            letters, page = [], await store.dead_letters(limit=1000)
            letters += page
            while page.next is not None:
                page = await store.dead_letters(limit=1000, before=page.next)
                letters += page
            assert sorted(letter.task_id for letter in letters) == sorted(written), "one dead letter each"
            assert set(written.values()) <= {0, 1}
            # an answer that was lost with its connection: written, and the repetition met the fence
            assert sum(count == 0 for count in written.values()) <= 4 * 20

    run(scenario())


def test_what_was_committed_survives_a_killed_server(run, own_postgres, make_delivery, make_task):
    async def scenario():
        async with open_postgres(own_postgres.url) as store:
            ids = [f"t{n}" for n in range(200)]
            await store.record([Succeeded(make_delivery(task_id), b"1") for task_id in ids])
            await store.admit([make_task("q")])
            await asyncio.to_thread(own_postgres.kill)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.record([Succeeded(make_delivery("x"), b"1")])
            assert time.monotonic() - began < NEVER_LONGER_SECONDS
            await asyncio.to_thread(own_postgres.start)
            rows = await store.lookup([*ids, "q", "x"])
            assert sorted(rows) == sorted([*ids, "q"])
            assert await store.record([Succeeded(make_delivery("x"), b"1")]) == [True]

    run(scenario())


def test_frozen_server_makes_nobody_wait_for_ever(run, own_postgres, make_delivery, make_task):
    async def scenario():
        async with open_postgres(own_postgres.url) as store:
            await store.admit([make_task("a")])
            waiter = asyncio.create_task(store.wait_finished("a", 40.0))
            await asyncio.wait([waiter], timeout=0.3)
            own_postgres.pause()
            try:
                began = time.monotonic()
                first = asyncio.create_task(store.record([Succeeded(make_delivery("b"), b"1")]))
                await asyncio.wait([first], timeout=0.2)
                others = [
                    asyncio.create_task(store.record([Succeeded(make_delivery(f"c{n}"), b"1")])) for n in range(600)
                ]
                reads = [asyncio.create_task(store.get("a")) for _ in range(2)]
                answers = await asyncio.gather(first, *others, *reads, return_exceptions=True)
                assert time.monotonic() - began < NEVER_LONGER_SECONDS
                assert {type(answer) for answer in answers} == {StoreUnavailable}
                assert "does not answer" in str(answers[0])
            finally:
                own_postgres.resume()
            assert await store.record([Succeeded(make_delivery("a"), b"1")]) == [True]
            assert (await waiter).state is TaskState.SUCCEEDED

    run(scenario())


def test_frozen_server_delays_the_end_of_the_block_only_for_a_while(run, own_postgres, make_delivery):
    async def scenario():
        async with open_postgres(own_postgres.url) as store:
            await store.record([Succeeded(make_delivery("a"), b"1")])
            # its end has been announced when the next write is done; a frozen announcement would be waited for, too
            await store.report_progress([("nobody", 1, 0.5, "")])
            own_postgres.pause()
            late = asyncio.create_task(store.record([Succeeded(make_delivery("b"), b"1")]))
            await asyncio.wait([late], timeout=0.2)
            began = time.monotonic()
        assert time.monotonic() - began < NEVER_LONGER_SECONDS
        with pytest.raises(StoreUnavailable):
            await late
        own_postgres.resume()

    run(scenario())


def test_connections_that_were_cut_are_opened_again_unnoticed(run, database_url, ask, make_delivery):
    async def scenario():
        async with open_postgres(database_url) as store:
            for number in range(3):
                await store.get("a")
                ask(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert await store.record([Succeeded(make_delivery(f"t{number}"), b"1")]) == [True]
                assert (await store.get(f"t{number}")).result == b"1"

    run(scenario())


def test_standby_is_left_for_the_primary(run, database_url, ask, make_delivery):
    """What a failover looks like from here: writes are refused on this connection, a new one can write."""

    async def scenario():
        async with open_postgres(database_url) as store:
            await store.record([Succeeded(make_delivery("a"), b"1")])
            name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
            ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store.record([Succeeded(make_delivery("b"), b"1")])
            ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            assert await store.record([Succeeded(make_delivery("b"), b"1")]) == [True]

    run(scenario())


async def until(condition, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
