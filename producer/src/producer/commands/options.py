"""Options and arguments that several commands have."""

from typing import Annotated

import typer

from producer.client.client import GatewayClient
from producer.models import FailureCode
from producer.settings import find_gateway

Gateway = Annotated[
    str,
    typer.Option(
        envvar="GATEWAY_URL",
        show_default=False,
        help="Address of the gateway; without it, GATEWAY_PORT here, else that of the environment that runs here.",
    ),
]
Timeout = Annotated[float, typer.Option(min=0, max=86_400, help="Longest wait, in seconds.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result and print it.")]
TaskIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of tasks.", show_default=False)]
AlgorithmOption = Annotated[str | None, typer.Option("--algorithm", metavar="NAME", help="Only of this algorithm.")]
CodeOption = Annotated[
    list[FailureCode] | None, typer.Option("--code", help="Only with this code; may be given several times.")
]
Limit = Annotated[int, typer.Option(min=1, help="Most entries, the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]


def connected(gateway: str, patience_seconds: float = 10.0) -> GatewayClient:
    """A client of the gateway that `--gateway` names, or that is found without it. Raises BadInput."""
    found = find_gateway(gateway)
    return GatewayClient(found.url, patience_seconds=patience_seconds, url_from=found.source)
