"""What a person sees while a task runs."""

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from producer.client.client import GatewayClient
from producer.client.steps import Request
from producer.client.transport import Transport
from producer.models import TaskState
from producer.waiting import wait_with_progress
from taskqueue.tasks import Placement, Succeeded


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
