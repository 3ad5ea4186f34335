"""What only the SQLite pair does: queue and store are one row, one owner, one file."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from runnerlib.contract import FailureCode, TaskState
from taskqueue.clock import Clock
from taskqueue.connect import open_embedded
from taskqueue.errors import QueueClosed, QueueUnavailable, StoreUnavailable
from taskqueue.sqlite.engine import SqliteHooks
from taskqueue.sqlite.queue import LeaseTimes
from taskqueue.tasks import CancelAnswer, Placement, Published, Succeeded

HOLD_A_WRITE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.db"


@pytest.fixture
def foreign_lock(path):
    """Another process holds the write lock until it is released (or the test ends)."""
    started: list[subprocess.Popen[str]] = []

    def lock() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD_A_WRITE_LOCK, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield lock
    for process in started:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def test_lease_that_nobody_renews_ends(run, path, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_embedded(path, leases=LeaseTimes(seconds=0.3, renew_seconds=3600)) as (queue, _):
            await queue.publish([make_task("a")])
            lost = await queue.feed("upper")
            await lost.set_prefetch(1)
            old = await take_all(lost, 1)
            other = await queue.feed("upper")
            await other.set_prefetch(1)
            again = await take_all(other, 1)
            assert (again[0].id, again[0].attempt, again[0].delivery_count) == ("a", 1, 1)
            await queue.release(old)
            await queue.retry(old, [0.0])
            await queue.ack(old)
            assert await comes_nothing(lost, 0.1), "an old receipt changes nothing"
            await queue.ack(again)

    run(scenario())


def test_lease_is_renewed_as_long_as_the_task_is_out(run, path, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_embedded(path, leases=LeaseTimes(seconds=0.5, renew_seconds=0.1)) as (queue, _):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 1)
            await feed.close()
            other = await queue.feed("upper")
            await other.set_prefetch(5)
            assert [delivery.id for delivery in await take_all(other, 1)] == ["b"]
            assert await comes_nothing(other, 1.2)
            await queue.ack(taken)

    run(scenario())


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_wall_clock_that_jumps_frees_and_freezes_nothing(run, path, make_task, take_all, comes_nothing, jump):
    shift = [0.0]
    clock = Clock(wall=lambda: time.time() + shift[0])

    async def scenario():
        async with open_embedded(path, clock=clock) as (queue, _):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            taken = await take_all(feed, 2)
            await queue.retry(taken[:1], [0.3])
            shift[0] = jump
            assert [d.id for d in await take_all(feed, 1, seconds=5)] == ["a"]
            await queue.publish([make_task("c")])
            assert [d.id for d in await take_all(feed, 1, seconds=5)] == ["c"]
            assert await comes_nothing(feed), "b is still leased"

    run(scenario())


def test_next_owner_gets_at_once_what_the_last_one_had(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            await take_all(feed, 1)
        async with open_embedded(path) as (queue, store):
            assert (await store.get("a")).state is TaskState.QUEUED
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2, seconds=5)
            assert [(d.id, d.attempt, d.delivery_count) for d in taken] == [("a", 1, 1), ("b", 1, 0)]

    run(scenario())


def test_delay_survives_a_restart(run, path, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            taken = await take_all(feed, 1)
            began = time.monotonic()
            await queue.retry(taken, [0.8])
        async with open_embedded(path) as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(1)
            assert (await take_all(feed, 1))[0].attempt == 2
            assert time.monotonic() - began >= 0.75

    run(scenario())


@pytest.mark.serial
def test_locked_database_is_waited_for(run, path, make_task, foreign_lock):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            process = foreign_lock()
            asyncio.get_running_loop().call_later(2.0, process.stdin.close)
            began = time.monotonic()
            published = asyncio.create_task(queue.publish([make_task("a")]))
            assert await store.get("a") is None, "reading and the event loop go on meanwhile"
            assert time.monotonic() - began < 1.5
            assert await published == [Published.ACCEPTED]
            assert time.monotonic() - began >= 1.9

    run(scenario())


def test_database_locked_for_too_long_is_unavailable_and_comes_back(run, path, make_task, foreign_lock, take_all):
    async def scenario():
        async with open_embedded(path, busy_seconds=0.1) as (queue, store):
            feed = await queue.feed("upper")
            process = foreign_lock()
            await feed.set_prefetch(5)
            with pytest.raises(QueueUnavailable, match="locked by another process"):
                await queue.publish([make_task("a")])
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await store.cancel("b")
            process.stdin.close()
            await asyncio.to_thread(process.wait, 10)
            await queue.publish([make_task("a")])
            assert [delivery.id for delivery in await take_all(feed, 1)] == ["a"]

    run(scenario())


def test_full_disk_refuses_new_tasks_and_loses_none(run, path, make_task, take_all):
    async def limit_pages(queue, pages: int) -> None:
        def pragma(connection: Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        await queue._database.write(pragma)

    async def scenario():
        async with open_embedded(path) as (queue, store):
            await limit_pages(queue, 60)
            confirmed = []
            with pytest.raises(QueueUnavailable, match="full"):
                for number in range(1000):
                    task = make_task(f"t{number}", payload={"text": "x" * 2000})
                    await queue.publish([task])
                    confirmed.append(task.id)
            assert len(confirmed) > 10
            assert set(await store.lookup(confirmed)) == set(confirmed)
            assert await store.get(f"t{len(confirmed)}") is None
            await limit_pages(queue, 100_000)
            await queue.publish([make_task("later")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(500)
            taken = await take_all(feed, len(confirmed) + 1)
            assert {delivery.id for delivery in taken} == {*confirmed, "later"}
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        connection.close()

    run(scenario())


def test_tasks_that_could_not_be_given_back_come_again(run, path, make_task, foreign_lock, take_all, eventually):
    async def scenario():
        leases = LeaseTimes(seconds=2.0, renew_seconds=0.2)
        async with open_embedded(path, busy_seconds=0.1, leases=leases) as (queue, _):
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await eventually(lambda: feed.waiting() == 2)
            process = foreign_lock()
            await feed.set_prefetch(1)
            process.stdin.close()
            await asyncio.to_thread(process.wait, 10)
            await feed.set_prefetch(2)
            assert {delivery.id for delivery in await take_all(feed, 2)} == {"a", "b"}

    run(scenario())


@pytest.mark.parametrize("is_placed", [False, True])
def test_task_that_a_dead_owner_left_running_can_be_cancelled_and_expires(run, path, make_task, take_all, is_placed):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            await queue.publish([make_task("a"), make_task("b", expires_at=time.time())])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2)
            if is_placed:
                await store.place([(each, Placement(each.id, 1, "runner", "boot")) for each in taken])
        async with open_embedded(path, leases=LeaseTimes(seconds=0.5)) as (queue, store):
            assert await queue.sweep(["upper"], 0.0, 10) == [], "a runner may have it: it can be taken up first"
            assert await store.cancel("a") is CancelAnswer.CANCELLED
            began = time.monotonic()
            while not (swept := await queue.sweep(["upper"], 0.0, 10)):
                assert time.monotonic() < began + 10
            assert [delivery.id for delivery in swept] == ["b"]

    run(scenario())


@pytest.fixture
def commits(monkeypatch):
    """Whether each commit since was durable."""
    durable: list[bool] = []
    before_group = SqliteHooks.before_group

    def observed(self, connection, is_durable):
        durable.append(is_durable)
        before_group(self, connection, is_durable)

    monkeypatch.setattr(SqliteHooks, "before_group", observed)
    return durable


async def hungry(feed):
    """Waits until the feed has found that nothing waits."""
    async with asyncio.timeout(10):
        while not feed.is_hungry:
            await asyncio.sleep(0.001)


def test_task_for_a_feed_that_waits_is_published_and_claimed_with_one_commit(run, path, make_task, take_all, commits):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await hungry(feed)
            commits.clear()
            await queue.publish([make_task("a", expires_at=2e9, reply_to="r", correlation_id="c")])
            [taken] = await take_all(feed, 1)
            assert commits == [True]
            await queue.release([taken])
            [claimed] = await take_all(feed, 1)
            assert (claimed.receipt.seq, claimed.receipt.token) != taken.receipt
            assert replace(claimed, receipt=None) == replace(taken, receipt=None)
            assert await store.rows_that_forbid_start([taken]) == {}

    run(scenario())


def test_such_a_task_is_back_at_once_when_its_owner_dies(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await hungry(feed)
            await queue.publish([make_task("a")])
            await take_all(feed, 1)
        async with open_embedded(path) as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            [again] = await take_all(feed, 1)
            assert (again.id, again.delivery_count) == ("a", 1)

    run(scenario())


def test_what_waits_is_handed_out_before_what_is_published_now(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            feed = await queue.feed("upper")
            await queue.publish([make_task(f"t{n}") for n in range(3)])
            await feed.set_prefetch(2)
            await asyncio.gather(*(queue.publish([make_task(f"t{n}")]) for n in range(3, 6)))
            order = []
            while len(order) < 6:
                taken = await feed.take(2)
                order += [delivery.id for delivery in taken]
                await queue.ack(taken)
            assert order == [f"t{n}" for n in range(6)]

    run(scenario())


def test_many_tasks_published_one_by_one_exceed_no_prefetch(run, path, make_task, eventually):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(3)
            await hungry(feed)
            await asyncio.gather(*(queue.publish([make_task(f"t{n}")]) for n in range(50)))
            await eventually(lambda: feed.waiting() == 3)
            seen = []
            while len(seen) < 50:
                taken = await feed.take(10)
                assert len(taken) <= 3
                seen += [delivery.id for delivery in taken]
                await queue.ack(taken)
            assert sorted(seen) == sorted(f"t{n}" for n in range(50))

    run(scenario())


def test_known_id_is_neither_handed_out_nor_changed_by_a_waiting_feed(run, path, make_task, comes_nothing):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            await store.cancel("never")
            await queue.publish([make_task("a", algorithm="other")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await hungry(feed)
            assert await queue.publish([make_task("a")]) == [Published.CONFLICT]
            assert await queue.publish([make_task("never")]) == [Published.DUPLICATE]
            await comes_nothing(feed)
            assert (await store.get("never")).digest == make_task("never").digest

    run(scenario())


def test_task_published_for_a_feed_that_closes_meanwhile_comes_again(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path, leases=LeaseTimes(seconds=0.3, renew_seconds=0.1)) as (queue, _):
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            await hungry(feed)
            publishing = asyncio.create_task(queue.publish([make_task("a")]))
            await asyncio.sleep(0)
            closing = asyncio.create_task(feed.close())
            assert await publishing == [Published.ACCEPTED]
            await closing
            other = await queue.feed("upper")
            await other.set_prefetch(2)
            [taken] = await take_all(other, 1)
            assert taken.id == "a"

    run(scenario())


def test_task_that_is_waited_for_is_durable_with_its_outcome_or_the_next_flush(run, path, make_task, commits):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            commits.clear()
            await queue.publish([make_task("a")], durable=False)
            assert commits == [False]
            await queue.flush()
            assert commits == [False, True]
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            [delivery] = await feed.take(1)
            await hungry(feed)
            commits.clear()
            waiting = asyncio.create_task(store.wait_finished("b", 20.0, is_new=True))
            await queue.publish([make_task("b")], durable=False)
            [delivery] = await feed.take(1)
            await store.record([Succeeded(delivery, b"1", runner="text-1")])
            row = await waiting
            assert (row.state, row.result, row.runner) == (TaskState.SUCCEEDED, b"1", "text-1")
            assert commits == [False, True]
            assert row == await store.get("b")

    run(scenario())


def test_write_ahead_log_is_cut_back_when_idle(run, path, make_task, eventually):
    async def scenario():
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task(f"t{n}") for n in range(2000)])
            log = path.with_name(path.name + "-wal")
            assert log.stat().st_size > 100_000
            await eventually(lambda: log.stat().st_size == 0)
            await queue.publish([make_task("more")])

    run(scenario())


def test_row_that_somebody_put_in_by_hand_stops_nobody(run, path, make_task, take_all):
    async def scenario():
        async with open_embedded(path):
            pass
        with sqlite3.connect(path) as connection:
            connection.execute(
                "INSERT INTO tasks (id, algorithm, payload, digest, state, attempt, available_at, created_at,"
                " updated_at) VALUES (CAST(x'61ff' AS TEXT), 'upper', '{\"a\": 1}', 'd', 'queued', 1, 0, 0, 0)"
            )
        connection.close()
        async with open_embedded(path) as (queue, _):
            await queue.publish([make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            taken = await take_all(feed, 2)
            assert [delivery.payload for delivery in taken] == [b'{"a": 1}', make_task("b").payload]
            await queue.ack(taken)

    run(scenario())


def test_closed_queue_and_store_say_so(run, path, make_task):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            await queue.publish([make_task("a")])
        with pytest.raises(QueueUnavailable):
            await queue.publish([make_task("b")])
        with pytest.raises(StoreUnavailable):
            await store.get("a")
        with pytest.raises(QueueClosed):
            await queue.feed("upper")
        await queue.close()

    run(scenario())


def test_memory_holds_no_more_than_the_prefetch(run, path, make_task, take_all, eventually):
    async def scenario():
        async with open_embedded(path) as (queue, store):
            for start in range(0, 5000, 1000):
                await queue.publish([make_task(f"t{start + n}") for n in range(1000)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(50)
            await eventually(lambda: feed.waiting() == 50)
            (counts,) = await store.counts()
            assert counts.by_state == {TaskState.QUEUED: 5000}

    run(scenario())


def test_failure_codes_fit_their_column():
    assert max(len(code.value) for code in FailureCode) <= 32
