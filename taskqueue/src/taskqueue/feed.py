"""A feed over anything that tasks can be claimed from: keeps up to `prefetch` tasks out, sleeps when there are none."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.outstanding import Holder
from taskqueue.tasks import Delivery

_log = logging.getLogger(__name__)

#: A dry feed looks again after this long, whatever it has been told: a net, not the path.
LOOK_AGAIN_SECONDS = 10.0
#: ... and when it has found nothing for long: thousands of idle algorithms must not keep the database busy.
LONGEST_LOOK_AGAIN_SECONDS = 600.0
#: Tasks claimed in one go, whatever the prefetch: others want to write meanwhile.
MOST_AT_ONCE = 1000
#: How long a feed waits after the queue could not be reached.
UNAVAILABLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """`next_in_seconds`: when to claim again, if a delayed or leased task comes due by then."""

    deliveries: list[Delivery]
    next_in_seconds: float | None = None


class ClaimSource(Protocol):
    """Where a feed's tasks come from."""

    async def claim(self, algorithm: str, most: int, holder: Holder) -> Claimed:
        """Takes up to `most` tasks, oldest first, without waiting for any."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Gives these back, uncounted; their holder is told that they are settled."""


class PullFeed:
    """The tasks of one algorithm. See `taskqueue.protocols.Feed`.

    `take` raises QueueClosed once the feed is closed, also when it was waiting.
    """

    def __init__(self, algorithm: str, source: ClaimSource, on_close: Callable[["PullFeed"], None]) -> None:
        self.algorithm = algorithm
        self._source = source
        self._on_close = on_close
        self._prefetch = 0
        self._out = 0
        self._buffer: deque[Delivery] = deque()
        self._here = asyncio.Event()
        self._wake = asyncio.Event()
        self._news = False
        #: on the loop's clock; 0 unless the last claim found less than it asked for
        self._claim_again_at = 0.0
        self._look_again = LOOK_AGAIN_SECONDS
        self._time = asyncio.get_running_loop().time
        self._giving_back = asyncio.Lock()
        self._closed = False
        self._pump = asyncio.create_task(self._run(), name=f"feed {algorithm}")

    async def set_prefetch(self, count: int) -> None:
        self._prefetch = count
        self._wake.set()
        await self._give_back_surplus()

    async def take(self, most: int) -> list[Delivery]:
        while not self._buffer:
            if self._closed:
                raise QueueClosed(f"the feed of {self.algorithm!r} is closed")
            if self._pump.done():
                self._pump.result()
            self._here.clear()
            await self._here.wait()
        taken = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        self._wake.set()
        return taken

    @property
    def trouble(self) -> str:
        """A table is there or everything is away; the feed has no trouble of its own."""
        return ""

    def waiting(self) -> int:
        return len(self._buffer)

    async def close(self) -> None:
        """Idempotent; waits until what was not taken is given back."""
        if not self._closed:
            self._closed = True
            self._prefetch = 0
            self._wake.set()
            self._here.set()
            self._on_close(self)
        await asyncio.shield(self._pump)

    def arrived(self) -> None:
        """Told by the queue: there may be something to claim."""
        self._news = True
        self._look_again = LOOK_AGAIN_SECONDS
        self._wake.set()

    def settled(self, count: int) -> None:
        """Told by the queue: so many are no longer out."""
        self._out -= count
        self._wake.set()

    async def _run(self) -> None:
        try:
            while not self._closed:
                if self._wants_more():
                    await self._fill()
                else:
                    await self._sleep()
        finally:
            self._here.set()
        await self._give_back_surplus()

    def _wants_more(self) -> bool:
        """Claims in bulk: not for every single task that is settled, unless nothing else is here."""
        room = self._prefetch - self._out
        if self._closed or room <= 0 or (self._buffer and room * 4 < self._prefetch):
            return False
        return self._news or self._claim_again_at <= self._time()

    async def _fill(self) -> None:
        room = min(self._prefetch - self._out, MOST_AT_ONCE)
        self._news = False
        try:
            claimed = await self._source.claim(self.algorithm, room, self)
        except QueueUnavailable as error:
            _log.warning("no tasks of %s for now: %s", self.algorithm, error)
            self._claim_again_at = self._time() + UNAVAILABLE_SECONDS
            return
        self._out += len(claimed.deliveries)
        self._claim_again_at = 0.0
        if len(claimed.deliveries) < room:
            pause = claimed.next_in_seconds
            self._claim_again_at = self._time() + (self._look_again if pause is None else min(pause, self._look_again))
            self._look_again = min(LONGEST_LOOK_AGAIN_SECONDS, self._look_again * 2)
        if claimed.deliveries:
            self._look_again = LOOK_AGAIN_SECONDS
            self._buffer.extend(claimed.deliveries)
            self._here.set()
            await self._give_back_surplus()

    async def _sleep(self) -> None:
        """Until something changes; a dry feed with room also wakes when a delayed task comes due."""
        seconds = None
        if self._prefetch > self._out:
            seconds = max(0.0, self._claim_again_at - self._time()) or None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _give_back_surplus(self) -> None:
        """What is here beyond the prefetch, newest first."""
        async with self._giving_back:
            surplus: list[Delivery] = []
            while self._buffer and self._out - len(surplus) > self._prefetch:
                surplus.append(self._buffer.pop())
            if not surplus:
                return
            try:
                await self._source.release(surplus)
            except QueueUnavailable as error:
                _log.warning("tasks of %s come back when their leases end: %s", self.algorithm, error)
