import asyncio
import random

import pytest

from taskqueue.feed import Claimed, PullFeed

uvloop = pytest.importorskip("uvloop")


def test_feed_claims_again_whenever_the_next_task_is_due():
    """uvloop's clock has steps of a millisecond; a due time may be reached between any two readings of it."""
    claims, most = 0, 1000

    class Source:
        async def claim(self, algorithm, room, holder):
            nonlocal claims
            claims += 1
            if claims == most:
                enough.set()
            return Claimed([], random.uniform(0.0, 0.002))

        async def release(self, deliveries):
            raise AssertionError("nothing was claimed")

    async def scenario():
        nonlocal enough
        enough = asyncio.Event()
        feed = PullFeed("a", Source(), lambda _: None)
        await feed.set_prefetch(1)
        try:
            async with asyncio.timeout(60):
                await enough.wait()
        finally:
            await feed.close()

    enough = None
    uvloop.run(scenario())
