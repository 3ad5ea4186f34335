"""What `worker` asks of discovery: is a process on its list, and whose algorithms are whose."""

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote

import aiohttp

from worker.errors import NotRunning, TakeOverRefused

_TIMEOUT = aiohttp.ClientTimeout(total=5)
#: A process that was killed stays on the list until its lease is over; until then it is asked as often.
_GIVE_UP_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 2.0


async def is_registered(discovery_url: str, host: str, boot: str) -> bool:
    """False as well when discovery does not answer. `boot`: which process; an older one may have had this address."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        _, runners = await _ask("GET", f"{discovery_url}/runners")
        return any(runner["host"] == host and boot in ("", runner["boot"]) for runner in runners)
    return False


async def give_up(discovery_url: str, name: str) -> None:
    """Runner `name` is no more: others may have its algorithms, unless one of that name is live elsewhere."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _GIVE_UP_SECONDS
    while loop.time() < ends_at:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, TypeError, AttributeError):
            status, answer = await _ask("DELETE", f"{discovery_url}/owners?runner={quote(name, safe='')}")
            if status >= 400 or not answer.get("live"):
                return
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def take_over(discovery_url: str, algorithm: str, name: str) -> None:
    """Gives an algorithm to runner `name`. Raises NotRunning; TakeOverRefused with discovery's sentence."""
    url = f"{discovery_url}/owners/{quote(algorithm, safe='')}"
    try:
        status, answer = await _ask("PUT", url, {"runner": name})
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise NotRunning(f"{discovery_url} does not answer ({reason}); start the environment with: worker up") from None
    if status >= 400:
        raise TakeOverRefused(str(answer.get("detail", status)) if isinstance(answer, dict) else str(status))


async def _ask(method: str, url: str, body: Any = None) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.request(method, url, json=body) as answer,
    ):
        return answer.status, None if answer.status == 204 else await answer.json(content_type=None)
