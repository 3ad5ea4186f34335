"""The functions are tested as plain functions; what the runner would provide is faked."""

import pytest
from runner_adapter import MAX_SECONDS, run_countdown, run_upper


class FakeTask:
    def __init__(self, cancel_after_reports: int | None = None) -> None:
        self.reports: list[tuple[float, str]] = []
        self._cancel_after = cancel_after_reports

    def progress(self, fraction: float, message: str = "") -> None:
        self.reports.append((fraction, message))

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.reports) >= self._cancel_after


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
    task = FakeTask(cancel_after_reports=1)
    assert run_countdown(3600, task=task) == "stopped with 3600 s to go"
    assert len(task.reports) == 1


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, 10**18])
def test_senseless_duration_is_refused_in_words(seconds: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 3600"):
        run_countdown(seconds, task=FakeTask())
