"""The functions are tested as plain functions; what the runner would provide is faked. The last two test the runner."""

from pathlib import Path

import pytest

from runner_adapter import MAX_SECONDS, run_countdown, run_upper
from runnerlib.testing import FakeTask, TaskCancelled, assert_adapter_contract, serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plug and play", "PLUG AND PLAY"), ("", ""), ("straße", "STRASSE"), ("ünïcödé 42", "ÜNÏCÖDÉ 42")],
)
def test_upper_of_any_text(text: str, expected: str) -> None:
    assert run_upper(text) == expected


def test_countdown_reports_each_second_and_the_end() -> None:
    task = FakeTask()
    assert run_countdown(2, task=task) == "lift-off after 2 s"
    fractions = [fraction for fraction, _ in task.reports]
    assert fractions == sorted(fractions)
    assert list(dict.fromkeys(message for _, message in task.reports)) == ["2 s to go", "1 s to go", "lift-off"]


def test_cancelled_countdown_stops_at_once() -> None:
    task = FakeTask(cancel_after=1)
    with pytest.raises(TaskCancelled):
        run_countdown(3600, task=task)
    assert task.reports[0][1] == "3600 s to go"


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
