"""What to do about a runner whose folder may have changed."""

import pytest

from worker.rollout import (
    FIRST_QUIET_SECONDS,
    MOST_CHANGES,
    NEW_FILES,
    ChangeFilter,
    RolloutState,
    Step,
    next_step,
)
from worker.runner_code import version_of


@pytest.mark.parametrize(
    ("wanted", "state", "step"),
    [
        ("a", RolloutState(), Step.ROLL_OUT),
        ("a", RolloutState(serving="a"), Step.NOTHING),
        ("b", RolloutState(serving="a"), Step.ROLL_OUT),
        # on its way already; a further edit; an edit taken back
        ("b", RolloutState(serving="a", coming="b"), Step.NOTHING),
        ("c", RolloutState(serving="a", coming="b"), Step.ROLL_OUT),
        ("a", RolloutState(serving="a", coming="b"), Step.ABORT),
        # a mistake is told once, until something changes
        ("b", RolloutState(serving="a", refused="b"), Step.NOTHING),
        ("b", RolloutState(refused="b"), Step.NOTHING),
        ("c", RolloutState(serving="a", refused="b"), Step.ROLL_OUT),
        ("b", RolloutState(serving="a", coming="c", refused="b"), Step.ABORT),
        # gone, and back again
        (None, RolloutState(serving="a"), Step.LEAVE),
        (None, RolloutState(coming="a"), Step.LEAVE),
        (None, RolloutState(serving="a", leaving=True), Step.NOTHING),
        (None, RolloutState(), Step.NOTHING),
        (None, RolloutState(refused="a"), Step.NOTHING),
        ("a", RolloutState(serving="a", leaving=True), Step.ABORT),
        ("b", RolloutState(serving="a", leaving=True), Step.ROLL_OUT),
        ("a", RolloutState(leaving=True), Step.ROLL_OUT),
    ],
)
def test_next_step_of_a_runner(wanted: str | None, state: RolloutState, step: Step) -> None:
    assert next_step(wanted, state) is step


def _versions(changes: ChangeFilter, states: list[tuple[float, dict[str, str]]]) -> list[str]:
    return [changes.look(digests, now) for now, digests in states]


def test_file_that_changes_again_and_again_counts_as_it_was_and_others_go_on_counting() -> None:
    changes = ChangeFilter()
    states = [(float(n), {"adapter.py": "a", "made.py": str(n)}) for n in range(20)]
    assert len(set(_versions(changes, states))) == MOST_CHANGES
    assert list(changes.flapping()) == ["made.py"]
    settled = changes.look({"adapter.py": "a", "made.py": "x"}, 20)
    assert changes.look({"adapter.py": "b", "made.py": "y"}, 21) != settled
    assert changes.look({"adapter.py": "a", "made.py": "z"}, 22) == settled
    assert changes.version_of({"adapter.py": "a", "made.py": "copied"}) == settled


def test_file_counts_again_once_it_has_been_quiet_and_the_next_time_is_longer() -> None:
    changes = ChangeFilter()
    _versions(changes, [(float(n), {"made.py": str(n)}) for n in range(10)])
    assert changes.flapping() == {"made.py": FIRST_QUIET_SECONDS}
    assert changes.look({"made.py": "9"}, 9 + FIRST_QUIET_SECONDS) == version_of({"made.py": "9"})
    assert changes.flapping() == {}
    changes.look({"made.py": "saved once"}, 10 + FIRST_QUIET_SECONDS)
    assert changes.flapping() == {}
    _versions(changes, [(20.0 + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.flapping() == {"made.py": 2 * FIRST_QUIET_SECONDS}


def test_quiet_time_is_short_again_after_a_long_quiet_time() -> None:
    changes = ChangeFilter()
    for start in (0.0, 100.0):
        changes.look({"made.py": "9"}, start)
        _versions(changes, [(start + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.flapping() == {"made.py": 2 * FIRST_QUIET_SECONDS}
    changes.look({"made.py": "9"}, 200)
    _versions(changes, [(1000.0 + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.flapping() == {"made.py": FIRST_QUIET_SECONDS}


def test_modules_with_ever_new_names_count_as_those_that_there_were() -> None:
    changes = ChangeFilter()
    states = [(float(n), {"adapter.py": "a", f"made{n}.py": "x"}) for n in range(20)]
    assert len(set(_versions(changes, states))) == MOST_CHANGES
    assert list(changes.flapping()) == [NEW_FILES]
    assert changes.look({"adapter.py": "b"}, 21) != changes.look({"adapter.py": "a"}, 22)


def test_what_changes_by_being_installed_settles_although_installing_takes_long() -> None:
    changes = ChangeFilter()
    states = [(30.0 * n, {"adapter.py": str(n), "required ../local/stamp": str(n)}) for n in range(12)]
    _versions(changes, states)
    assert list(changes.flapping()) == ["required ../local/stamp"]
