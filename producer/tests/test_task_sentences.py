"""What is said of a task."""

from datetime import datetime, timezone
from typing import Any

import pytest

from producer.models import FailureCode, Progress, TaskError, TaskState, TaskView
from producer.task_sentences import doing, outcome, sentence

NOW = datetime(2026, 5, 31, tzinfo=timezone.utc)
TIMEOUT = TaskError(code=FailureCode.TIMEOUT.value, message="took 3 s")


def task(state: TaskState, **more: Any) -> TaskView:
    about = {"id": "a", "algorithm": "upper", "attempt": 2, "created_at": NOW, "updated_at": NOW}
    return TaskView(state=state, **about, **more)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (task(TaskState.QUEUED), "queued"),
        (task(TaskState.QUEUED, waiting_for="no runner offers it"), "no runner offers it"),
        (task(TaskState.RUNNING), "running"),
        (task(TaskState.RUNNING, progress=Progress(fraction=0.5, message="page 5 of 10")), "page 5 of 10"),
        (task(TaskState.RUNNING, progress=Progress(fraction=0.5)), "running"),
        (task(TaskState.RUNNING, cancel_requested=True), "is being stopped"),
        (task(TaskState.RETRYING, error=TIMEOUT), "waits for attempt 2 (timeout: took 3 s)"),
        (task(TaskState.RETRYING, error=TIMEOUT, waiting_for="a pause"), "a pause (timeout: took 3 s)"),
    ],
)
def test_what_a_task_is_doing(view: TaskView, said: str) -> None:
    assert doing(view) == said


def test_how_a_task_stands() -> None:
    assert sentence(task(TaskState.FAILED, error=TIMEOUT)) == "task a failed (timeout): took 3 s"
    assert sentence(task(TaskState.CANCELLED)) == "task a was cancelled"
    assert sentence(task(TaskState.QUEUED, waiting_for="no runner"), 5) == (
        "task a is queued after 5 s (no runner); ask again with: producer result a --wait"
    )


def test_outcome_has_a_result_or_an_error() -> None:
    assert outcome(task(TaskState.SUCCEEDED, result=None)) == {"id": "a", "state": "succeeded", "result": None}
    assert outcome(task(TaskState.CANCELLED)) == {"id": "a", "state": "cancelled"}
    assert outcome(task(TaskState.FAILED, error=TIMEOUT)) == {
        "id": "a",
        "state": "failed",
        "error": {"code": "timeout", "message": "took 3 s"},
    }
