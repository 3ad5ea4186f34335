"""Lists of tasks and of dead letters, discarding, and what retention drops. Rows come from records alone."""

import time

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.tasks import (
    Cancelled,
    Conflicting,
    DeadAnswer,
    DeadFilter,
    Failed,
    Placement,
    Retrying,
    Succeeded,
    TaskFilter,
)

EVERYTHING = TaskFilter()
HANDLER_ERROR, TIMEOUT = FailureCode.HANDLER_ERROR, FailureCode.TIMEOUT


@pytest.fixture
def fill(make_delivery):
    """Six tasks, each in another state or of another algorithm, in this order."""

    async def into(store):
        other = make_delivery("other")
        object.__setattr__(other, "algorithm", "lower")
        await store.record([Succeeded(make_delivery("done"), b"1", runner="text-1")])
        await store.record([Failed(make_delivery("failed"), HANDLER_ERROR, "x" * 5000)])
        await store.record([Cancelled(make_delivery("cancelled"))])
        await store.record([Retrying(make_delivery("retrying"), TIMEOUT, "slow", time.time() + 60)])
        await store.place([(make_delivery("running"), Placement("running", 1, "text-1", "b0"))])
        await store.record([Succeeded(other, b"1")])

    return into


async def ids(store, wanted, limit=100):
    """All pages, one after the other."""
    found, page = [], await store.list_tasks(wanted, limit=limit)
    while True:
        assert len(page) <= limit
        found += [line.id for line in page]
        if page.next is None:
            return found
        page = await store.list_tasks(wanted, limit=limit, before=page.next)


def test_tasks_are_listed_newest_first_with_all_that_a_line_tells(run, open_store, fill):
    async def scenario():
        async with open_store() as store:
            assert (await store.list_tasks(EVERYTHING)).items == ()
            await fill(store)
            await store.report_progress([("running", 1, 0.5, "half")])
            lines = {line.id: line for line in await store.list_tasks(EVERYTHING)}
            assert list(lines) == ["other", "running", "retrying", "cancelled", "failed", "done"]
            assert sorted(line.seq for line in lines.values()) == [line.seq for line in lines.values()][::-1]
            for task_id, line in lines.items():
                row = await store.get(task_id)
                for name in ("algorithm", "state", "attempt", "created_at", "updated_at", "finished_at", "expires_at"):
                    assert getattr(line, name) == getattr(row, name), name
                for name in ("error_code", "runner", "cancel_requested", "progress", "replays"):
                    assert getattr(line, name) == getattr(row, name), name
            assert lines["running"].progress.fraction == 0.5
            assert lines["done"].error_message is None
            assert lines["failed"].error_message == "x" * 999 + "…", "long messages are cut"

    run(scenario())


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 100])
def test_pages_meet_without_a_gap(run, open_store, fill, limit):
    async def scenario():
        async with open_store() as store:
            await fill(store)
            everything = ["other", "running", "retrying", "cancelled", "failed", "done"]
            assert await ids(store, EVERYTHING, limit) == everything
            finished = TaskFilter("upper", frozenset({TaskState.SUCCEEDED, TaskState.CANCELLED}))
            assert await ids(store, finished, limit) == ["cancelled", "done"]

    run(scenario())


def test_filters_go_together(run, open_store, fill):
    async def scenario():
        async with open_store() as store:
            await fill(store)
            assert await ids(store, TaskFilter(algorithm="lower")) == ["other"]
            assert await ids(store, TaskFilter(algorithm="nobody")) == []
            assert await ids(store, TaskFilter(states=frozenset({TaskState.FAILED}))) == ["failed"]
            assert await ids(store, TaskFilter("lower", frozenset({TaskState.FAILED}))) == []
            rows = await store.lookup(["cancelled", "running"])
            since, until = rows["cancelled"].created_at, rows["running"].created_at
            assert await ids(store, TaskFilter(created_from=since, created_before=until)) == ["retrying", "cancelled"]
            assert await ids(store, TaskFilter(created_from=time.time() + 3600)) == []
            assert await ids(store, TaskFilter(created_before=time.time() - 3600)) == []
            assert len(await ids(store, TaskFilter(created_from=0.0, created_before=4e9))) == 6

    run(scenario())


def test_task_that_nobody_has_seen_is_not_listed_though_it_is_cancelled(run, open_store, fill):
    async def scenario():
        async with open_store() as store:
            await fill(store)
            await store.cancel("unseen")
            assert "unseen" not in await ids(store, EVERYTHING)
            assert await ids(store, TaskFilter(states=frozenset({TaskState.CANCELLED}))) == ["cancelled"]

    run(scenario())


@pytest.mark.parametrize("before", [-(2**70), -1, 0, 1, 2**70])
def test_list_goes_on_from_anywhere(run, open_store, fill, before):
    async def scenario():
        async with open_store() as store:
            await fill(store)
            assert len(await store.list_tasks(EVERYTHING, before=before)) == (6 if before > 1 else 0)
            assert len(await store.dead_letters(before=before)) == (1 if before > 1 else 0)

    run(scenario())


def test_dead_letters_are_found_by_every_filter(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            other = make_delivery("b")
            object.__setattr__(other, "algorithm", "lower")
            await store.record([Failed(make_delivery("a"), HANDLER_ERROR, "y" * 5000, "Traceback …")])
            await store.record([Failed(other, TIMEOUT, "slow")])
            await store.record([Conflicting(make_delivery("a"), "the id of another task")])

            async def found(**wanted):
                return [(line.task_id, line.code.value) for line in await store.dead_letters(DeadFilter(**wanted))]

            a, b, c = ("a", "handler_error"), ("b", "timeout"), ("a", "id_conflict")
            assert await found() == [c, b, a]
            assert await found(algorithm="upper") == [c, a]
            assert await found(codes=frozenset({TIMEOUT, HANDLER_ERROR})) == [b, a]
            assert await found(task_id="a") == [c, a]
            assert await found(task_id="a", codes=frozenset({HANDLER_ERROR})) == [a]
            assert await found(task_id="nobody") == []
            third, second, first = await store.dead_letters()
            assert await found(created_from=second.created_at) == [c, b]
            assert await found(created_before=second.created_at) == [a]
            assert await found(created_before=first.created_at - 3600) == []
            assert (first.attempts, third.attempts) == (1, 0)
            assert first.message == "y" * 999 + "…"
            assert await store.discard([second.dead_id]) == [DeadAnswer.DISCARDED]
            assert await found() == [c, a]
            assert await found(waiting_only=False) == [c, b, a]

    run(scenario())


def test_one_dead_letter_is_read_with_all_it_holds(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Failed(make_delivery("a", body=b"\x00\xff"), TIMEOUT, "slow", "Traceback …")])
            (line,) = await store.dead_letters()
            letter = await store.dead_letter(line.dead_id)
            assert (letter.body, letter.traceback, letter.message) == (b"\x00\xff", "Traceback …", "slow")
            for unknown in (line.dead_id + 1, 0, -1, 2**63, 2**70):
                assert await store.dead_letter(unknown) is None

    run(scenario())


def test_discard_is_noted_once_and_leaves_the_dead_letter_readable(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Failed(make_delivery(f"t{n}"), TIMEOUT, "slow") for n in range(3)])
            two, one, zero = [line.dead_id for line in await store.dead_letters()]
            discarded, before, unknown = DeadAnswer.DISCARDED, DeadAnswer.ALREADY_DISCARDED, DeadAnswer.UNKNOWN
            assert await store.discard([]) == []
            assert await store.discard([zero, one, zero, 2**70, -1]) == [discarded, discarded, before, unknown, unknown]
            noted = (await store.dead_letter(one)).discarded_at
            assert await store.discard([one, two]) == [before, discarded]
            letter = await store.dead_letter(one)
            assert (letter.discarded_at, letter.replayed_at) == (noted, None)
            assert (await store.get("t1")).state is TaskState.FAILED

    run(scenario())


def test_retention_drops_dead_letters_that_were_decided_on_and_never_open_ones(run, open_store, make_delivery):
    async def scenario():
        async with open_store() as store:
            await store.record([Failed(make_delivery(f"t{n}"), TIMEOUT, "slow") for n in range(5)])
            ids = [line.dead_id for line in await store.dead_letters()]
            await store.discard(ids[:3])
            assert await store.purge(time.time() - 60, 100) == 0
            later = time.time() + 60
            assert [await store.purge(later, 6), await store.purge(later, 6), await store.purge(later, 6)] == [6, 2, 0]
            left = await store.dead_letters(DeadFilter(waiting_only=False))
            assert [line.dead_id for line in left] == ids[3:]
            await store.record([Failed(make_delivery("new"), TIMEOUT, "slow")])
            (newest, *_) = await store.dead_letters()
            assert newest.dead_id > max(ids), "an id is never used twice"

    run(scenario())
