"""Checks all lines before one is sent, by the gateway's own rules and with the schemas that it has now."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from producer.client import GatewayClient
from producer.errors import BadInput
from producer.sending.line_task import BadLine, LineTask
from producer.sending.show import MOST_NAMED, name_line
from runnerlib.contract import AlgorithmDescription, AlgorithmView, Catalogue, schema_digest
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class _Known:
    """What the gateway knows."""

    catalogue: Catalogue
    is_sure: bool


def refuse_bad_lines(lines: Iterable[LineTask | BadLine], client: GatewayClient, console: Console) -> None:
    """Names the bad lines. Raises BadInput when there are any."""
    # Here and not above: it loads the gateway's schema checks, which no other command needs.
    from producer.gateway.submission import Admission, Refused

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
    answer = client.algorithms_answer()
    algorithms = {}
    for told in answer["algorithms"]:
        about = AlgorithmDescription(name=told["name"], input_schema=told["input_schema"])
        algorithms[about.name] = AlgorithmView(description=about, schema_digest=schema_digest(about))
    catalogue = Catalogue(epoch="", index=0, uptime_seconds=0, lease_seconds=0, runners={}, algorithms=algorithms)
    return _Known(catalogue, bool(answer["complete"]))
