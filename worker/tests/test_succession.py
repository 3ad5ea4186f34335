"""What to do about a runner whose folder may have changed."""

import pytest

from worker.runner_code import version_of
from worker.succession import (
    FIRST_REST_SECONDS,
    MOST_CHANGES,
    NEW_FILES,
    CountedChanges,
    Step,
    Versions,
    next_step,
)


@pytest.mark.parametrize(
    ("wanted", "versions", "step"),
    [
        ("a", Versions(), Step.BRING),
        ("a", Versions(serving="a"), Step.NOTHING),
        ("b", Versions(serving="a"), Step.BRING),
        # on its way already; a further edit; an edit taken back
        ("b", Versions(serving="a", coming="b"), Step.NOTHING),
        ("c", Versions(serving="a", coming="b"), Step.BRING),
        ("a", Versions(serving="a", coming="b"), Step.STAY),
        # a mistake is told once, until something changes
        ("b", Versions(serving="a", refused="b"), Step.NOTHING),
        ("b", Versions(refused="b"), Step.NOTHING),
        ("c", Versions(serving="a", refused="b"), Step.BRING),
        ("b", Versions(serving="a", coming="c", refused="b"), Step.STAY),
        # gone, and back again
        (None, Versions(serving="a"), Step.LEAVE),
        (None, Versions(coming="a"), Step.LEAVE),
        (None, Versions(serving="a", leaving=True), Step.NOTHING),
        (None, Versions(), Step.NOTHING),
        (None, Versions(refused="a"), Step.NOTHING),
        ("a", Versions(serving="a", leaving=True), Step.STAY),
        ("b", Versions(serving="a", leaving=True), Step.BRING),
        ("a", Versions(leaving=True), Step.BRING),
    ],
)
def test_next_step_of_a_runner(wanted: str | None, versions: Versions, step: Step) -> None:
    assert next_step(wanted, versions) is step


def _versions(changes: CountedChanges, states: list[tuple[float, dict[str, str]]]) -> list[str]:
    return [changes.look(digests, now) for now, digests in states]


def test_file_that_changes_again_and_again_counts_as_it_was_and_others_go_on_counting() -> None:
    changes = CountedChanges()
    states = [(float(n), {"adapter.py": "a", "made.py": str(n)}) for n in range(20)]
    assert len(set(_versions(changes, states))) == MOST_CHANGES
    assert list(changes.restless) == ["made.py"]
    settled = changes.look({"adapter.py": "a", "made.py": "x"}, 20)
    assert changes.look({"adapter.py": "b", "made.py": "y"}, 21) != settled
    assert changes.look({"adapter.py": "a", "made.py": "z"}, 22) == settled
    assert changes.version_of({"adapter.py": "a", "made.py": "copied"}) == settled


def test_file_counts_again_once_it_has_been_quiet_and_the_next_rest_is_longer() -> None:
    changes = CountedChanges()
    _versions(changes, [(float(n), {"made.py": str(n)}) for n in range(10)])
    assert changes.restless == {"made.py": FIRST_REST_SECONDS}
    assert changes.look({"made.py": "9"}, 9 + FIRST_REST_SECONDS) == version_of({"made.py": "9"})
    assert changes.restless == {}
    changes.look({"made.py": "saved once"}, 10 + FIRST_REST_SECONDS)
    assert changes.restless == {}
    _versions(changes, [(20.0 + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.restless == {"made.py": 2 * FIRST_REST_SECONDS}


def test_rest_is_short_again_after_a_long_quiet_time() -> None:
    changes = CountedChanges()
    for start in (0.0, 100.0):
        changes.look({"made.py": "9"}, start)
        _versions(changes, [(start + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.restless == {"made.py": 2 * FIRST_REST_SECONDS}
    changes.look({"made.py": "9"}, 200)
    _versions(changes, [(1000.0 + n, {"made.py": str(n)}) for n in range(10)])
    assert changes.restless == {"made.py": FIRST_REST_SECONDS}


def test_modules_with_ever_new_names_count_as_those_that_there_were() -> None:
    changes = CountedChanges()
    states = [(float(n), {"adapter.py": "a", f"made{n}.py": "x"}) for n in range(20)]
    assert len(set(_versions(changes, states))) == MOST_CHANGES
    assert list(changes.restless) == [NEW_FILES]
    assert changes.look({"adapter.py": "b"}, 21) != changes.look({"adapter.py": "a"}, 22)


def test_what_changes_by_being_installed_settles_although_installing_takes_long() -> None:
    changes = CountedChanges()
    states = [(30.0 * n, {"adapter.py": str(n), "required ../local/stamp": str(n)}) for n in range(12)]
    _versions(changes, states)
    assert list(changes.restless) == ["required ../local/stamp"]
