"""Checks all lines before one is sent, by the gateway's own rules and with the schemas that it has now."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from producer.client import GatewayClient
from producer.errors import BadInput
from producer.models import MAX_MESSAGE_BYTES
from producer.sending.line_task import BadLine, LineTask
from producer.sending.show import MOST_NAMED, name_line

if TYPE_CHECKING:
    from runnerlib.contract import Catalogue


@dataclass(frozen=True, slots=True)
class _Known:
    """What the gateway knows."""

    catalogue: "Catalogue"
    is_sure: bool


def refuse_bad_lines(lines: Iterable[LineTask | BadLine], client: GatewayClient, console: Console) -> None:
    """Names the bad lines. Raises BadInput when there are any."""
    try:
        # Here and not above: it loads the gateway's checks, which no other command needs.
        from producer.gateway.admission import Admission, Refused
    except ImportError:
        raise BadInput(
            "--strict checks as the gateway does, and needs its packages; from a checkout: "
            "pip install ./runnerlib ./taskqueue './producer[gateway]'; or send without --strict: bad lines are named, "
            "and the others sent"
        ) from None

    admission, now = Admission(_known(client), MAX_MESSAGE_BYTES), time.time()
    bad = 0
    for read in lines:
        found = read if isinstance(read, BadLine) else admission.one(read.body, now)
        if isinstance(found, BadLine | Refused):
            bad += 1
            if bad <= MOST_NAMED:
                name_line(console, read.line.number, found.message)
    if bad:
        raise BadInput(f"{'1 line is' if bad == 1 else f'{bad:,} lines are'} bad; nothing was sent")


def _known(client: GatewayClient) -> _Known:
    from runnerlib.contract import AlgorithmDescription, AlgorithmView, Catalogue, schema_digest

    answer = client.algorithms_answer()
    algorithms = {}
    for told in answer["algorithms"]:
        about = AlgorithmDescription(name=told["name"], input_schema=told["input_schema"])
        algorithms[about.name] = AlgorithmView(description=about, schema_digest=schema_digest(about))
    catalogue = Catalogue(epoch="", index=0, uptime_seconds=0, lease_seconds=0, runners={}, algorithms=algorithms)
    return _Known(catalogue, bool(answer["complete"]))
