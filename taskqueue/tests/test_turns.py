"""Who is served next, whatever waits."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from taskqueue.turns import START, Turns

NAMES = st.text("abcdefgh", min_size=1, max_size=2)
WAITING = st.dictionaries(NAMES, st.integers(1, 30), max_size=90)


class Table:
    """What waits, by group; a claim takes it away."""

    def __init__(self, waiting, slots=None):
        self.waiting = dict(waiting)
        self.out = Counter()
        self.slots = slots
        self.turns = Turns(self.groups_after, self.take, self.room)

    def groups_after(self, group, count):
        return sorted(name for name, left in self.waiting.items() if left and name > group)[:count]

    def take(self, group, count):
        taken = min(count, self.waiting[group])
        self.waiting[group] -= taken
        self.out[group] += taken
        return [group] * taken

    def room(self, groups):
        return {} if self.slots is None else {group: self.slots - self.out[group] for group in groups}


@given(WAITING, st.integers(1, 300), st.one_of(st.just(START), NAMES))
def test_as_many_as_wanted_or_all_there_is(waiting, most, last):
    table = Table(waiting)
    taken = table.turns.take(most, last)
    assert len(taken.items) == min(most, sum(waiting.values()))
    assert not taken.held_back
    assert Counter(taken.items) + Counter(table.waiting) == Counter(waiting)


@given(WAITING, st.lists(st.integers(1, 90), min_size=1, max_size=10))
def test_no_group_gets_a_second_turn_before_each_that_waits_had_one(waiting, sizes):
    table = Table(waiting)
    last = START
    served = []
    for size in sizes:
        taken = table.turns.take(size, last)
        last = taken.last
        served += taken.items
    for group in waiting:
        gaps = "".join("x" if name == group else "." for name in served).split("x")
        if table.waiting[group]:
            assert all(len(gap) <= 4 * len(waiting) + max(sizes) for gap in gaps), (group, served)


@given(WAITING, st.integers(1, 60))
def test_single_tasks_of_all_groups_come_first_in_a_round(waiting, most):
    taken = Table(waiting).turns.take(most)
    first = taken.items[: min(len(waiting), 64, most)]
    assert len(set(first)) == len(first)


@given(WAITING, st.integers(1, 5), st.integers(1, 300))
def test_no_group_has_more_out_than_its_slots(waiting, slots, most):
    table = Table(waiting, slots)
    taken = table.turns.take(most)
    possible = sum(min(slots, count) for count in waiting.values())
    assert max(table.out.values(), default=0) <= slots
    assert len(taken.items) == min(most, possible)
    if len(taken.items) < most and any(count > slots for count in waiting.values()):
        assert taken.held_back


def test_turns_begin_behind_the_group_that_was_the_last():
    table = Table({"a": 5, "b": 5, "c": 5})
    assert table.turns.take(2, "b").items == ["c", "a"]
    assert table.turns.take(1, "zz").last == "a"


def test_claims_of_more_than_all_groups_of_a_round_pass_over_none():
    table = Table({f"g{n:03}": 50 for n in range(200)})
    last, served = START, []
    for _ in range(4):
        taken = table.turns.take(65, last)
        last = taken.last
        served += taken.items
    assert len(set(served)) == 200
