"""Which waiting runs go into one call."""

from collections.abc import Callable
from typing import Any

import pytest

from runnerlib.contract import EntryState
from runnerlib.execution.pace import Pace
from runnerlib.execution.work_queue import WorkQueue
from runnerlib.run_table import Outcome, Run

ADAPTER = """
OPTIONS = {"twin": {"batch": 3}}

def run_single(n: int) -> int:
    return n

def run_twin(n: int, k: int = 1) -> int:
    return n

def batch_twin(n: list[int], k: int = 1) -> list[int]:
    return n
"""


def run(id: str, algorithm: str = "single", key: bytes = b"") -> Run:
    made = Run(id, 1, algorithm, b"{}")
    made.shared_key = key
    return made


def ids(runs: list[Run]) -> str:
    return "".join(one.id for one in runs)


@pytest.fixture
def queue(adapter_of: Callable[..., Any]) -> WorkQueue:
    return WorkQueue(adapter_of(ADAPTER).algorithms, slots=1)


def test_members_with_equal_shared_values_travel_together_up_to_the_cap(queue: WorkQueue) -> None:
    queue.add(run(name, "twin", key) for name, key in zip("abcdef", [b"1", b"2", b"1", b"1", b"1", b"2"], strict=True))
    assert [ids(queue.take(False)) for _ in range(4)] == ["acd", "bf", "e", ""]


def test_runs_of_unknown_length_go_one_by_one_and_short_ones_together(queue: WorkQueue) -> None:
    queue.add(run(name) for name in "abcdefgh")
    assert ids(queue.take(False)) == "a"
    for _ in range(5):
        queue.pace.note("single", 0.03)
    assert ids(queue.take(False)) == "bcd"
    assert ids(queue.take(False, at_most=2)) == "ef"
    assert ids(queue.take(True)) == "g"


def test_a_slot_takes_no_more_than_its_share(adapter_of: Callable[..., Any]) -> None:
    queue = WorkQueue(adapter_of(ADAPTER).algorithms, slots=2)
    for _ in range(5):
        queue.pace.note("single", 0.0001)
    queue.add(run(name) for name in "abcdef")
    assert ids(queue.take(False)) == "abc"


def test_algorithms_that_share_processes_take_turns(queue: WorkQueue) -> None:
    queue.add([run("a"), run("b"), run("x", "twin"), run("c")])
    assert [ids(queue.take(False)) for _ in range(4)] == ["a", "x", "b", "c"]


def test_what_ended_meanwhile_is_left_out(queue: WorkQueue) -> None:
    runs = [run(name, "twin") for name in "abcd"]
    queue.add(runs)
    for one in (runs[0], runs[2]):
        one.outcome = Outcome(EntryState.CANCELLED)
    assert ids(queue.take(False)) == "bd"


def test_what_had_been_taken_goes_first_again(queue: WorkQueue) -> None:
    queue.add(run(name, "twin") for name in "abcde")
    taken = queue.take(False)
    queue.add_again(taken[1:])
    assert ids(queue.take(False)) == "bcd"


def test_suspects_wait_apart(queue: WorkQueue) -> None:
    queue.add([run("a", "twin")])
    queue.add_alone([run("b", "twin"), run("c", "twin")])
    assert queue.has_alone
    assert queue.take_alone().id == "b"
    assert ids(list(queue.waiting())) == "ac"
    assert ids(queue.clear()) == "ac"
    assert not queue.has_alone


def test_one_long_run_makes_the_pace_careful_at_once() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note("x", 0.0001)
    assert pace.fitting("x") == 256
    pace.note("x", 10.0)
    assert pace.fitting("x") == 1
