"""How many, and to whom."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from controller.batching import LatencyEstimate, Room, prefetch, room, share
from runnerlib.contract import BatchEntry, EntryState, Limits


def entries(*seconds):
    return [
        BatchEntry(id=str(n), attempt=1, state=EntryState.SUCCEEDED, seconds=each) for n, each in enumerate(seconds)
    ]


def measured(seconds, count=1, batched=False):
    latency = LatencyEstimate()
    for _ in range(20):
        latency.observe(entries(*[seconds] * count), 0.5, batched=batched)
    return latency


def test_algorithm_without_a_twin_goes_one_by_one_until_it_is_measured():
    assert LatencyEstimate().batch_size(Limits(batch=64)) == 1


def test_algorithm_without_a_twin_sends_what_fits_in_a_tenth_of_a_second():
    assert measured(0.01).batch_size(Limits(batch=64)) == 10
    assert measured(0.5).batch_size(Limits(batch=64)) == 1
    assert measured(0.00001).batch_size(Limits(batch=64)) == 64
    assert measured(0.0).batch_size(Limits(batch=64)) == 64


def test_number_of_tasks_in_a_call_doubles_at_most():
    latency, limits = LatencyEstimate(), Limits(batch=64)
    caps = []
    for _ in range(8):
        caps.append(latency.batch_size(limits))
        latency.observe(entries(0.0001), 0.01, batched=False)
    assert caps == [1, 2, 4, 8, 16, 32, 64, 64]


def test_delay_of_a_single_short_task_does_not_make_the_next_calls_small():
    latency = measured(0.000002, count=512)
    for _ in range(12):
        latency.observe(entries(*[0.000002] * 512), 0.002, batched=False)
    latency.observe(entries(0.005), 0.005, batched=False)
    assert latency.batch_size(Limits(batch=512)) == 512
    latency.observe(entries(1.0), 1.0, batched=False)
    assert latency.batch_size(Limits(batch=512)) == 1


def test_twinned_algorithm_sends_up_to_its_batch_at_once():
    assert LatencyEstimate().batch_size(Limits(batch=32, batched=True)) == 32


def test_one_slow_task_shrinks_batches_at_once_and_fast_ones_grow_them_slowly():
    latency = measured(0.001)
    latency.observe(entries(10.0), 10, batched=False)
    assert latency.batch_size(Limits()) == 1
    assert not latency.is_short
    latency.observe(entries(0.001), 0.1, batched=False)
    assert latency.batch_size(Limits()) == 1


def test_runner_that_measures_nothing_is_measured_from_outside():
    latency = LatencyEstimate()
    latency.observe(entries(None, None), 0.08, batched=False)
    assert latency.task_seconds == 0.04
    latency.observe([], 9.0, batched=False)
    assert latency.task_seconds == 0.04


def test_short_calls_let_one_more_wait_at_each_slot():
    limits = Limits(slots=3)
    assert LatencyEstimate().calls_at_once(limits) == 3
    assert measured(0.001).calls_at_once(limits) == 6
    assert measured(0.2).calls_at_once(limits) == 3


def test_call_of_a_twin_takes_as_long_as_its_slowest_member():
    latency = measured(0.09, count=64, batched=True)
    assert latency.is_short


def test_waiting_tasks_are_split_fairly_over_free_slots():
    assert share(10, 4, 64) == 3
    assert share(1, 4, 64) == 1
    assert share(1000, 2, 64) == 64
    assert share(5, 0, 64) == 5


def test_least_loaded_runner_is_filled_first():
    found = room({"a": 1, "b": 0}, Limits(slots=2), 2)
    assert (found.next_runner, found.calls, found.free_slots) == ("b", 3, 3)
    assert room({"a": 1, "b": 2}, Limits(slots=2), 2).next_runner == "a"
    assert room({"a": 5}, Limits(slots=1), 2) == Room(None, 0, 0)
    assert room({}, Limits(slots=1), 2) == Room(None, 0, 0)


def test_room_takes_no_more_memory_for_many_slots_than_for_one():
    def peak(calls_at_once):
        tracemalloc.start()
        try:
            room({"a": 1, "b": 0}, Limits(), calls_at_once)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(200_000) < 2 * peak(2) + 10_000


def test_prefetch_is_what_the_runners_can_be_sent_and_nothing_without_a_runner():
    assert prefetch(64, calls_at_once=4, runners=3) == 64 * 4 * 3
    assert prefetch(64, calls_at_once=4, runners=0, stranded=5) == 0
    assert prefetch(1, calls_at_once=1, runners=1, stranded=7) == 8


def test_prefetch_stays_within_what_brokers_and_memory_take():
    assert prefetch(4096, calls_at_once=2 * 10**9, runners=3, stranded=10**6) == 65_535


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 5), max_size=6), st.integers(1, 4))
def test_no_runner_gets_more_calls_than_it_may_have(loads, slots):
    limits = Limits(slots=slots)
    found = room(loads, limits, slots * 2)
    assert found.calls == sum(max(0, slots * 2 - load) for load in loads.values())
    for _ in range(found.calls):
        runner = room(loads, limits, slots * 2).next_runner
        assert loads[runner] == min(loads.values())
        loads[runner] += 1
    assert room(loads, limits, slots * 2).next_runner is None
