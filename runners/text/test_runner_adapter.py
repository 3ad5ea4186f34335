"""The functions are tested as plain functions; what the runner would provide is faked. The last two test the runner."""

from pathlib import Path

import pytest
from runner_adapter import MAX_SECONDS, run_countdown, run_upper

from runnerlib.testing import FakeTask, assert_adapter_contract, serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plug and play", "PLUG AND PLAY"), ("", ""), ("straße", "STRASSE"), ("ünïcödé 42", "ÜNÏCÖDÉ 42")],
)
def test_upper_of_any_text(text: str, expected: str) -> None:
    assert run_upper(text) == expected


def test_countdown_reports_each_second_and_the_end() -> None:
    task = FakeTask()
    assert run_countdown(2, task=task) == "lift-off after 2 s"
    assert task.reports == [(0.0, "2 s to go"), (0.5, "1 s to go"), (1.0, "lift-off")]


def test_cancelled_countdown_stops_at_once() -> None:
    task = FakeTask(cancel_after=1)
    assert run_countdown(3600, task=task) == "stopped with 3600 s to go"
    assert len(task.reports) == 1


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, 10**18])
def test_senseless_duration_is_refused_in_words(seconds: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 3600"):
        run_countdown(seconds, task=FakeTask())


def test_adapter_keeps_its_contract_and_its_examples() -> None:
    assert_adapter_contract(Path(__file__).parent)


def test_runner_answers_over_http() -> None:
    with serving(Path(__file__).parent) as runner:
        assert runner.run("upper", {"text": "plug and play"}) == "PLUG AND PLAY"
        assert runner.run("countdown", {"seconds": 1}) == "lift-off after 1 s"
