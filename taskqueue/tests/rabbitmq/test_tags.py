"""Settling each tag once, in few calls."""

from hypothesis import given
from hypothesis import strategies as st

from taskqueue.rabbitmq.tags import Tags


def tags_of(count: int) -> Tags:
    tags = Tags()
    for tag in range(1, count + 1):
        tags.arrived(tag)
    return tags


def test_a_prefix_becomes_one_call():
    tags = tags_of(5)
    assert tags.settle([3, 1, 2]) == ([1, 2, 3], [(3, True)])
    assert tags.settle([4]) == ([4], [(4, False)])
    assert tags.settle([5]) == ([5], [(5, False)])
    assert len(tags) == 0


def test_tags_beyond_a_gap_are_settled_one_by_one():
    tags = tags_of(6)
    assert tags.settle([1, 2, 4, 6]) == ([1, 2, 4, 6], [(2, True), (4, False), (6, False)])
    assert tags.settle([3, 5]) == ([3, 5], [(5, True)]), "what lies between is settled already"


def test_a_tag_is_settled_once():
    tags = tags_of(2)
    assert tags.settle([1, 2, 2]) == ([1, 2], [(2, True)])
    assert tags.settle([1, 2]) == ([], [])
    assert tags.settle([7]) == ([], [])


def test_a_reserved_tag_is_left_to_whoever_reserved_it():
    tags = tags_of(3)
    assert tags.reserve(2)
    assert not tags.reserve(2)
    assert tags.settle([1, 2, 3]) == ([1, 3], [(1, False), (3, False)])
    assert len(tags) == 1
    assert tags.settle([2], reserved=True) == ([2], [(2, False)])
    assert tags.settle([2], reserved=True) == ([], [])


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["settle", "reserve", "settle reserved"])), max_size=80))
def test_any_order_settles_just_what_was_asked_for(steps):
    """The broker's side: a multiple call settles all up to its tag, and a tag that is not out is an error."""
    tags = tags_of(30)
    out, reserved = set(range(1, 31)), set()
    for tag, what in steps:
        asked = [tag, min(30, tag + 1), max(1, tag - 3)]
        if what == "reserve":
            expected = tag in out and tag not in reserved
            assert tags.reserve(tag) == expected
            reserved |= {tag} & out
            continue
        here = reserved if what == "settle reserved" else out - reserved
        settled, calls = tags.settle(asked, reserved=what == "settle reserved")
        assert settled == sorted(here & set(asked))
        told: set[int] = set()
        for number, multiple in calls:
            assert number in out
            told |= {each for each in out if each <= number} if multiple else {number}
            out -= told
        assert sorted(told) == settled
        reserved -= told
        assert len(tags) == len(out)
