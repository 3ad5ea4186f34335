"""Whether a runner's process is on discovery's list."""

import contextlib

import aiohttp


async def is_registered(discovery_url: str, host: str, boot: str) -> bool:
    """False as well when discovery does not answer. `boot`: which process; an older one may have had this address."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"{discovery_url}/catalogue") as answer,
        ):
            runners = (await answer.json(content_type=None))["runners"].values()
            return any(runner["host"] == host and boot in ("", runner["boot"]) for runner in runners)
    return False
