"""``producer send | result | cancel | list | algorithms``."""

import json
import sys
from typing import Annotated, Any

import typer

from producer.algorithm_table import algorithm_table
from producer.client import GatewayClient
from producer.commands.ending import (
    DONE,
    FAILED,
    NOT_FINISHED,
    code_of,
    end_with,
    errors,
    explained,
    say,
    show_all,
    when_interrupted,
)
from producer.commands.options import DEFAULT_GATEWAY, AlgorithmOption, AsJson, Gateway, Limit, TaskIds, Timeout, Wait
from producer.errors import Refused
from producer.payload_argument import read_payload
from producer.task_sentences import cancelled, outcome, sentence
from producer.task_table import task_table
from producer.waiting import wait_with_progress
from runnerlib.contract import TaskState, TaskView, new_task_id

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
    gateway: Gateway = DEFAULT_GATEWAY,
) -> None:
    """Queue a task and print its id, or with --wait its result."""
    task_id = id or new_task_id()
    with explained(), GatewayClient(gateway) as client:
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
    gateway: Gateway = DEFAULT_GATEWAY,
) -> None:
    """Print the result of a task; of several, a line of JSON for each."""
    codes = []
    with explained(), GatewayClient(gateway) as client:
        for task_id in ids:
            try:
                task = client.get(task_id)
                task = _waited(client, task, timeout) if wait else task
            except Refused as error:
                say(str(error))
                codes.append(code_of(error))
                continue
            if as_json or len(ids) > 1:
                typer.echo(_line(outcome(task)))
                codes.append(_code_of_state(task.state))
            else:
                codes.append(_finish(task, timeout if wait else 0))
        end_with(codes)


def cancel(ids: TaskIds, gateway: Gateway = DEFAULT_GATEWAY) -> None:
    """Cancel tasks: one that waits will not run, one that runs is stopped."""
    codes = []
    with explained(), GatewayClient(gateway) as client:
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
    gateway: Gateway = DEFAULT_GATEWAY,
) -> None:
    """List tasks, the newest first."""
    with explained(), GatewayClient(gateway) as client:
        found = client.tasks(algorithm=algorithm, states=state or (), limit=limit)
        if as_json:
            for task in found:
                typer.echo(task.model_dump_json(exclude_none=True))
        elif rows := list(found):
            show_all([task_table(rows)])
        else:
            say("there are no such tasks")


def algorithms(as_json: AsJson = False, gateway: Gateway = DEFAULT_GATEWAY) -> None:
    """List what can be asked for."""
    with explained(), GatewayClient(gateway) as client:
        found = client.algorithms()
        if as_json:
            for algorithm in found:
                typer.echo(_line(algorithm))
        elif found:
            show_all([algorithm_table(found)])
        else:
            say("no runner has registered yet")


def _waited(client: GatewayClient, task: TaskView, timeout: float) -> TaskView:
    how = f"fetch its result with: producer result {task.id} --wait; or stop it with: producer cancel {task.id}"
    with when_interrupted(f"task {task.id} goes on; {how}"):
        return wait_with_progress(client, task, timeout, errors())


def _finish(task: TaskView, waited_seconds: float) -> int:
    """Prints the result, or says what became of the task."""
    if task.state is TaskState.SUCCEEDED:
        typer.echo(json.dumps(task.result, ensure_ascii=False))
    else:
        say(sentence(task, waited_seconds))
    return _code_of_state(task.state)


def _code_of_state(state: TaskState) -> int:
    if state is TaskState.SUCCEEDED:
        return DONE
    return FAILED if state.is_terminal else NOT_FINISHED


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
