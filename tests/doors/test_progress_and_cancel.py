"""How far a task is, and a stop of it, through every door: HTTP, the `producer` command, the Python client."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from environments import until

from producer import GatewayClient, TaskState
from producer.errors import Refused

# Each test takes seconds; together they take minutes, and so they begin early.
pytestmark = pytest.mark.timeout(300)

#: Exit codes of the command.
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


@contextlib.contextmanager
def on_a_terminal(scene: Any, *words: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The command with a terminal of its own, for what it shows to people only; the process and the other end."""
    ours, theirs = pty.openpty()
    variables = {**scene.variables(), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        scene.command(*words), env=variables, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def read_until(terminal: int, wanted: str, seconds: float = 40) -> str:
    """What the terminal shows until it has shown `wanted`, or closes."""
    shown, deadline = "", time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < deadline, f"{wanted!r} was not shown: {shown[-500:]!r}"
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # nobody writes to it any more
                break
    return shown


def test_progress_is_seen_over_http_and_in_the_python_client(scene: Any) -> None:
    with GatewayClient(scene.url) as client:
        task_id = client.submit("gentle", {"log": str(scene.log())}).id
        progress = until(lambda: scene.environment.task(task_id)["progress"], "progress is told")
        assert progress["message"] == "counting"
        assert 0 <= progress["fraction"] < 1
        later = until(
            lambda: (now := client.get(task_id).progress) and now.fraction > progress["fraction"] and now, "it goes on"
        )
        assert later.message == "counting"
        assert client.cancel(task_id).state is TaskState.RUNNING
        assert client.wait(task_id, 20).state is TaskState.CANCELLED
        with pytest.raises(Refused) as refused:
            client.cancel(client.submit("carry", {"value": 1}, wait_seconds=20).id)
        assert (refused.value.status, refused.value.code) == (409, "already_finished")


def test_progress_is_shown_while_producer_send_waits_and_a_cancel_ends_it(scene: Any) -> None:
    task_id = scene.new_id()
    payload = f'{{"log": "{scene.log()}"}}'
    with on_a_terminal(scene, "send", "gentle", payload, "--wait", "--id", task_id) as (process, terminal):
        assert "counting" in read_until(terminal, "counting")
        asked = scene.producer("cancel", task_id)
        assert (asked.returncode, asked.stdout) == (DONE, "")
        assert task_id in asked.stderr
        assert "cancelled" in read_until(terminal, f"{task_id} was cancelled")
        assert process.wait(20) == FAILED


def test_ctrl_c_ends_the_waiting_and_says_how_to_go_on_or_to_stop_the_task(scene: Any) -> None:
    task_id = scene.new_id()
    payload = f'{{"log": "{scene.log()}"}}'
    with on_a_terminal(scene, "send", "gentle", payload, "--wait", "--id", task_id) as (process, terminal):
        read_until(terminal, "counting")
        process.send_signal(signal.SIGINT)
        shown = read_until(terminal, f"producer cancel {task_id}")
        assert f"producer result {task_id} --wait" in shown
        assert process.wait(20) == INTERRUPTED
    assert scene.environment.task(task_id)["state"] == "running"
    scene.cancel(task_id)
    assert scene.ended(task_id)["state"] == "cancelled"


def test_producer_cancel_tells_what_it_did_to_waiting_finished_and_impossible_tasks(scene: Any) -> None:
    finished = scene.environment.submit("carry", {"value": 1})
    scene.ended(finished)
    with scene.busy() as log:
        waiting = scene.environment.submit("gentle", {"log": str(log)})
        asked = scene.producer("cancel", waiting, finished)
        assert asked.returncode == FAILED
        assert f"task {waiting} is cancelled" in asked.stderr
        assert f"'{finished}' has ended already: it is succeeded" in asked.stderr
        assert scene.producer("cancel", "no such id!").returncode == BAD_INPUT
    assert scene.ended(waiting)["state"] == "cancelled"
    assert waiting not in log.read_text()
