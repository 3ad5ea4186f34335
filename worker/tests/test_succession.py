"""What to do about a runner whose folder may have changed."""

import pytest

from worker.succession import Step, Versions, next_step


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
