"""``worker status``: once, as JSON, or again and again."""

import asyncio
from pathlib import Path

from rich.live import Live

from worker.gateway_client import GatewayClient
from worker.output import Output
from worker.processes import explained
from worker.state_file import read_state
from worker.status_view import StatusReport, report, shown

_REFRESH_SECONDS = 1.0


async def look(data: Path) -> StatusReport:
    """Raises NotRunning."""
    state = read_state(data)
    async with GatewayClient(state.gateway, state.discovery) as client:
        status, (dead_letters, more) = await asyncio.gather(client.status(), client.open_dead_letters())
        found = report(state, status, dead_letters, more)
        for line in found.runners:
            # It was ready once: what keeps it off the list now, only it knows.
            if line.state == "not registered" and not line.problem:
                line.problem = "; ".join(explained(await client.reasons(line.host)))
    return found


async def show_once(data: Path, output: Output, *, as_json: bool) -> None:
    found = await look(data)
    if as_json:
        output.console.file.write(found.model_dump_json(indent=2) + "\n")
    else:
        output.show(shown(found))


async def show_again_and_again(data: Path, output: Output, *, as_json: bool) -> None:
    """Until it is interrupted or the environment ends. On a terminal in one place, as JSON one line each time."""
    if output.is_terminal and not as_json:
        with Live(console=output.console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(shown(await look(data)), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)
    while True:
        if as_json:
            output.console.file.write((await look(data)).model_dump_json() + "\n")
            output.console.file.flush()
        else:
            await show_once(data, output, as_json=False)
        await asyncio.sleep(_REFRESH_SECONDS)
