"""Options and arguments that several commands have."""

from typing import Annotated

import typer

from runnerlib.contract import FailureCode

DEFAULT_GATEWAY = "http://127.0.0.1:8000"

Gateway = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="Address of the gateway.")]
Timeout = Annotated[float, typer.Option(min=0, max=86_400, help="Longest wait, in seconds.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result and print it.")]
TaskIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of tasks.", show_default=False)]
AlgorithmOption = Annotated[str | None, typer.Option("--algorithm", metavar="NAME", help="Only of this algorithm.")]
CodeOption = Annotated[
    list[FailureCode] | None, typer.Option("--code", help="Only with this code; may be given several times.")
]
Limit = Annotated[int, typer.Option(min=1, help="Most entries, the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]
