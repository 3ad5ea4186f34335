"""Tells how large a folder has become while something fills it, so that nobody waits in silence."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_LOOK_SECONDS = 2.0
_MEGABYTE = 1_000_000


@contextlib.asynccontextmanager
async def growth_told(
    folder: Path, report: Callable[[str], None], *, seconds: float = _LOOK_SECONDS
) -> AsyncIterator[Callable[[str], None]]:
    """Gives a `report` to use instead: what it was told last is told again and again, with the size at that time."""
    last = ""

    def told(what: str) -> None:
        nonlocal last
        last = what
        report(what)

    async def look() -> None:
        while True:
            await asyncio.sleep(seconds)
            size = await asyncio.to_thread(bytes_in, folder)
            report(f"{size / _MEGABYTE:.0f} MB on disk: {last}")

    looking = asyncio.create_task(look())
    try:
        yield told
    finally:
        looking.cancel()
        await asyncio.wait([looking])


def bytes_in(folder: Path) -> int:
    """What its files take. Those that come and go meanwhile may count or not."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
