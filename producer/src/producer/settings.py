"""Where the gateway is, when a command is not told."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from producer.errors import BadInput

DEFAULT_GATEWAY = "http://127.0.0.1:8000"
#: As `worker` has them: its data folder, and the file in it that tells of the environment that runs.
_DATA_FOLDER, _STATE_FILE = ".plugplay", "environment.json"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """`source` says where it was found, as it is said behind the address."""

    url: str
    source: str


def find_gateway(given: str) -> GatewayAddress:
    """`given` comes from ``--gateway`` or ``GATEWAY_URL``. Else the first of these that there is.

    The port that ``GATEWAY_PORT`` names, the environment that runs in ``DATA_FOLDER``, ``http://127.0.0.1:8000``.
    Raises BadInput for a port that is none.
    """
    if given:
        return GatewayAddress(given, "from GATEWAY_URL" if given == os.environ.get("GATEWAY_URL") else "from --gateway")
    if port := os.environ.get("GATEWAY_PORT"):
        if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
            raise BadInput(f"GATEWAY_PORT is {port!r}, which is not a port; set a number from 1 to 65535, or unset it")
        return GatewayAddress(f"http://127.0.0.1:{port}", "from GATEWAY_PORT")
    folder = Path(os.environ.get("DATA_FOLDER") or _DATA_FOLDER)
    if url := _running_in(folder):
        return GatewayAddress(url, f"of the environment that runs in {folder}")
    return GatewayAddress(DEFAULT_GATEWAY, f"the default; no environment runs in {folder}")


def _running_in(folder: Path) -> str | None:
    try:
        state = json.loads((folder / _STATE_FILE).read_bytes())
        pid, url = state["pid"], state["gateway"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) and isinstance(pid, int) and pid > 0 and _lives(pid) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
