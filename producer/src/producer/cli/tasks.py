"""``producer send | result | cancel | list | algorithms``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from producer.cli.exit_codes import (
    DONE,
    FAILED,
    NOT_FINISHED,
    code_of,
    exit_on_errors,
    exit_with,
    on_interrupt,
    say,
    stderr_console,
)
from producer.cli.options import AlgorithmOption, GatewayOption, JsonOption, LimitOption, TimeoutOption, connect
from producer.cli.progress import outcome, wait_with_progress, without_result
from producer.cli.tables import algorithm_list, display, task_list
from producer.client.client import GatewayClient
from producer.errors import BadInput, Refused
from producer.json_text import BadJson, loads
from producer.models import MAX_MESSAGE_BYTES, TaskState, TaskView, new_task_id, to_json
from producer.printable import printable_json

WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result and print it.")]
TaskIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of tasks.", show_default=False)]
ExpiresOption = Annotated[
    float | None, typer.Option("--expires", metavar="SECONDS", help="It fails unless it has started by then.")
]
DelayOption = Annotated[
    float | None, typer.Option("--delay", metavar="SECONDS", help="It starts no earlier; up to 604800 (7 days).")
]
GroupOption = Annotated[
    str | None, typer.Option("--group", metavar="NAME", help="Whom it is for: groups of one algorithm take turns.")
]
AlgorithmArgument = Annotated[str, typer.Argument(metavar="ALGORITHM", help="As `producer algorithms` lists it.")]
StatesOption = Annotated[
    list[TaskState] | None, typer.Option("--state", help="Only in this state; may be given several times.")
]


def send(
    algorithm: Annotated[str, typer.Argument(help="Name of the algorithm; see: producer algorithms")],
    payload: Annotated[str, typer.Argument(help="JSON, or - for standard input, or @file.")],
    id: Annotated[str | None, typer.Option("--id", help="Id of your own; sent twice, it is still one task.")] = None,
    expires: ExpiresOption = None,
    delay: DelayOption = None,
    group: GroupOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    gateway: GatewayOption = "",
) -> None:
    """Queue a task and print its id, or with --wait its result."""
    task_id = id or new_task_id()
    with exit_on_errors(), connect(gateway) as client:
        value = read_payload(payload, sys.stdin.buffer)
        with on_interrupt(f"interrupted; whether task {task_id} was queued tells: producer result {task_id}"):
            task = client.submit(
                algorithm, value, task_id=task_id, expires_seconds=expires, delay_seconds=delay, group=group
            )
        if not wait:
            typer.echo(task.id)
            return
        exit_with([_print_result(_waited(client, task, timeout), timeout)])


def result(
    ids: TaskIds,
    wait: WaitOption = False,
    timeout: TimeoutOption = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print id, state, and result or error, as JSON.")] = False,
    gateway: GatewayOption = "",
) -> None:
    """Print the result of a task; of several, a line of JSON for each."""

    def print_one(client: GatewayClient, task_id: str) -> int:
        task = client.get(task_id)
        task = _waited(client, task, timeout) if wait else task
        if as_json or len(ids) > 1:
            typer.echo(printable_json(outcome(task)))
            return _code_of_state(task.state)
        return _print_result(task, timeout if wait else 0)

    _for_each(ids, gateway, print_one)


def cancel(ids: TaskIds, gateway: GatewayOption = "") -> None:
    """Cancel tasks: one that waits will not run, one that runs is stopped."""

    def cancel_one(client: GatewayClient, task_id: str) -> int:
        task = client.cancel(task_id)
        if task.state is not TaskState.CANCELLED:
            say(f"task {task.id} is running; its runner is being asked to stop")
        elif not task.algorithm:
            say(f"nobody has seen a task {task.id} yet; should it come, it will not run")
        else:
            say(f"task {task.id} is cancelled")
        return DONE

    _for_each(ids, gateway, cancel_one)


def list_tasks(
    algorithm: AlgorithmOption = None,
    state: StatesOption = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    gateway: GatewayOption = "",
) -> None:
    """List tasks, the newest first."""
    with exit_on_errors(), connect(gateway) as client:
        found = client.tasks(algorithm=algorithm, states=state or (), limit=limit)
        if as_json:
            for task in found:
                fields = {name: value for name, value in to_json(task).items() if value is not None}
                typer.echo(printable_json(fields, compact=True))
        elif rows := list(found):
            display(task_list(rows))
        else:
            say("there are no such tasks")


def algorithms(as_json: JsonOption = False, gateway: GatewayOption = "") -> None:
    """List what can be asked for."""
    with exit_on_errors(), connect(gateway) as client:
        found = client.algorithms()
        if as_json:
            for algorithm in found:
                typer.echo(printable_json(algorithm))
        elif found:
            display(algorithm_list(found))
        else:
            say("no runner has registered yet")


def pause(algorithm: AlgorithmArgument, gateway: GatewayOption = "") -> None:
    """Let no more tasks of an algorithm start; those that run end."""
    with exit_on_errors(), connect(gateway) as client:
        client.pause(algorithm)
        say(f"{algorithm} is paused: its tasks wait until: producer resume {algorithm}")


def resume(algorithm: AlgorithmArgument, gateway: GatewayOption = "") -> None:
    """Let the tasks of a paused algorithm start again."""
    with exit_on_errors(), connect(gateway) as client:
        client.resume(algorithm)
        say(f"{algorithm} is not paused")


def _for_each(ids: list[str], gateway: str, act: Callable[[GatewayClient, str], int]) -> None:
    """Does it for each task, also after one was refused, and ends with the gravest exit code."""
    codes = []
    with exit_on_errors(), connect(gateway) as client:
        for task_id in ids:
            try:
                codes.append(act(client, task_id))
            except Refused as error:
                say(str(error))
                codes.append(code_of(error))
        exit_with(codes)


def read_payload(argument: str, stdin: BinaryIO) -> Any:
    """The payload as it is written on a command line: JSON, ``-`` for standard input, ``@file``. Raises BadInput."""
    if argument == "-":
        data, where = stdin.read(MAX_MESSAGE_BYTES + 1), "standard input"
    elif argument.startswith("@"):
        path = Path(argument[1:])
        try:
            with path.open("rb") as file:
                data, where = file.read(MAX_MESSAGE_BYTES + 1), str(path)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    else:
        data, where = argument.encode("utf-8", "surrogateescape"), "PAYLOAD"
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadInput(f"{where} has more than {MAX_MESSAGE_BYTES} bytes; store the data and send a reference")
    try:
        return loads(data)
    except BadJson as error:
        hint = "" if where != "PAYLOAD" else """; write it in single quotes, e.g. '{"text": "hello"}'"""
        raise BadInput(f"{where} is {error}{hint}") from None


def _waited(client: GatewayClient, task: TaskView, timeout: float) -> TaskView:
    how = f"fetch its result with: producer result {task.id} --wait; or stop it with: producer cancel {task.id}"
    with on_interrupt(f"task {task.id} goes on; {how}"):
        return wait_with_progress(client, task, timeout, stderr_console())


def _print_result(task: TaskView, waited_seconds: float) -> int:
    """Prints the result, or says why there is none; returns the exit code."""
    if task.state is TaskState.SUCCEEDED:
        typer.echo(printable_json(task.result))
    else:
        say(without_result(task, waited_seconds))
    return _code_of_state(task.state)


def _code_of_state(state: TaskState) -> int:
    if state is TaskState.SUCCEEDED:
        return DONE
    return FAILED if state.is_terminal else NOT_FINISHED
