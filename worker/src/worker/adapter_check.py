"""Asks ``python -m runnerlib check`` about an adapter before anything of it is started."""

import asyncio
from collections import deque

from worker.child import start_child
from worker.errors import AdapterRefused
from worker.plan import UNREGISTRABLE
from worker.processes import ProcessPlan

#: Importing a large library on a busy machine takes this long; an import that hangs, longer.
CHECK_SECONDS = 120.0
_TAIL_LINES = 12


async def check_adapter(plan: ProcessPlan, *, seconds: float = CHECK_SECONDS) -> None:
    """Checks what `plan` would serve, where it would be served. Raises AdapterRefused with the check's sentences.

    What cannot be registered is no reason: the runner serves the rest, and its readiness says what is missing.
    """
    command = (*plan.command, "check", plan.environment["RUNNER_ADAPTER"])
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        async with (
            asyncio.timeout(seconds),
            start_child(command, folder=plan.folder, environment=plan.environment) as child,
        ):
            async for line in child.lines():
                if line.strip():
                    tail.append(line.rstrip())
            code = await child.wait()
    except TimeoutError:
        raise AdapterRefused(
            "\n".join(
                [*tail, f"importing it took longer than {seconds:g} s; move what takes long into a load_ function"]
            )
        ) from None
    except OSError as error:
        raise AdapterRefused(f"it could not be checked: {error}") from None
    if code not in (0, UNREGISTRABLE):
        raise AdapterRefused("\n".join(tail) or f"its check ended with {code} and said nothing")
