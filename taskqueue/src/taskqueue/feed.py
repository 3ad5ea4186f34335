"""A feed over a table from which tasks are claimed, and the leases of what this process has claimed.

Both live on the event loop.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.tasks import Delivery

_log = logging.getLogger(__name__)

#: An empty feed polls after this long, in case it missed that something arrived.
POLL_SECONDS = 10.0
#: The longest time between two polls that find nothing: thousands of idle algorithms must not keep the database busy.
MAX_POLL_SECONDS = 600.0
#: Tasks claimed at once, whatever the prefetch: others want to write meanwhile.
MAX_CLAIM = 1000
#: An algorithm's tasks that wait because enough of their groups are out are looked for so often.
HELD_BACK_SECONDS = 1.0
#: How long a feed waits after the queue could not be reached.
UNAVAILABLE_SECONDS = 1.0


class Receipt(NamedTuple):
    """Fences the settling of one delivery: which row, and the random number of the claim."""

    seq: int
    token: int


class LeaseHolder(Protocol):
    """What claimed deliveries: a feed, which is told when they were settled."""

    def settled(self, count: int) -> None: ...


@dataclass(slots=True)
class Lease:
    holder: LeaseHolder | None
    #: the store has ended the task or moved it on to the next attempt: nothing is left to write
    over: bool = False


class LeaseTable:
    """What this process has claimed and not settled, of all feeds, by receipt."""

    def __init__(self) -> None:
        self._leases: dict[Receipt, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, deliveries: Iterable[Delivery], holder: LeaseHolder | None) -> None:
        for delivery in deliveries:
            self._leases[delivery.receipt] = Lease(holder)

    def mark_over(self, deliveries: Iterable[Delivery]) -> None:
        """The rows have moved on; acknowledging these needs no write."""
        for delivery in deliveries:
            if isinstance(delivery.receipt, Receipt):
                lease = self._leases.get(delivery.receipt)
                if lease is not None:
                    lease.over = True

    def is_over(self, delivery: Delivery) -> bool:
        lease = self._leases.get(delivery.receipt)
        return lease is None or lease.over

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Forgets them and tells their holders. Idempotent."""
        counts: dict[int, tuple[LeaseHolder, int]] = {}
        for delivery in deliveries:
            lease = self._leases.pop(delivery.receipt, None)
            if lease is not None and lease.holder is not None:
                _, count = counts.get(id(lease.holder), (lease.holder, 0))
                counts[id(lease.holder)] = (lease.holder, count + 1)
        for holder, count in counts.values():
            holder.settled(count)

    def receipts(self) -> list[Receipt]:
        """The receipts whose rows still carry this process's lease."""
        return [receipt for receipt, lease in self._leases.items() if not lease.over]


@dataclass(frozen=True, slots=True)
class Claimed:
    """`next_in_seconds`: when the next delayed or leased task comes due, if there is one.

    `held_back`: tasks wait because enough of their groups are out; when one is settled there may be more to claim.
    """

    deliveries: list[Delivery]
    next_in_seconds: float | None = None
    held_back: bool = False


class ClaimSource(Protocol):
    """Where a feed's tasks come from."""

    def has_groups(self, algorithm: str) -> bool:
        """Whether tasks of groups wait or are out, as far as is known here."""

    def takes_turns(self, algorithm: str) -> bool:
        """Whether its tasks are claimed in turn, so that no more are claimed than can start."""

    async def claim(self, algorithm: str, most: int, holder: LeaseHolder, group_slots: int | None = None) -> Claimed:
        """Takes up to `most` tasks, oldest first or in their groups' turns, without waiting for any.

        `group_slots`: the most of one group that may be out, here and elsewhere.
        """

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Gives these back, uncounted, and tells their holder that they are settled."""


class PullFeed:
    """The tasks of one algorithm: keeps up to `prefetch` claimed. See `taskqueue.protocols.Feed`."""

    def __init__(
        self,
        algorithm: str,
        source: ClaimSource,
        on_close: Callable[["PullFeed"], None],
        filled: asyncio.Event | None = None,
    ) -> None:
        """`filled` is set when there is something to take; its owner clears it."""
        self.algorithm = algorithm
        self._source = source
        self._on_close = on_close
        self._prefetch = 0
        #: the same while groups take turns
        self._prefetch_in_turn = 0
        self._group_slots: int | None = None
        self._held_back = False
        self._out = 0
        self._buffer: deque[Delivery] = deque()
        self._filled = filled or asyncio.Event()
        self._wake = asyncio.Event()
        self._something_arrived = False
        self._is_claiming = False
        #: tasks being published that are handed over with that
        self._expected = 0
        #: on the loop's clock; 0 unless the last claim found less than it asked for
        self._claim_again_at = 0.0
        self._poll_seconds = POLL_SECONDS
        self._time = asyncio.get_running_loop().time
        self._surplus_lock = asyncio.Lock()
        self._closed = False
        self._filling = asyncio.create_task(self._run(), name=f"feed {algorithm}")

    async def set_prefetch(self, count: int, *, in_turn: int | None = None, group_slots: int | None = None) -> None:
        self._prefetch = count
        self._prefetch_in_turn = count if in_turn is None else min(count, in_turn)
        self._something_arrived |= group_slots != self._group_slots
        self._group_slots = group_slots
        self._wake.set()
        await self._give_back_surplus()

    async def take(self, most: int) -> list[Delivery]:
        while not (taken := self.take_here(most)):
            self._filled.clear()
            await self._filled.wait()
        return taken

    def take_here(self, most: int) -> list[Delivery]:
        """The same without waiting, maybe nothing."""
        if not self._buffer:
            if self._closed:
                raise QueueClosed(f"the feed of {self.algorithm!r} is closed")
            if self._filling.done():
                self._filling.result()
            return []
        self._wake.set()
        return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]

    @property
    def trouble(self) -> str:
        """Always empty: when the database is away, so is the whole queue."""
        return ""

    @property
    def has_groups(self) -> bool:
        return self._source.has_groups(self.algorithm)

    def waiting(self) -> int:
        return len(self._buffer)

    async def close(self) -> None:
        """Waits until what was not taken is given back. Idempotent."""
        if not self._closed:
            self._closed = True
            self._prefetch = self._prefetch_in_turn = 0
            self._wake.set()
            self._filled.set()
            self._on_close(self)
        await asyncio.shield(self._filling)

    def arrived(self) -> None:
        """Called by the queue when there may be something to claim."""
        self._something_arrived = True
        self._poll_seconds = POLL_SECONDS
        self._wake.set()

    @property
    def is_hungry(self) -> bool:
        """Whether all that waits is claimed and there is room: a task that is published now is the next one."""
        seconds = self._claim_in()
        return (
            seconds is not None
            and seconds > 0
            and not self._is_claiming
            and self._out + self._expected < self._most_out
        )

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """While a task is published that `hand_over` brings: others that are published meanwhile need other room."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1

    def hand_over(self, delivery: Delivery) -> bool:
        """Takes a task that was claimed as it was published; False if the feed is closed by now."""
        if self._closed:
            return False
        self._out += 1
        self._buffer.append(delivery)
        self._filled.set()
        return True

    def settled(self, count: int) -> None:
        """Called by the queue when so many are no longer out."""
        self._out -= count
        # When all is settled, a claim finds out whether groups still take turns.
        self._something_arrived |= self._held_back or (self._out == 0 and self.has_groups)
        self._wake.set()

    @property
    def _most_out(self) -> int:
        return self._prefetch_in_turn if self._source.takes_turns(self.algorithm) else self._prefetch

    async def _run(self) -> None:
        try:
            while not self._closed:
                seconds = self._claim_in()
                if seconds is not None and seconds <= 0:
                    await self._fill()
                else:
                    await self._sleep(seconds)
        finally:
            self._filled.set()
        await self._give_back_surplus()

    def _claim_in(self) -> float | None:
        """Seconds until the next claim is due, 0 or less: now. None: not before something changes.

        Claims in bulk: not for every single task that is settled, unless the buffer is empty.
        """
        most = self._most_out
        room = most - self._out
        if self._closed or room <= 0 or (self._buffer and room * 4 < most):
            return None
        # The clock is read once: between two readings the time may have come, and nobody would wake this feed any more.
        return 0.0 if self._something_arrived else self._claim_again_at - self._time()

    async def _fill(self) -> None:
        room = min(self._most_out - self._out, MAX_CLAIM)
        self._something_arrived = self._held_back = False
        self._is_claiming = True
        try:
            claimed = await self._source.claim(self.algorithm, room, self, self._group_slots)
        except QueueUnavailable as error:
            _log.warning("no tasks of %s for now: %s", self.algorithm, error)
            self._claim_again_at = self._time() + UNAVAILABLE_SECONDS
            return
        finally:
            self._is_claiming = False
        self._out += len(claimed.deliveries)
        self._claim_again_at = 0.0
        self._held_back = claimed.held_back
        if len(claimed.deliveries) < room:
            due = claimed.next_in_seconds
            if claimed.held_back:
                # what another process settles is not told here
                due = HELD_BACK_SECONDS if due is None else min(due, HELD_BACK_SECONDS)
            self._claim_again_at = self._time() + min(self._poll_seconds, MAX_POLL_SECONDS if due is None else due)
            self._poll_seconds = min(MAX_POLL_SECONDS, self._poll_seconds * 2)
        if claimed.deliveries:
            self._poll_seconds = POLL_SECONDS
            self._buffer.extend(claimed.deliveries)
            self._filled.set()
            await self._give_back_surplus()

    async def _sleep(self, seconds: float | None) -> None:
        """Until something changes, or this time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _give_back_surplus(self) -> None:
        """Releases what is buffered beyond the prefetch, newest first."""
        async with self._surplus_lock:
            surplus: list[Delivery] = []
            while self._buffer and self._out - len(surplus) > self._most_out:
                surplus.append(self._buffer.pop())
            if not surplus:
                return
            try:
                await self._source.release(surplus)
            except QueueUnavailable as error:
                _log.warning("tasks of %s come back when their leases end: %s", self.algorithm, error)
