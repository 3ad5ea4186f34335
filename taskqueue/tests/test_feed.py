import asyncio
import random

import pytest

from taskqueue.feed import Claimed, PullFeed

uvloop = pytest.importorskip("uvloop")


def test_feed_claims_again_whenever_the_next_task_is_due():
    """uvloop's clock has steps of a millisecond; a due time may be reached between any two readings of it."""
    most = 1000

    class Source:
        def __init__(self):
            self.claims = 0
            self.enough = asyncio.Event()

        def has_groups(self, algorithm):
            return False

        def takes_turns(self, algorithm):
            return False

        async def claim(self, algorithm, room, holder, group_slots):
            self.claims += 1
            if self.claims == most:
                self.enough.set()
            return Claimed([], random.uniform(0.0, 0.002))

        async def release(self, deliveries):
            raise AssertionError("nothing was claimed")

    async def scenario():
        source = Source()
        feed = PullFeed("a", source, lambda _: None)
        await feed.set_prefetch(1)
        try:
            async with asyncio.timeout(60):
                await source.enough.wait()
        finally:
            await feed.close()

    uvloop.run(scenario())
