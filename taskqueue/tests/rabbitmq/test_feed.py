"""A feed on a real broker, beyond what every feed does, and its prefetch without one."""

import asyncio
import dataclasses
import random
import time

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.connection import RobustConnection
from taskqueue.rabbitmq.feed import MOST_BYTES, PrefetchTuner


def test_prefetch_may_change_at_any_time_under_load(run, broker, open_rabbit, make_task):
    """Nothing is lost, nothing comes twice, and nothing stays behind."""
    count = 2000

    async def scenario():
        dice = random.Random(7)
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task(f"t{n}") for n in range(count)])
            feed = await queue.feed("upper")
            await feed.set_prefetch(10)
            seen: list[str] = []
            while len(seen) < count:
                taken = await asyncio.wait_for(feed.take(dice.randint(1, 20)), 15)
                seen += [each.id for each in taken]
                await queue.ack(taken)
                if dice.random() < 0.1:
                    await feed.set_prefetch(dice.choice([0, 1, 3, 50]))
                    await feed.set_prefetch(dice.choice([2, 7, 30, 80]))
            assert sorted(seen) == sorted(f"t{n}" for n in range(count))

    run(scenario())


def test_shrinking_gives_back_the_newest_to_others(run, broker, open_rabbit, make_task, take_all, eventually):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await queue.publish([make_task(f"t{n}") for n in range(8)])
            feed, other = await queue.feed("upper"), await queue.feed("upper")
            await feed.set_prefetch(8)
            await eventually(lambda: feed.waiting() == 8)
            await feed.set_prefetch(3)
            await other.set_prefetch(8)
            assert [each.id for each in await take_all(other, 5)] == ["t3", "t4", "t5", "t6", "t7"]
            assert [each.id for each in await feed.take(8)] == ["t0", "t1", "t2"]

    run(scenario())


def test_a_paused_feed_goes_on(run, broker, open_rabbit, make_task, take_all, comes_nothing):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            feed = await queue.feed("upper")
            for round_ in range(3):
                await feed.set_prefetch(0)
                await queue.publish([make_task(f"t{round_}")])
                assert await comes_nothing(feed)
                await feed.set_prefetch(2)
                taken = await take_all(feed, 1)
                assert [each.id for each in taken] == [f"t{round_}"]
                await queue.ack(taken)

    run(scenario())


def test_what_was_taken_can_be_settled_after_the_feed_closed(run, broker, open_rabbit, make_task, take_all):
    async def scenario():
        async with open_rabbit(broker.url) as queue, RobustConnection(parse_queue_url(broker.url), "probe") as probe:
            await queue.publish([make_task("a"), make_task("b")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(2)
            taken = await take_all(feed, 2)
            await feed.close()
            await queue.ack(taken)
            await asyncio.wait_for(asyncio.wait({feed._task}), 30)
            channel = await probe.channel()
            assert (await channel.declare_queue("tasks.upper", passive=True)).messages == 0

    run(scenario())


def test_a_message_that_is_no_task_neither_blocks_its_neighbours_nor_is_lost(
    run, broker, open_rabbit, make_task, take_all
):
    def stranger() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().basic_publish("tasks", "upper", b"nonsense")

    async def scenario():
        async with open_rabbit(broker.url) as queue:
            await asyncio.to_thread(stranger)
            await queue.publish([make_task("a")])
            feed = await queue.feed("upper")
            await feed.set_prefetch(5)
            assert [each.id for each in await take_all(feed, 1)] == ["a"]
            ingress = await queue.ingress_feed()
            (arrival,) = await asyncio.wait_for(ingress.take(5), 30)
            assert arrival.body == b"nonsense"

    run(scenario())


def test_a_feed_that_cannot_consume_is_reported_with_its_reason(
    run, broker, open_rabbit, make_task, take_all, eventually
):
    """Somebody declared its queue in another way."""

    def in_the_way() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().queue_declare("tasks.taken", durable=True)

    async def scenario():
        state: dict[str, str] = {}

        def report(part: str, ready: bool, reason: str) -> None:
            state.pop(part, None)
            if not ready:
                state[part] = reason

        await asyncio.to_thread(in_the_way)
        async with open_rabbit(broker.url, report=report) as queue:
            feed, fine = await queue.feed("taken"), await queue.feed("upper")
            await feed.set_prefetch(1)
            await fine.set_prefetch(1)
            await queue.publish([make_task("a")])
            assert [each.id for each in await take_all(fine, 1)] == ["a"]
            await eventually(lambda: list(state) == ["queue tasks.taken"], 10)
            assert "tasks.taken" in state["queue tasks.taken"]
            await asyncio.to_thread(broker.delete_queue, "tasks.taken")
            await eventually(lambda: not state, 10)

    run(scenario())


def test_closing_is_prompt_while_the_broker_is_frozen_or_gone(run, own_broker, open_rabbit, make_task, eventually):
    server = own_broker()

    async def scenario():
        for away in (server.pause, server.kill):
            async with open_rabbit(server.url) as queue:
                await queue.publish([make_task(f"t{n}") for n in range(4)])
                feed = await queue.feed("upper")
                await feed.set_prefetch(4)
                await eventually(lambda feed=feed: feed.waiting() == 4)
                await asyncio.to_thread(away)
                began = time.monotonic()
                await feed.close()
                assert time.monotonic() - began < 6
            assert time.monotonic() - began < 15
            await asyncio.to_thread(server.resume)

    run(scenario())


@pytest.mark.parametrize("receipt", [None, object(), ("a", 1), 7])
def test_a_receipt_that_is_not_ours_is_ignored(run, broker, open_rabbit, make_delivery, receipt):
    async def scenario():
        async with open_rabbit(broker.url) as queue:
            delivery = dataclasses.replace(make_delivery("a"), receipt=receipt)
            await queue.ack([delivery])
            await queue.release([delivery])

    run(scenario())


def prefetch_of(count: int) -> PrefetchTuner:
    prefetch = PrefetchTuner()
    prefetch.count = count
    return prefetch


def fill(prefetch: PrefetchTuner, first: int, count: int, size: int = 100) -> None:
    for tag in range(first, first + count):
        prefetch.arrived(tag, size)


def test_nothing_is_wanted_before_a_prefetch_is_set():
    prefetch = prefetch_of(0)
    assert prefetch.tune_in(0.0) is None
    assert not prefetch.has_room


def test_first_consumer_gets_the_prefetch_at_once():
    prefetch = prefetch_of(8)
    assert prefetch.tune_in(0.0) == 0.0
    assert prefetch.retune(0.0) == 8
    assert prefetch.has_room
    assert prefetch.tune_in(0.0) is None


def test_a_full_consumer_has_no_room():
    prefetch = prefetch_of(2)
    prefetch.retune(0.0)
    fill(prefetch, 1, 2)
    assert not prefetch.has_room
    prefetch.settled([1], 1.0)
    assert prefetch.has_room


def test_growth_leaves_room_for_what_former_consumers_have_out():
    prefetch = prefetch_of(3)
    prefetch.retune(0.0)
    fill(prefetch, 1, 3)
    prefetch.count = 5
    assert prefetch.tune_in(10.0) == 0.0
    assert prefetch.retune(10.0) == 2
    assert prefetch.tune_in(20.0) is None


def test_consumer_is_tuned_again_as_former_ones_are_settled_but_not_at_once():
    prefetch = prefetch_of(5)
    prefetch.retune(0.0)
    fill(prefetch, 1, 3)
    prefetch.count = 6
    assert prefetch.retune(10.0) == 3
    prefetch.settled([2], 10.1)
    assert 0.0 < prefetch.tune_in(10.1) <= 0.2
    assert prefetch.tune_in(10.3) == 0.0
    assert prefetch.retune(10.3) == 4
    prefetch.settled([1, 3], 10.31)
    assert prefetch.tune_in(10.31) == 0.0, "nothing is out, so there is nothing to chase"
    assert prefetch.retune(10.31) == 6


def test_settling_what_the_live_consumer_has_asks_for_no_tuning():
    prefetch = prefetch_of(4)
    prefetch.retune(0.0)
    fill(prefetch, 1, 4)
    prefetch.settled([1, 2], 1.0)
    assert prefetch.tune_in(5.0) is None


def test_fast_turnover_gets_the_prefetch_outright_and_ends_the_chase():
    prefetch = prefetch_of(10)
    prefetch.retune(0.0)
    fill(prefetch, 1, 200)
    prefetch.settled(list(range(1, 191)), 5.0)
    prefetch.count = 100
    assert prefetch.tune_in(5.1) == 0.0
    assert prefetch.retune(5.1) == 100
    assert prefetch.tune_in(9.0) is None
    prefetch.settled(list(range(191, 201)), 9.0)
    assert prefetch.tune_in(9.0) is None


def test_fast_turnover_is_not_disturbed_often_nor_for_little():
    prefetch = prefetch_of(100)
    prefetch.retune(0.0)
    fill(prefetch, 1, 300)
    prefetch.settled(list(range(1, 251)), 5.0)
    prefetch.count = 110
    assert prefetch.tune_in(5.0) is None, "a tenth more is not worth it"
    prefetch.count = 200
    assert prefetch.tune_in(5.0) == 0.0
    prefetch.retune(5.0)
    prefetch.settled(list(range(251, 261)), 5.5)
    prefetch.count = 400
    assert prefetch.tune_in(5.5) == 0.5
    prefetch.count = 250
    assert prefetch.tune_in(9.0) == 0.0, "it is slow by now, and exact again"


def test_a_prefetch_that_is_far_too_small_soon_grows_however_fast_tasks_pass():
    prefetch = prefetch_of(100)
    prefetch.retune(0.0)
    fill(prefetch, 1, 300)
    prefetch.settled(list(range(1, 251)), 0.05)
    prefetch.count = 399
    assert prefetch.tune_in(0.05) == pytest.approx(0.95)
    prefetch.count = 400
    assert prefetch.tune_in(0.05) == pytest.approx(0.15)


def test_the_record_of_what_was_settled_is_kept_short_also_when_nothing_is_tuned():
    prefetch = prefetch_of(10)
    prefetch.retune(0.0)
    for tag in range(1, 5000):
        prefetch.arrived(tag, 10)
        prefetch.settled([tag], tag * 0.01)
        prefetch.tune_in(tag * 0.01)
    assert len(prefetch._settled) <= 102


def test_pause_is_immediate():
    prefetch = prefetch_of(4)
    prefetch.retune(0.0)
    fill(prefetch, 1, 4)
    prefetch.count = 0
    assert prefetch.tune_in(0.01) == 0.0
    assert prefetch.retune(0.01) == 0
    assert prefetch.tune_in(50.0) is None
    assert not prefetch.has_room


def test_shrinking_below_what_is_out_stops_consuming_until_enough_is_settled():
    prefetch = prefetch_of(8)
    prefetch.retune(0.0)
    fill(prefetch, 1, 6)
    prefetch.count = 4
    assert prefetch.tune_in(10.0) == 0.0
    assert prefetch.retune(10.0) == 0
    assert prefetch.tune_in(20.0) is None
    prefetch.settled([1, 2], 20.0)
    assert prefetch.tune_in(20.0) is None
    prefetch.settled([3], 20.0)
    assert prefetch.retune(20.3) == 1


def test_large_messages_are_held_by_their_size():
    prefetch = prefetch_of(1000)
    fill(prefetch, 1, 300, size=4 * 1024 * 1024)
    assert prefetch.wanted == MOST_BYTES // (4 * 1024 * 1024)
    fill(prefetch, 301, 1000, size=100)
    assert prefetch.wanted > 500
    prefetch.count = 3
    assert prefetch.wanted == 3


def test_a_message_above_the_bound_is_still_consumed():
    prefetch = prefetch_of(10)
    fill(prefetch, 1, 1, size=2 * MOST_BYTES)
    assert prefetch.wanted == 1


def test_a_new_channel_starts_from_nothing():
    prefetch = prefetch_of(5)
    prefetch.retune(0.0)
    fill(prefetch, 1, 5)
    prefetch.restart()
    assert (prefetch.out, prefetch.former, prefetch.granted) == (0, 0, 0)
    assert prefetch.tune_in(0.1) == 0.0
    assert prefetch.retune(0.1) == 5


@given(
    st.lists(st.tuples(st.sampled_from(["prefetch", "settle", "tune"]), st.integers(0, 12)), max_size=60),
)
def test_slow_turnover_never_holds_more_than_was_ever_allowed(steps):
    """The broker's side: each consumer is kept full. Whatever happens, out <= the highest prefetch so far."""
    prefetch, tag, out, highest = prefetch_of(0), 0, [], 0
    for now, (what, number) in enumerate(steps):
        if what == "prefetch":
            prefetch.count = number
            highest = max(highest, number)
        elif what == "settle" and out:
            prefetch.settled([out.pop(number % len(out))], float(now))
        elif prefetch.tune_in(float(now)) == 0.0:
            prefetch.retune(float(now))
        while prefetch.has_room:
            tag += 1
            out.append(tag)
            prefetch.arrived(tag, 10)
        assert prefetch.out == len(out) <= highest
        assert 0 <= prefetch.former <= prefetch.out
    for _ in range(3):
        if prefetch.tune_in(1e6) == 0.0:
            prefetch.retune(1e6)
        while out:
            prefetch.settled([out.pop()], 1e6)
    if prefetch.tune_in(1e6) == 0.0:
        prefetch.retune(1e6)
    assert prefetch.granted == prefetch.wanted, "in the end it may hold all that is wanted"
