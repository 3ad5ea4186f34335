"""Handlers that wait without holding a process."""

import asyncio


async def run_later(text: str, *, task) -> str:
    """Give back after a moment.

    >>> asyncio.run(run_later("a"))
    'a later'
    """
    await asyncio.sleep(0)
    task.progress(0.5, "half")
    return f"{text} later"


async def batch_double(n: list[int]) -> list[int]:
    """Double them.

    >>> await batch_double([2])
    [4]
    """
    await asyncio.sleep(0)
    return [2 * one for one in n]
