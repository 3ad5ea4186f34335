"""To whom tasks belong, where they are published; and who sees what."""

import pytest

from runnerlib.contract import FailureCode, TaskState
from taskqueue.sql import pages
from taskqueue.tasks import CancelAnswer, DeadFilter, Delivery, Failed, Placement, Published, TaskFilter
from taskqueue.tokens import EVERYTHING, Reach

ACCEPTED, DUPLICATE, CONFLICT = Published.ACCEPTED, Published.DUPLICATE, Published.CONFLICT
OWN = Reach("a1", others=False)


def test_the_same_id_by_another_is_a_conflict_whatever_the_content(run, open_replaying, make_task):
    async def scenario():
        async with open_replaying() as (queue, store):
            mine = make_task("a", submitted_by="a1")
            assert await queue.publish([mine]) == [ACCEPTED]
            assert await queue.publish([mine]) == [DUPLICATE]
            for other in ("b2", None):
                assert await queue.publish([make_task("a", submitted_by=other)]) == [CONFLICT]
                assert await queue.publish([make_task("a", payload={"text": "x"}, submitted_by=other)]) == [CONFLICT]
            assert await queue.publish([make_task("b")]) == [ACCEPTED]
            assert await queue.publish([make_task("b", submitted_by="a1")]) == [CONFLICT]
            rows = await store.lookup(["a", "b"])
            assert {name: row.submitted_by for name, row in rows.items()} == {"a": "a1", "b": None}
            assert rows["a"].payload == mine.payload

    run(scenario())


@pytest.mark.parametrize("owner", ["a1", None])
def test_tombstone_belongs_to_who_made_it(run, open_replaying, make_task, owner):
    async def scenario():
        async with open_replaying() as (queue, store):
            assert await store.cancel("a", reach=Reach(owner)) is CancelAnswer.CANCELLED
            assert await queue.publish([make_task("a", submitted_by="b2")]) == [CONFLICT]
            assert (await store.get("a")).digest == ""
            await queue.publish([make_task("a", submitted_by=owner)])
            row = await store.get("a")
            assert (row.state, row.digest) == (TaskState.CANCELLED, make_task("a").digest)

    run(scenario())


def test_pages_of_one_token_do_not_tell_of_others(run, open_replaying, make_task, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(pages, "FIRST_STEP", 1)

    async def scenario():
        async with open_replaying() as (queue, store):
            others = [make_task(f"o{n}", submitted_by="b2") for n in range(5)]
            await queue.publish([make_task("first", submitted_by="a1")])
            await queue.publish(others)
            await queue.publish([make_task("last", submitted_by="a1")])
            nothing = await store.list_tasks(TaskFilter(reach=Reach("c3", others=False)))
            assert (list(nothing), nothing.next) == ([], None)
            seen, before = [], None
            for _ in range(2):
                page = await store.list_tasks(TaskFilter(reach=OWN), limit=1, before=before)
                seen += [task.id for task in page]
                before = page.next
            assert (seen, before) == (["last", "first"], None)

    run(scenario())


def test_lists_and_counts_have_what_is_in_reach(run, open_replaying, make_task, take_all):
    async def scenario():
        async with open_replaying() as (queue, store):
            await queue.publish([make_task("mine", submitted_by="a1"), make_task("other", submitted_by="b2")])
            await queue.publish([make_task("nobody"), make_task("low", "lower", submitted_by="b2")])
            reaches = {
                "all": EVERYTHING,
                "own": OWN,
                "upper and own": Reach("b2", algorithms=("u?p*",)),
                "upper": Reach("c3", algorithms=("u*",)),
                "names": Reach("c3", algorithms=("l_wer", "nothing")),
            }
            seen = {
                name: {task.id for task in await store.list_tasks(TaskFilter(reach=reach))}
                for name, reach in reaches.items()
            }
            assert seen == {
                "all": {"mine", "other", "nobody", "low"},
                "own": {"mine"},
                "upper and own": {"mine", "other", "nobody", "low"},
                "upper": {"mine", "other", "nobody"},
                "names": set(),
            }
            for name, reach in reaches.items():
                rows = await store.lookup(["mine", "other", "nobody", "low"])
                assert {row.id for row in rows.values() if reach.includes(row.submitted_by, row.algorithm)} == seen[
                    name
                ]
            assert [(each.algorithm, sum(each.by_state.values())) for each in await store.counts(OWN)] == [("upper", 1)]
            counted = {each.algorithm: each for each in await store.counts(reaches["upper"])}
            assert set(counted) == {"upper"} and sum(counted["upper"].by_state.values()) == 3
            feed = await queue.feed("upper")
            await feed.set_prefetch(3)
            for delivery in await take_all(feed, 3):
                await store.record([Failed(delivery, FailureCode.HANDLER_ERROR, "broken")])
            letters = await store.dead_letters(DeadFilter(reach=OWN))
            assert [(each.task_id, each.submitted_by) for each in letters] == [("mine", "a1")]
            (letter,) = letters
            assert (await store.dead_letter(letter.dead_id)).submitted_by == "a1"
            assert len(await store.dead_letters(DeadFilter(reach=Reach("c3", algorithms=("l*",))))) == 0
            assert len(await store.dead_letters()) == 3

    run(scenario())


def test_waiting_tasks_of_a_token_or_an_algorithm_are_counted_up_to_a_bound(run, open_replaying, make_task):
    async def scenario():
        async with open_replaying() as (queue, store):
            mine = [make_task(f"m{number}", submitted_by="a1") for number in range(3)]
            await queue.publish([*mine, make_task("other"), make_task("ocr", "ocr", submitted_by="a1")])
            await store.cancel("m0")
            assert await store.count_waiting(9, submitted_by="a1") == 3
            assert await store.count_waiting(2, submitted_by="a1") == 2
            assert await store.count_waiting(9, submitted_by="b2") == 0
            assert await store.count_waiting(9, algorithm="upper") == 3
            assert await store.count_waiting(1, algorithm="upper") == 1
            delivery = make_delivery_of(mine[1])
            await store.place([(delivery, Placement("m1", 1, "text-1", "boot"))])
            assert await store.count_waiting(9, submitted_by="a1") == 2
            assert await store.count_waiting(9, algorithm="upper") == 2

    run(scenario())


def make_delivery_of(task):
    return Delivery(task.id, task.algorithm, task.payload, task.digest, 1, None)
