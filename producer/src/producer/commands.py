"""The command line: ``producer send upper '{"text": "hello"}' --wait``.

Exit codes: 0 done, 1 the task failed or was cancelled, 2 bad input, 3 not finished yet, 4 no gateway.
Standard output carries ids and results only, so that it can be piped; all else goes to standard error.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from producer.algorithm_table import algorithm_table
from producer.client import GatewayClient
from producer.errors import GatewayUnreachable, Refused
from producer.payload_argument import BadPayload, read_payload
from producer.printable import printable
from producer.waiting import wait_with_progress
from runnerlib.contract import TaskState, TaskView

FAILED, BAD_INPUT, NOT_FINISHED, NO_GATEWAY = 1, 2, 3, 4

DEFAULT_GATEWAY = "http://127.0.0.1:8000"

Gateway = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="Address of the gateway.")]
Timeout = Annotated[float, typer.Option(min=0, max=86_400, help="Longest wait, in seconds.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result and print it.")]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Send tasks to the environment and fetch their results.",
)


@app.command()
def send(
    algorithm: Annotated[str, typer.Argument(help="Name of the algorithm; see: producer algorithms")],
    payload: Annotated[str, typer.Argument(help="JSON, or - for standard input, or @file.")],
    id: Annotated[str | None, typer.Option("--id", help="Id of your own; sent twice, it is still one task.")] = None,
    wait: Wait = False,
    timeout: Timeout = 300,
    gateway: Gateway = DEFAULT_GATEWAY,
) -> None:
    """Queue a task and print its id, or with --wait its result."""
    with _explained(), GatewayClient(gateway) as client:
        task = client.submit(algorithm, read_payload(payload, sys.stdin.buffer), task_id=id)
        if not wait:
            typer.echo(task.id)
            return
        _finish(wait_with_progress(client, task, timeout, _errors()), timeout)


@app.command()
def result(id: TaskId, wait: Wait = False, timeout: Timeout = 300, gateway: Gateway = DEFAULT_GATEWAY) -> None:
    """Print the result of a task."""
    with _explained(), GatewayClient(gateway) as client:
        task = client.get(id)
        if wait:
            task = wait_with_progress(client, task, timeout, _errors())
        _finish(task, timeout if wait else 0)


@app.command()
def cancel(id: TaskId, gateway: Gateway = DEFAULT_GATEWAY) -> None:
    """Cancel a task: it will not run, or its runner is asked to stop."""
    with _explained(), GatewayClient(gateway) as client:
        task = client.cancel(id)
        done = task.state is TaskState.CANCELLED
        _say(f"task {id} is cancelled" if done else f"task {id} is running; its runner is being asked to stop")


@app.command()
def algorithms(gateway: Gateway = DEFAULT_GATEWAY) -> None:
    """List what can be asked for."""
    with _explained(), GatewayClient(gateway) as client:
        found = client.algorithms()
        if found:
            Console().print(algorithm_table(found))
        else:
            _say("no runner has registered yet")


def main() -> None:
    """The console script."""
    app(prog_name="producer")


def _finish(task: TaskView, waited_seconds: float) -> None:
    """Prints the result, or says what became of the task and exits with its code."""
    if task.state is TaskState.SUCCEEDED:
        typer.echo(json.dumps(task.result, ensure_ascii=False))
        return
    if task.state is TaskState.FAILED and task.error is not None:
        _say(f"task {task.id} failed ({task.error.code.value}): {task.error.message}")
    elif task.state is TaskState.CANCELLED:
        _say(f"task {task.id} was cancelled")
    else:
        waited = f" after {waited_seconds:g} s" if waited_seconds else ""
        _say(f"task {task.id} is {task.state.value}{waited}; ask again with: producer result {task.id} --wait")
        raise typer.Exit(NOT_FINISHED)
    raise typer.Exit(FAILED)


@contextmanager
def _explained() -> Iterator[None]:
    """Every error of a command ends here, as a sentence and an exit code."""
    try:
        yield
    except BadPayload as error:
        _say(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except Refused as error:
        _say(str(error))
        raise typer.Exit(_code_of(error)) from None
    except GatewayUnreachable as error:
        _say(str(error))
        raise typer.Exit(NO_GATEWAY) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _code_of(error: Refused) -> int:
    if error.status >= 500:
        return NO_GATEWAY
    return FAILED if error.code == "already_finished" else BAD_INPUT


def _errors() -> Console:
    return Console(stderr=True, highlight=False)


def _say(sentence: str) -> None:
    _errors().print(printable(sentence), markup=False, soft_wrap=True)
