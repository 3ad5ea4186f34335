"""What a person sees while a task runs."""

import io
from typing import Any

from rich.console import Console

from producer.client import GatewayClient
from producer.waiting import wait_with_progress
from runnerlib.contract import TaskState
from taskqueue.tasks import Placement, Succeeded


def test_terminal_shows_how_far_the_task_is(gateway: Any) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with GatewayClient(gateway.url) as client:
        task = client.submit("upper", {"text": "a"})
        delivery = gateway.take("upper")
        gateway.run(gateway.store.place([(delivery, Placement(task.id, 1, "text-1", "boot"))]))
        gateway.run(gateway.store.report_progress([(task.id, 1, 0.25, "page 5\nof [b]20\x1b[2J")]))
        usual = client.get

        def get(task_id: str, *, wait_seconds: float = 0) -> Any:
            if "page 5 of [b]20 [2J" in shown.getvalue() and "25%" in shown.getvalue():
                gateway.settle(Succeeded(delivery, b'"A"', "text-1"))
            return usual(task_id, wait_seconds=min(wait_seconds, 0.2))

        client.get = get  # type: ignore[method-assign]
        view = wait_with_progress(client, task, 30, console)
    assert (view.state, view.result) == (TaskState.SUCCEEDED, "A")


def test_short_task_shows_nothing(gateway: Any) -> None:
    shown = io.StringIO()
    with GatewayClient(gateway.url) as client:
        task = client.submit("upper", {"text": "a"})
        gateway.succeed("upper", b'"A"')
        wait_with_progress(client, task, 30, Console(file=shown, force_terminal=True))
    assert shown.getvalue() == ""
