"""Settling each tag once, in few calls; returns in good order do not count."""

from hypothesis import given
from hypothesis import strategies as st

from taskqueue.rabbitmq.unacked import ReturnCounter, UnackedDeliveries


class RecordingChannel:
    is_open = True

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []

    def ack(self, tag: int, multiple: bool) -> None:
        self.calls.append((tag, multiple))


class Deliveries(UnackedDeliveries):
    """The tags 1 to `count`."""

    def __init__(self, count: int) -> None:
        self.settled: list[int] = []
        super().__init__(RecordingChannel(), self.settled.extend)
        for tag in range(1, count + 1):
            self.arrived(tag)

    def settle(self, tags: list[int], *, reserved: bool = False) -> tuple[list[int], list[tuple[int, bool]]]:
        """Acknowledges them: the tags that were settled, and the (tag, multiple) calls of the channel."""
        self.settled.clear()
        self._channel.calls.clear()
        self.ack(tags, reserved=reserved)
        return list(self.settled), list(self._channel.calls)


def test_a_prefix_becomes_one_call():
    unacked = Deliveries(5)
    assert unacked.settle([3, 1, 2]) == ([1, 2, 3], [(3, True)])
    assert unacked.settle([4]) == ([4], [(4, False)])
    assert unacked.settle([5]) == ([5], [(5, False)])
    assert len(unacked) == 0


def test_tags_beyond_a_gap_are_settled_one_by_one():
    unacked = Deliveries(6)
    assert unacked.settle([1, 2, 4, 6]) == ([1, 2, 4, 6], [(2, True), (4, False), (6, False)])
    assert unacked.settle([3, 5]) == ([3, 5], [(5, True)]), "what lies between is settled already"


def test_a_tag_is_settled_once():
    unacked = Deliveries(2)
    assert unacked.settle([1, 2, 2]) == ([1, 2], [(2, True)])
    assert unacked.settle([1, 2]) == ([], [])
    assert unacked.settle([7]) == ([], [])


def test_a_reserved_tag_is_left_to_whoever_reserved_it():
    unacked = Deliveries(3)
    assert unacked.reserve(2)
    assert not unacked.reserve(2)
    assert unacked.settle([1, 2, 3]) == ([1, 3], [(1, False), (3, False)])
    assert len(unacked) == 1
    assert unacked.settle([2], reserved=True) == ([2], [(2, False)])
    assert unacked.settle([2], reserved=True) == ([], [])


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["settle", "reserve", "settle reserved"])), max_size=80))
def test_any_order_settles_just_what_was_asked_for(steps):
    """The broker's side: a multiple call settles all up to its tag, and a tag that is not out is an error."""
    unacked = Deliveries(30)
    out, reserved = set(range(1, 31)), set()
    for tag, what in steps:
        asked = [tag, min(30, tag + 1), max(1, tag - 3)]
        if what == "reserve":
            expected = tag in out and tag not in reserved
            assert unacked.reserve(tag) == expected
            reserved |= {tag} & out
            continue
        here = reserved if what == "settle reserved" else out - reserved
        settled, calls = unacked.settle(asked, reserved=what == "settle reserved")
        assert settled == sorted(here & set(asked))
        told: set[int] = set()
        for number, multiple in calls:
            assert number in out
            told |= {each for each in out if each <= number} if multiple else {number}
            out -= told
        assert sorted(told) == settled
        reserved -= told
        assert len(unacked) == len(out)


def test_a_return_in_good_order_is_subtracted_where_the_broker_counts_it():
    returns = ReturnCounter()
    returns.returned("a", 1, 0)
    assert returns.uncounted("a", 1, 1) == 1
    returns.returned("a", 1, 1)
    assert returns.uncounted("a", 1, 2) == 2


def test_a_return_that_the_broker_does_not_count_is_not_subtracted():
    returns = ReturnCounter()
    returns.returned("a", 1, 3)
    assert returns.uncounted("a", 1, 3) == 0


def test_a_crash_after_a_return_is_counted():
    returns = ReturnCounter()
    returns.returned("a", 1, 0)
    assert returns.uncounted("a", 1, 3) == 1


def test_nothing_is_subtracted_for_others_and_for_other_attempts():
    returns = ReturnCounter()
    returns.returned("a", 1, 0)
    assert returns.uncounted("a", 2, 1) == 0
    assert returns.uncounted("b", 1, 1) == 0
    returns.forget("a", 1)
    assert returns.uncounted("a", 1, 1) == 0


def test_the_record_is_bounded():
    returns = ReturnCounter(most=10)
    for number in range(25):
        returns.returned(f"t{number}", 1, 0)
    assert len(returns) == 10
    assert returns.uncounted("t24", 1, 1) == 1
    assert returns.uncounted("t0", 1, 1) == 0
