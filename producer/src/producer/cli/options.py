"""Options and arguments that several commands share, and how a command finds the gateway."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from producer.cli.token_option import data_folder, given_token
from producer.client.client import GatewayClient
from producer.errors import BadInput

DEFAULT_GATEWAY = "http://127.0.0.1:8000"
#: A PEM file with authorities that are trusted besides the system's.
_CA_VARIABLE = "CA_CERTIFICATES_FILE"
#: As `worker` has it: the file in the data folder that describes the running environment.
_STATE_FILE = "environment.json"

GatewayOption = Annotated[
    str,
    typer.Option(
        envvar="GATEWAY_URL",
        show_default=False,
        help="Address of the gateway; without it, GATEWAY_PORT here, else that of the environment that runs here.",
    ),
]
TimeoutOption = Annotated[float, typer.Option(min=0, max=86_400, help="Longest wait, in seconds.")]
AlgorithmOption = Annotated[str | None, typer.Option("--algorithm", metavar="NAME", help="Only of this algorithm.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Most entries, the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """`source` says where the address was found; messages show it after the address."""

    url: str
    source: str


def connect(gateway: str, patience_seconds: float = 10.0) -> GatewayClient:
    """A client of the gateway that `--gateway` names, or that is found without it. Raises BadInput."""
    address = find_gateway(gateway)
    try:
        return GatewayClient(
            address.url,
            patience_seconds=patience_seconds,
            url_from=address.source,
            token=given_token(address.url),
            ca_file=os.environ.get(_CA_VARIABLE, ""),
        )
    except ValueError as error:
        raise BadInput(f"{_CA_VARIABLE}: {error}") from None


def find_gateway(given: str) -> GatewayAddress:
    """`given` comes from ``--gateway`` or ``GATEWAY_URL``. Without it, the first of these that exists:

    the port in ``GATEWAY_PORT``, the environment that runs in ``DATA_FOLDER``, ``http://127.0.0.1:8000``.
    Raises BadInput for a GATEWAY_PORT that is not a port.
    """
    if given:
        return GatewayAddress(given, "from GATEWAY_URL" if given == os.environ.get("GATEWAY_URL") else "from --gateway")
    if port := os.environ.get("GATEWAY_PORT"):
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise BadInput(f"GATEWAY_PORT is {port!r}, which is not a port; set a number from 1 to 65535, or unset it")
        return GatewayAddress(f"http://127.0.0.1:{port}", "from GATEWAY_PORT")
    folder = data_folder()
    if url := _gateway_running_in(folder):
        return GatewayAddress(url, f"of the environment that runs in {folder}")
    return GatewayAddress(DEFAULT_GATEWAY, f"the default; no environment runs in {folder}")


def _gateway_running_in(folder: Path) -> str | None:
    try:
        state = json.loads((folder / _STATE_FILE).read_bytes())
        pid, url = state["pid"], state["gateway"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) and isinstance(pid, int) and pid > 0 and _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
