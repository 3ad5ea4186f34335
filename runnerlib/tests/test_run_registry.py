"""Start, attach, stale, conflict; kept outcomes."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runnerlib.contract import EntryState
from runnerlib.run_registry import Outcome, Run, RunRegistry, SubmitStatus


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> RunRegistry:
    return RunRegistry(clock, keep_bytes=10_000)


def start(registry: RunRegistry, id: str = "a", attempt: int = 1, payload: bytes = b"1") -> Run:
    submission = registry.submit(id, attempt, "x", payload, None)
    assert submission.status is SubmitStatus.START
    assert submission.run is not None
    return submission.run


def done(result: bytes = b"7") -> Outcome:
    return Outcome(EntryState.SUCCEEDED, result)


def test_the_same_pair_attaches(registry: RunRegistry) -> None:
    run = start(registry)
    assert registry.submit("a", 1, "x", b"1", None) == (SubmitStatus.ATTACH, run, None)
    registry.finish(run, done())
    assert registry.submit("a", 1, "x", b"1", None).run is run


@pytest.mark.parametrize(("algorithm", "payload"), [("x", b"2"), ("y", b"1")])
def test_the_same_pair_with_something_else_is_a_conflict(registry: RunRegistry, algorithm: str, payload: bytes) -> None:
    start(registry)
    assert registry.submit("a", 1, algorithm, payload, None).status is SubmitStatus.CONFLICT


def test_a_higher_attempt_takes_the_place_of_a_lower_one(registry: RunRegistry) -> None:
    lower = start(registry)
    told: list[str] = []
    lower.watchers = (lambda: told.append("lower"),)
    submission = registry.submit("a", 2, "x", b"1", None)
    assert (submission.status, submission.replaced) == (SubmitStatus.START, lower)
    assert (lower.state, told) == (EntryState.STALE_ATTEMPT, ["lower"])
    assert not registry.finish(lower, done())
    assert registry.submit("a", 1, "x", b"1", None).status is SubmitStatus.STALE
    assert registry.find("a", 1) is None
    assert registry.is_stale("a", 1)


def test_a_finished_lower_attempt_needs_no_stop(registry: RunRegistry) -> None:
    registry.finish(start(registry), done())
    assert registry.submit("a", 2, "x", b"1", None).replaced is None


def test_the_first_outcome_stays(registry: RunRegistry) -> None:
    run = start(registry)
    assert registry.finish(run, done(b"1"))
    assert not registry.finish(run, done(b"2"))
    assert run.outcome is not None
    assert run.outcome.result == b"1"


def test_a_delivered_outcome_is_kept_for_a_minute_and_another_for_an_hour(registry: RunRegistry, clock: Clock) -> None:
    fetched, forgotten = start(registry, "fetched"), start(registry, "forgotten")
    registry.finish(fetched, done())
    registry.finish(forgotten, done())
    registry.delivered([fetched])
    clock.now = 59
    registry.sweep()
    assert registry.find("fetched") is fetched
    clock.now = 60
    registry.sweep()
    assert (registry.find("fetched"), registry.find("forgotten")) == (None, forgotten)
    assert registry.undelivered == 1
    clock.now = 3600
    registry.sweep()
    assert (len(registry), registry.kept_bytes, registry.undelivered) == (0, 0, 0)


def test_too_much_drops_what_was_delivered_first_then_the_oldest(registry: RunRegistry) -> None:
    runs = [start(registry, f"r{n}") for n in range(4)]
    for run in runs[:3]:
        registry.finish(run, done(b"x" * 2000))
    registry.delivered([runs[2]])
    registry.finish(runs[3], done(b"x" * 2000))
    assert registry.find("r2") is None
    assert registry.find("r0") is runs[0]


def test_a_run_that_was_given_up_may_start_again(registry: RunRegistry) -> None:
    run = start(registry)
    registry.release(run)
    assert run.state is EntryState.UNKNOWN
    assert registry.find("a") is None
    start(registry)


def test_telling_of_a_replaced_attempt_is_no_delivery_of_the_one_in_its_place(registry: RunRegistry) -> None:
    lower, higher = start(registry), start(registry, attempt=2)
    registry.finish(higher, done())
    registry.delivered([lower])
    assert registry.undelivered == 1


IDS, ATTEMPTS, PAYLOADS = st.sampled_from("abc"), st.integers(1, 4), st.sampled_from([b"1", b"2"])


class Story(RuleBasedStateMachine):
    """Any order of calls; what is promised holds after each."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.registry = RunRegistry(self.clock, keep_bytes=4000)
        self.highest: dict[str, Run] = {}
        self.started: list[Run] = []
        self.told: dict[int, int] = {}

    @rule(id=IDS, attempt=ATTEMPTS, payload=PAYLOADS)
    def submit(self, id: str, attempt: int, payload: bytes) -> None:
        before = self.registry.find(id)
        would_start = self.registry.would_start(id, attempt)
        status, run, replaced = self.registry.submit(id, attempt, "x", payload, None)
        assert (status is SubmitStatus.START) == would_start
        if before is None or attempt > before.attempt:
            assert status is SubmitStatus.START
            assert run is not None
            self.started.append(run)
            run.watchers = (lambda: self._tell(run),)
            assert replaced is None or replaced is before
        elif attempt < before.attempt:
            assert status is SubmitStatus.STALE
        else:
            assert status in (SubmitStatus.ATTACH, SubmitStatus.CONFLICT)
            assert run in (before, None)

    def _tell(self, run: Any) -> None:
        self.told[id(run)] = self.told.get(id(run), 0) + 1

    @rule(index=st.integers(0, 50), size=st.integers(0, 3000))
    def finish(self, index: int, size: int) -> None:
        if self.started:
            run = self.started[index % len(self.started)]
            had = run.outcome
            assert self.registry.finish(run, done(b"x" * size)) == (had is None)

    @rule(index=st.integers(0, 50))
    def release(self, index: int) -> None:
        if self.started:
            self.registry.release(self.started[index % len(self.started)])

    @rule(index=st.integers(0, 50))
    def deliver(self, index: int) -> None:
        if self.started:
            self.registry.delivered([self.started[index % len(self.started)]])

    @rule(seconds=st.sampled_from([1.0, 61.0, 3601.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.registry.sweep()

    @invariant()
    def what_is_promised_holds(self) -> None:
        kept = [run for run in (self.registry.find(id) for id in "abc") if run is not None]
        assert len(kept) == len(self.registry)
        ended = [run for run in kept if run.outcome is not None]
        assert self.registry.kept_bytes == sum(run.kept_bytes for run in ended)
        assert self.registry.kept_bytes <= 4000
        assert self.registry.undelivered == sum(run.delivered_at is None for run in ended)
        for run in self.started:
            assert self.told.get(id(run), 0) == (run.outcome is not None)
            if run.outcome is None:
                assert run in kept


Story.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStory = Story.TestCase
