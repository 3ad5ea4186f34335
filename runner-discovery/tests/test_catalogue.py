"""What a reader of the catalogue is told that asks for changes alone."""

from runner_discovery.catalogue import ANSWER_BYTES, Changes


def size(_name: str) -> int:
    return ANSWER_BYTES // 2


def test_only_what_changed_since_is_told_in_the_order_of_its_last_change() -> None:
    changes = Changes()
    changes.note(1, ["a"], ["upper", "lower"])
    changes.note(2, ["b"], ["other"])
    changes.note(3, ["a"], ["upper"])
    delta = changes.since(1, 3, lambda _: 1)
    assert delta is not None
    assert (delta.index, delta.runners, delta.algorithms) == (3, ["b", "a"], ["other", "upper"])


def test_many_changes_are_told_in_parts_that_end_between_two_changes() -> None:
    changes = Changes()
    for index in range(1, 11):
        changes.note(index, [f"r{index}"], [f"one{index}", f"two{index}"])
    known, index, answers = [], 0, 0
    while index < 10:
        delta = changes.since(index, 10, size)
        assert delta is not None and delta.index > index
        assert len(delta.algorithms) <= 4
        known += delta.algorithms
        index, answers = delta.index, answers + 1
    assert known == [f"{part}{index}" for index in range(1, 11) for part in ("one", "two")]
    assert answers > 2


def test_who_asks_for_more_than_is_remembered_is_told_everything() -> None:
    changes = Changes(most=3)
    for index in range(1, 6):
        changes.note(index, [f"r{index}"], [])
    assert changes.since(1, 5, size) is None
    assert changes.since(2, 5, size) is not None
    assert changes.since(6, 5, size) is None, "an index that never was"
