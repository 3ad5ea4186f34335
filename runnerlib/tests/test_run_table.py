"""Start, attach, stale, conflict; kept outcomes."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runnerlib.contract import EntryState
from runnerlib.run_table import Outcome, Run, RunTable, Verdict


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> RunTable:
    return RunTable(clock, keep_bytes=10_000)


def start(table: RunTable, id: str = "a", attempt: int = 1, payload: bytes = b"1") -> Run:
    admission = table.submit(id, attempt, "x", payload, None)
    assert admission.verdict is Verdict.START
    assert admission.run is not None
    return admission.run


def done(result: bytes = b"7") -> Outcome:
    return Outcome(EntryState.SUCCEEDED, result)


def test_the_same_pair_attaches(table: RunTable) -> None:
    run = start(table)
    assert table.submit("a", 1, "x", b"1", None) == (Verdict.ATTACH, run, None)
    table.finish(run, done())
    assert table.submit("a", 1, "x", b"1", None).run is run


@pytest.mark.parametrize(("algorithm", "payload"), [("x", b"2"), ("y", b"1")])
def test_the_same_pair_with_something_else_is_a_conflict(table: RunTable, algorithm: str, payload: bytes) -> None:
    start(table)
    assert table.submit("a", 1, algorithm, payload, None).verdict is Verdict.CONFLICT


def test_a_higher_attempt_takes_the_place_of_a_lower_one(table: RunTable) -> None:
    lower = start(table)
    told: list[str] = []
    lower.watchers.append(lambda: told.append("lower"))
    admission = table.submit("a", 2, "x", b"1", None)
    assert (admission.verdict, admission.replaced) == (Verdict.START, lower)
    assert (lower.state, told) == (EntryState.STALE_ATTEMPT, ["lower"])
    assert not table.finish(lower, done())
    assert table.submit("a", 1, "x", b"1", None).verdict is Verdict.STALE
    assert table.find("a", 1) is None
    assert table.is_stale("a", 1)


def test_a_finished_lower_attempt_needs_no_stop(table: RunTable) -> None:
    table.finish(start(table), done())
    assert table.submit("a", 2, "x", b"1", None).replaced is None


def test_the_first_outcome_stays(table: RunTable) -> None:
    run = start(table)
    assert table.finish(run, done(b"1"))
    assert not table.finish(run, done(b"2"))
    assert run.outcome is not None
    assert run.outcome.result == b"1"


def test_a_delivered_outcome_is_kept_for_a_minute_and_another_for_an_hour(table: RunTable, clock: Clock) -> None:
    fetched, forgotten = start(table, "fetched"), start(table, "forgotten")
    table.finish(fetched, done())
    table.finish(forgotten, done())
    table.delivered(fetched)
    clock.now = 59
    table.sweep()
    assert table.find("fetched") is fetched
    clock.now = 60
    table.sweep()
    assert (table.find("fetched"), table.find("forgotten")) == (None, forgotten)
    assert table.undelivered == 1
    clock.now = 3600
    table.sweep()
    assert (len(table), table.kept_bytes, table.undelivered) == (0, 0, 0)


def test_too_much_drops_what_was_delivered_first_then_the_oldest(table: RunTable) -> None:
    runs = [start(table, f"r{n}") for n in range(4)]
    for run in runs[:3]:
        table.finish(run, done(b"x" * 2000))
    table.delivered(runs[2])
    table.finish(runs[3], done(b"x" * 2000))
    assert table.find("r2") is None
    assert table.find("r0") is runs[0]


def test_a_run_that_was_given_up_may_start_again(table: RunTable) -> None:
    run = start(table)
    table.release(run)
    assert run.state is EntryState.UNKNOWN
    assert table.find("a") is None
    start(table)


def test_telling_of_a_replaced_attempt_is_no_delivery_of_the_one_in_its_place(table: RunTable) -> None:
    lower, higher = start(table), start(table, attempt=2)
    table.finish(higher, done())
    table.delivered(lower)
    assert table.undelivered == 1


IDS, ATTEMPTS, PAYLOADS = st.sampled_from("abc"), st.integers(1, 4), st.sampled_from([b"1", b"2"])


class Story(RuleBasedStateMachine):
    """Any order of calls; what is promised holds after each."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.table = RunTable(self.clock, keep_bytes=4000)
        self.highest: dict[str, Run] = {}
        self.started: list[Run] = []
        self.told: dict[int, int] = {}

    @rule(id=IDS, attempt=ATTEMPTS, payload=PAYLOADS)
    def submit(self, id: str, attempt: int, payload: bytes) -> None:
        before = self.table.find(id)
        would_start = self.table.would_start(id, attempt)
        verdict, run, replaced = self.table.submit(id, attempt, "x", payload, None)
        assert (verdict is Verdict.START) == would_start
        if before is None or attempt > before.attempt:
            assert verdict is Verdict.START
            assert run is not None
            self.started.append(run)
            run.watchers.append(lambda: self._tell(run))
            assert replaced is None or replaced is before
        elif attempt < before.attempt:
            assert verdict is Verdict.STALE
        else:
            assert verdict in (Verdict.ATTACH, Verdict.CONFLICT)
            assert run in (before, None)

    def _tell(self, run: Any) -> None:
        self.told[id(run)] = self.told.get(id(run), 0) + 1

    @rule(index=st.integers(0, 50), size=st.integers(0, 3000))
    def finish(self, index: int, size: int) -> None:
        if self.started:
            run = self.started[index % len(self.started)]
            had = run.outcome
            assert self.table.finish(run, done(b"x" * size)) == (had is None)

    @rule(index=st.integers(0, 50))
    def release(self, index: int) -> None:
        if self.started:
            self.table.release(self.started[index % len(self.started)])

    @rule(index=st.integers(0, 50))
    def deliver(self, index: int) -> None:
        if self.started:
            self.table.delivered(self.started[index % len(self.started)])

    @rule(seconds=st.sampled_from([1.0, 61.0, 3601.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.table.sweep()

    @invariant()
    def what_is_promised_holds(self) -> None:
        kept = [run for run in (self.table.find(id) for id in "abc") if run is not None]
        assert len(kept) == len(self.table)
        ended = [run for run in kept if run.outcome is not None]
        assert self.table.kept_bytes == sum(run.kept_bytes for run in ended)
        assert self.table.kept_bytes <= 4000
        assert self.table.undelivered == sum(not run.delivered for run in ended)
        for run in self.started:
            assert self.told.get(id(run), 0) == (run.outcome is not None)
            if run.outcome is None:
                assert run in kept


Story.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStory = Story.TestCase
