"""Time limits of a call."""

from collections.abc import Callable
from typing import Any

import pytest

from runnerlib.contract import EntryState
from runnerlib.execution import endings
from runnerlib.execution.call import Call
from runnerlib.run_table import Outcome, Run

ADAPTER = """
OPTIONS = {"single": {"timeout_seconds": 2}, "twin": {"timeout_seconds": 2}}

def run_single(n: int) -> int:
    return n

def batch_twin(n: list[int]) -> list[int]:
    return n
"""


@pytest.fixture
def call(adapter_of: Callable[..., Any]) -> Callable[..., Call]:
    adapter = adapter_of(ADAPTER)

    def make(algorithm: str, *deadlines: float | None) -> Call:
        runs = [Run(f"r{n}", 1, algorithm, b"{}", deadline) for n, deadline in enumerate(deadlines)]
        return Call(1, adapter.algorithms[algorithm], runs, now=10.0)

    return make


def test_each_run_of_a_sequence_has_the_whole_time(call: Callable[..., Call]) -> None:
    sequence = call("single", None, None)
    assert [run.started_at for run in sequence.runs] == [10.0, None]
    assert (sequence.next_check_at(), sequence.overdue(11.9)) == (12.0, [])
    sequence.runs[0].outcome = Outcome(EntryState.SUCCEEDED)
    sequence.advance(0, 11.9)
    assert (sequence.runs[1].started_at, sequence.next_check_at(), sequence.overdue(13.0)) == (11.9, 13.9, [])
    ((run, outcome),) = sequence.overdue(14.0)
    assert (run.id, outcome.error.code if outcome.error else "") == ("r1", "timeout")


def test_a_deadline_ends_a_run_earlier_than_its_time_limit(call: Callable[..., Call]) -> None:
    sequence = call("single", 10.5, 10.1)
    assert sequence.next_check_at() == 10.5
    ((run, outcome),) = sequence.overdue(10.6)
    assert run.id == "r0"
    assert outcome.error is not None
    assert "deadline" in outcome.error.message


def test_a_batch_that_takes_too_long_charges_nobody(call: Callable[..., Call]) -> None:
    batch = call("twin", None, 11.0)
    assert batch.is_batch
    assert [run.started_at for run in batch.runs] == [10.0, 10.0]
    assert [run.id for run, _ in batch.overdue(11.5)] == ["r1"]
    batch.runs[1].outcome = Outcome(EntryState.FAILED)
    assert (batch.next_check_at(), batch.overdue(13.0), batch.is_too_long(13.0)) == (12.0, [], True)


def test_a_lone_run_goes_to_the_handler_itself(call: Callable[..., Call]) -> None:
    assert not call("twin", None).is_batch


def test_a_death_is_told_in_words() -> None:
    assert endings.how_it_ended(endings.Death(1)) == "exited with code 1"
    assert endings.how_it_ended(endings.Death(-11)) == "was killed by SIGSEGV"
    assert "connection to the runner" in endings.how_it_ended(endings.Death(-9, is_cut_off=True))


@pytest.mark.parametrize(
    ("memory_ran_out", "words"),
    [
        (True, "the kernel killed something for lack of memory, perhaps this process"),
        (False, "not by this runner; meanwhile the kernel counted no kill for lack of memory"),
        (None, "not by this runner; if memory is short, the kernel did it"),
    ],
)
def test_memory_is_named_where_the_kernel_counted_a_kill_for_it(memory_ran_out: bool | None, words: str) -> None:
    assert words in endings.how_it_ended(endings.Death(-9, memory_ran_out=memory_ran_out))
