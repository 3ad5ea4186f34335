"""Which waiting runs go into one call, and the time limits of that call."""

from collections.abc import Callable
from typing import Any

import pytest

from runnerlib.contract import EntryState
from runnerlib.execution.work_queue import Call, LatencyEstimate, WorkQueue
from runnerlib.run_registry import Outcome, Run

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
        queue.latency.observe("single", 0.03)
    assert ids(queue.take(False)) == "bcd"
    assert ids(queue.take(False, at_most=2)) == "ef"
    assert ids(queue.take(True)) == "g"


def test_a_slot_takes_no_more_than_its_share(adapter_of: Callable[..., Any]) -> None:
    queue = WorkQueue(adapter_of(ADAPTER).algorithms, slots=2)
    for _ in range(5):
        queue.latency.observe("single", 0.0001)
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
    queue.requeue(taken[1:])
    assert ids(queue.take(False)) == "bcd"


def test_isolated_runs_wait_apart(queue: WorkQueue) -> None:
    queue.add([run("a", "twin")])
    queue.add_isolated([run("b", "twin"), run("c", "twin")])
    assert queue.has_isolated
    assert queue.take_isolated().id == "b"
    assert ids(list(queue.waiting())) == "ac"
    assert ids(queue.clear()) == "ac"
    assert not queue.has_isolated


def test_one_long_run_makes_the_estimate_careful_at_once() -> None:
    latency = LatencyEstimate()
    for _ in range(50):
        latency.observe("x", 0.0001)
    assert latency.fitting("x") == 256
    latency.observe("x", 10.0)
    assert latency.fitting("x") == 1


TIME_LIMITS = """
OPTIONS = {"single": {"timeout_seconds": 2}, "twin": {"timeout_seconds": 2}}

def run_single(n: int) -> int:
    return n

def batch_twin(n: list[int]) -> list[int]:
    return n
"""


@pytest.fixture
def call(adapter_of: Callable[..., Any]) -> Callable[..., Call]:
    adapter = adapter_of(TIME_LIMITS)

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
    assert batch.uses_batch_handler
    assert [run.started_at for run in batch.runs] == [10.0, 10.0]
    assert [run.id for run, _ in batch.overdue(11.5)] == ["r1"]
    batch.runs[1].outcome = Outcome(EntryState.FAILED)
    assert (batch.next_check_at(), batch.overdue(13.0), batch.is_too_long(13.0)) == (12.0, [], True)


def test_a_lone_run_goes_to_the_handler_itself(call: Callable[..., Call]) -> None:
    assert not call("twin", None).uses_batch_handler
