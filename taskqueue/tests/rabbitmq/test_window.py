"""How many messages a consumer may hold."""

from hypothesis import given
from hypothesis import strategies as st

from taskqueue.rabbitmq.window import MOST_BYTES, Window


def window_of(count: int) -> Window:
    window = Window()
    window.count = count
    return window


def fill(window: Window, first: int, count: int, size: int = 100) -> None:
    for tag in range(first, first + count):
        window.arrived(tag, size)


def test_nothing_is_wanted_before_a_prefetch_is_set():
    window = window_of(0)
    assert window.tune_in(0.0) is None
    assert not window.has_room


def test_first_consumer_gets_the_prefetch_at_once():
    window = window_of(8)
    assert window.tune_in(0.0) == 0.0
    assert window.retune(0.0) == 8
    assert window.has_room
    assert window.tune_in(0.0) is None


def test_a_full_consumer_has_no_room():
    window = window_of(2)
    window.retune(0.0)
    fill(window, 1, 2)
    assert not window.has_room
    window.settled([1], 1.0)
    assert window.has_room


def test_growth_leaves_room_for_what_former_consumers_have_out():
    window = window_of(3)
    window.retune(0.0)
    fill(window, 1, 3)
    window.count = 5
    assert window.tune_in(10.0) == 0.0
    assert window.retune(10.0) == 2
    assert window.tune_in(20.0) is None


def test_consumer_is_tuned_again_as_former_ones_are_settled_but_not_at_once():
    window = window_of(5)
    window.retune(0.0)
    fill(window, 1, 3)
    window.count = 6
    assert window.retune(10.0) == 3
    window.settled([2], 10.1)
    assert 0.0 < window.tune_in(10.1) <= 0.2
    assert window.tune_in(10.3) == 0.0
    assert window.retune(10.3) == 4
    window.settled([1, 3], 10.31)
    assert window.tune_in(10.31) == 0.0, "nothing is out, so there is nothing to chase"
    assert window.retune(10.31) == 6


def test_settling_what_the_live_consumer_has_asks_for_no_tuning():
    window = window_of(4)
    window.retune(0.0)
    fill(window, 1, 4)
    window.settled([1, 2], 1.0)
    assert window.tune_in(5.0) is None


def test_fast_turnover_gets_the_prefetch_outright_and_ends_the_chase():
    window = window_of(10)
    window.retune(0.0)
    fill(window, 1, 200)
    window.settled(list(range(1, 191)), 5.0)
    window.count = 100
    assert window.tune_in(5.1) == 0.0
    assert window.retune(5.1) == 100
    assert window.tune_in(9.0) is None
    window.settled(list(range(191, 201)), 9.0)
    assert window.tune_in(9.0) is None


def test_fast_turnover_is_not_disturbed_often_nor_for_little():
    window = window_of(100)
    window.retune(0.0)
    fill(window, 1, 300)
    window.settled(list(range(1, 251)), 5.0)
    window.count = 110
    assert window.tune_in(5.0) is None, "a tenth more is not worth it"
    window.count = 200
    assert window.tune_in(5.0) == 0.0
    window.retune(5.0)
    window.settled(list(range(251, 261)), 5.5)
    window.count = 400
    assert window.tune_in(5.5) == 0.5
    window.count = 250
    assert window.tune_in(9.0) == 0.0, "it is slow by now, and exact again"


def test_the_record_of_what_was_settled_is_kept_short_also_when_nothing_is_tuned():
    window = window_of(10)
    window.retune(0.0)
    for tag in range(1, 5000):
        window.arrived(tag, 10)
        window.settled([tag], tag * 0.01)
        window.tune_in(tag * 0.01)
    assert len(window._settled) <= 102


def test_pause_is_immediate():
    window = window_of(4)
    window.retune(0.0)
    fill(window, 1, 4)
    window.count = 0
    assert window.tune_in(0.01) == 0.0
    assert window.retune(0.01) == 0
    assert window.tune_in(50.0) is None
    assert not window.has_room


def test_shrinking_below_what_is_out_stops_consuming_until_enough_is_settled():
    window = window_of(8)
    window.retune(0.0)
    fill(window, 1, 6)
    window.count = 4
    assert window.tune_in(10.0) == 0.0
    assert window.retune(10.0) == 0
    assert window.tune_in(20.0) is None
    window.settled([1, 2], 20.0)
    assert window.tune_in(20.0) is None
    window.settled([3], 20.0)
    assert window.retune(20.3) == 1


def test_large_messages_are_held_by_their_size():
    window = window_of(1000)
    fill(window, 1, 300, size=4 * 1024 * 1024)
    assert window.wanted == MOST_BYTES // (4 * 1024 * 1024)
    fill(window, 301, 1000, size=100)
    assert window.wanted > 500
    window.count = 3
    assert window.wanted == 3


def test_a_message_above_the_bound_is_still_consumed():
    window = window_of(10)
    fill(window, 1, 1, size=2 * MOST_BYTES)
    assert window.wanted == 1


def test_a_new_channel_starts_from_nothing():
    window = window_of(5)
    window.retune(0.0)
    fill(window, 1, 5)
    window.restart()
    assert (window.out, window.former, window.granted) == (0, 0, 0)
    assert window.tune_in(0.1) == 0.0
    assert window.retune(0.1) == 5


@given(
    st.lists(st.tuples(st.sampled_from(["prefetch", "settle", "tune"]), st.integers(0, 12)), max_size=60),
)
def test_slow_turnover_never_holds_more_than_was_ever_allowed(steps):
    """The broker's side: each consumer is kept full. Whatever happens, out <= the highest prefetch so far."""
    window, tag, out, highest = window_of(0), 0, [], 0
    for now, (what, number) in enumerate(steps):
        if what == "prefetch":
            window.count = number
            highest = max(highest, number)
        elif what == "settle" and out:
            window.settled([out.pop(number % len(out))], float(now))
        elif window.tune_in(float(now)) == 0.0:
            window.retune(float(now))
        while window.has_room:
            tag += 1
            out.append(tag)
            window.arrived(tag, 10)
        assert window.out == len(out) <= highest
        assert 0 <= window.former <= window.out
    for _ in range(3):
        if window.tune_in(1e6) == 0.0:
            window.retune(1e6)
        while out:
            window.settled([out.pop()], 1e6)
    if window.tune_in(1e6) == 0.0:
        window.retune(1e6)
    assert window.granted == window.wanted, "in the end it may hold all that is wanted"
