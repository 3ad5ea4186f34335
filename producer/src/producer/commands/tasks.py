"""``producer send | result | cancel | list | algorithms``."""

import sys
from typing import Annotated, Any

import typer

from producer.client.client import GatewayClient
from producer.commands.ending import (
    DONE,
    FAILED,
    NOT_FINISHED,
    code_of,
    end_with,
    errors,
    explained,
    say,
    show_list,
    when_interrupted,
)
from producer.commands.options import AlgorithmOption, AsJson, Gateway, Limit, TaskIds, Timeout, Wait, connected
from producer.errors import Refused
from producer.models import TaskState, TaskView, new_task_id, to_json
from producer.payload_argument import read_payload
from producer.printable import printable_json
from producer.tables import algorithm_list, task_list
from producer.task_sentences import cancelled, outcome, sentence
from producer.waiting import wait_with_progress

Expires = Annotated[
    float | None, typer.Option("--expires", metavar="SECONDS", help="It fails unless it has started by then.")
]
States = Annotated[
    list[TaskState] | None, typer.Option("--state", help="Only in this state; may be given several times.")
]


def send(
    algorithm: Annotated[str, typer.Argument(help="Name of the algorithm; see: producer algorithms")],
    payload: Annotated[str, typer.Argument(help="JSON, or - for standard input, or @file.")],
    id: Annotated[str | None, typer.Option("--id", help="Id of your own; sent twice, it is still one task.")] = None,
    expires: Expires = None,
    wait: Wait = False,
    timeout: Timeout = 300,
    gateway: Gateway = "",
) -> None:
    """Queue a task and print its id, or with --wait its result."""
    task_id = id or new_task_id()
    with explained(), connected(gateway) as client:
        value = read_payload(payload, sys.stdin.buffer)
        with when_interrupted(f"interrupted; whether task {task_id} was queued tells: producer result {task_id}"):
            task = client.submit(algorithm, value, task_id=task_id, expires_seconds=expires)
        if not wait:
            typer.echo(task.id)
            return
        end_with([_finish(_waited(client, task, timeout), timeout)])


def result(
    ids: TaskIds,
    wait: Wait = False,
    timeout: Timeout = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print id, state, and result or error, as JSON.")] = False,
    gateway: Gateway = "",
) -> None:
    """Print the result of a task; of several, a line of JSON for each."""
    codes = []
    with explained(), connected(gateway) as client:
        for task_id in ids:
            try:
                task = client.get(task_id)
                task = _waited(client, task, timeout) if wait else task
            except Refused as error:
                say(str(error))
                codes.append(code_of(error))
                continue
            if as_json or len(ids) > 1:
                typer.echo(printable_json(outcome(task)))
                codes.append(_code_of_state(task.state))
            else:
                codes.append(_finish(task, timeout if wait else 0))
        end_with(codes)


def cancel(ids: TaskIds, gateway: Gateway = "") -> None:
    """Cancel tasks: one that waits will not run, one that runs is stopped."""
    codes = []
    with explained(), connected(gateway) as client:
        for task_id in ids:
            try:
                task = client.cancel(task_id)
            except Refused as error:
                say(str(error))
                codes.append(code_of(error))
            else:
                say(cancelled(task))
        end_with(codes)


def list_tasks(
    algorithm: AlgorithmOption = None,
    state: States = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    gateway: Gateway = "",
) -> None:
    """List tasks, the newest first."""
    with explained(), connected(gateway) as client:
        found = client.tasks(algorithm=algorithm, states=state or (), limit=limit)
        if as_json:
            for task in found:
                typer.echo(printable_json(_without_none(to_json(task)), compact=True))
        elif rows := list(found):
            show_list(task_list(rows))
        else:
            say("there are no such tasks")


def algorithms(as_json: AsJson = False, gateway: Gateway = "") -> None:
    """List what can be asked for."""
    with explained(), connected(gateway) as client:
        found = client.algorithms()
        if as_json:
            for algorithm in found:
                typer.echo(printable_json(algorithm))
        elif found:
            show_list(algorithm_list(found))
        else:
            say("no runner has registered yet")


def _waited(client: GatewayClient, task: TaskView, timeout: float) -> TaskView:
    how = f"fetch its result with: producer result {task.id} --wait; or stop it with: producer cancel {task.id}"
    with when_interrupted(f"task {task.id} goes on; {how}"):
        return wait_with_progress(client, task, timeout, errors())


def _finish(task: TaskView, waited_seconds: float) -> int:
    """Prints the result, or says what became of the task."""
    if task.state is TaskState.SUCCEEDED:
        typer.echo(printable_json(task.result))
    else:
        say(sentence(task, waited_seconds))
    return _code_of_state(task.state)


def _code_of_state(state: TaskState) -> int:
    if state is TaskState.SUCCEEDED:
        return DONE
    return FAILED if state.is_terminal else NOT_FINISHED


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
