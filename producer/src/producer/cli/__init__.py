"""The command line: ``producer send upper '{"text": "hello"}' --wait``.

| exit code | |
|---|---|
| 0 | done |
| 1 | a task failed, was cancelled, or had ended before it could be cancelled; a dead letter was skipped |
| 2 | bad input: it was refused, or there is no such thing |
| 3 | not finished yet; ask again |
| 4 | no gateway, or it cannot reach its queue or its store; try again |
| 130 | interrupted; what was queued goes on |

Of several, the gravest: 4, 2, 1, 3. Standard output carries ids, results and lists only, so that it can be piped; all
else goes to standard error.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from producer.cli.dead import dead
from producer.cli.many import send_many
from producer.cli.tasks import algorithms, cancel, list_tasks, pause, result, resume, send
from producer.cli.token_option import take_tokens
from producer.cli.tokens import audit, token

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"producer {version('plugplay-producer')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end.")
    ] = False,
) -> None:
    """Send tasks to the environment and fetch their results."""


app.command()(send)
app.command("send-many")(send_many)
app.command()(result)
app.command()(cancel)
app.command("list")(list_tasks)
app.add_typer(dead, name="dead")
app.command()(algorithms)
app.command()(pause)
app.command()(resume)
app.add_typer(token, name="token")
app.command()(audit)
take_tokens(app)


def main() -> None:
    """The console script."""
    app(prog_name="producer")
