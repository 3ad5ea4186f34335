"""How an end is described, and what a death costs."""

import pytest

from runnerlib.execution.outcomes import Death, Fate, fate_of, how_it_ended


def test_a_death_is_told_in_words() -> None:
    assert how_it_ended(Death(1)) == "exited with code 1"
    assert how_it_ended(Death(-11)) == "was killed by SIGSEGV"
    assert "connection to the runner" in how_it_ended(Death(-9, is_cut_off=True))


@pytest.mark.parametrize(
    ("memory_ran_out", "words"),
    [
        (True, "the kernel killed something for lack of memory, perhaps this process"),
        (False, "not by this runner; meanwhile the kernel counted no kill for lack of memory"),
        (None, "not by this runner; if memory is short, the kernel did it"),
    ],
)
def test_memory_is_named_where_the_kernel_counted_a_kill_for_it(memory_ran_out: bool | None, words: str) -> None:
    assert words in how_it_ended(Death(-9, memory_ran_out=memory_ran_out))


@pytest.mark.parametrize(
    ("killed", "killed_for_batch", "has_culprit", "expected"),
    [
        (True, True, False, Fate.ISOLATED),
        (True, False, False, Fate.AGAIN),
        (True, False, True, Fate.AGAIN),
        (False, False, True, Fate.LOST),
        (False, False, False, Fate.ISOLATED),
    ],
)
def test_a_death_costs_only_the_run_that_must_have_caused_it(
    killed: bool, killed_for_batch: bool, has_culprit: bool, expected: Fate
) -> None:
    assert fate_of(killed=killed, killed_for_batch=killed_for_batch, has_culprit=has_culprit) is expected
