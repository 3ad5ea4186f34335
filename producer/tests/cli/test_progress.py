"""What is said about a task, and what a person sees while it runs."""

import dataclasses
import io
from datetime import datetime, timezone
from typing import Any

import pytest
from rich.console import Console

from producer.cli.progress import activity, outcome, wait_with_progress, without_result
from producer.client.client import GatewayClient
from producer.client.steps import Request
from producer.client.transport import Transport
from producer.models import FailureCode, Progress, TaskError, TaskState, TaskView
from taskqueue.tasks import Placement, Succeeded

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
    assert activity(view) == said


def test_how_a_task_stands() -> None:
    assert without_result(task(TaskState.FAILED, error=TIMEOUT)) == "task a failed (timeout): took 3 s"
    assert without_result(task(TaskState.CANCELLED)) == "task a was cancelled"
    assert without_result(task(TaskState.QUEUED, waiting_for="no runner"), 5) == (
        "task a is queued after 5 s (no runner); ask again with: producer result a --wait"
    )


def test_outcome_has_a_result_or_an_error() -> None:
    assert outcome(task(TaskState.SUCCEEDED, result=None)) == {"id": "a", "state": "succeeded", "result": None}
    assert outcome(task(TaskState.CANCELLED)) == {"id": "a", "state": "cancelled"}
    assert outcome(task(TaskState.CANCELLED, group="acme")) == {"id": "a", "state": "cancelled", "group": "acme"}
    assert outcome(task(TaskState.FAILED, error=TIMEOUT)) == {
        "id": "a",
        "state": "failed",
        "error": {"code": "timeout", "message": "took 3 s"},
    }


def test_terminal_shows_how_far_the_task_is(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with GatewayClient(gateway.url) as client:
        task = client.submit("upper", {"text": "a"})
        delivery = gateway.take("upper")
        gateway.run(gateway.store.place([(delivery, Placement(task.id, 1, "text-1", "boot"))]))
        gateway.run(gateway.store.report_progress([(task.id, 1, 0.25, "page 5\nof [b]20\x1b[2J")]))
        usual = Transport.send

        def ask(self: Transport, request: Request) -> Any:
            if r"page 5 of [b]20\x1b[2J" in shown.getvalue() and "25%" in shown.getvalue():
                gateway.settle(Succeeded(delivery, b'"A"', "text-1"))
            return usual(self, dataclasses.replace(request, wait_seconds=min(request.wait_seconds, 0.2)))

        monkeypatch.setattr(Transport, "send", ask)
        view = wait_with_progress(client, task, 30, console)
    assert (view.state, view.result) == (TaskState.SUCCEEDED, "A")


def test_short_task_shows_nothing(gateway: Any) -> None:
    shown = io.StringIO()
    with GatewayClient(gateway.url) as client:
        task = client.submit("upper", {"text": "a"})
        gateway.succeed("upper", b'"A"')
        wait_with_progress(client, task, 30, Console(file=shown, force_terminal=True))
    assert shown.getvalue() == ""
