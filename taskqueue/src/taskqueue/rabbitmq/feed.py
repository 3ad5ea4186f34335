"""The tasks of one algorithm, consumed from its queue on a channel of its own."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.declared import Declared
from taskqueue.rabbitmq.idle_watch import QUIET_SECONDS, IdleWatch
from taskqueue.rabbitmq.keeping import Keeper
from taskqueue.rabbitmq.messages import read_arrival, read_delivery
from taskqueue.rabbitmq.names import algorithm_queue
from taskqueue.rabbitmq.receipts import Hold
from taskqueue.rabbitmq.releases import Releases
from taskqueue.rabbitmq.window import Window
from taskqueue.tasks import Arrival, Delivery

#: How long closing a feed waits until what was not taken is given back.
CLOSE_SECONDS = 3.0
#: A broker that does not answer a feed's call in this time gets a new channel.
_ANSWER_SECONDS = 4.0


class BrokerFeed:
    """See `taskqueue.protocols.Feed`. A message that is no task of this algorithm goes to `on_misfit`.

    Connection, channel and consumer are all watched: whichever is lost, it consumes again on a new channel. What was
    buffered is then dropped (it comes again), what was taken becomes stale: settling it is silently nothing.
    """

    def __init__(
        self,
        algorithm: str,
        *,
        keeper: Keeper,
        declared: Declared,
        releases: Releases,
        release: Callable[[Sequence[Delivery]], Awaitable[None]],
        on_misfit: Callable[[Arrival], None],
        wall: Callable[[], float],
    ) -> None:
        self.algorithm = algorithm
        self._queue = algorithm_queue(algorithm)
        self._keeper = keeper
        self._declared = declared
        self._releases = releases
        self._release = release
        self._on_misfit = on_misfit
        self._wall = wall
        self._time = asyncio.get_running_loop().time
        self._window = Window()
        self._idle = IdleWatch()
        self._hold: Hold | None = None
        self._consumer: str | None = None
        self._cancelled = False
        self._buffer: deque[Delivery] = deque()
        self._returning: list[Delivery] = []
        self._here = asyncio.Event()
        self._wake = asyncio.Event()
        self._gave_back = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(keeper.run(self._serve), name=f"feed {algorithm}")
        self._task.add_done_callback(self._ended)

    async def set_prefetch(self, count: int) -> None:
        if count != self._window.count and not self._closing:
            self._window.count = max(0, count)
            self._set_surplus_aside()
            self._wake.set()

    async def take(self, most: int) -> list[Delivery]:
        while not self._buffer:
            if self._closing:
                raise QueueClosed(f"the feed of {self.algorithm!r} is closed")
            if self._task.done():
                self._task.result()
                raise QueueClosed("the queue is closed")
            self._here.clear()
            await self._here.wait()
        return [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]

    @property
    def trouble(self) -> str:
        return self._keeper.trouble

    def waiting(self) -> int:
        return len(self._buffer)

    @property
    def is_over(self) -> bool:
        """Closed, and nothing is left to settle on its channel."""
        return self._task.done()

    async def close(self) -> None:
        """Idempotent; returns soon, also when the broker is gone."""
        if not self._closing:
            self._closing = True
            self._window.count = 0
            self._set_surplus_aside()
            self._here.set()
            self._wake.set()
            if self._hold is None:
                self._task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._gave_back.wait()

    async def abandon(self) -> None:
        """Closes the channel too: what was taken and not settled comes again, to somebody."""
        self._closing = True
        self._here.set()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _serve(self, channel: Channel) -> None:
        """Consumes until channel or consumer is lost (raises QueueUnavailable), or all is settled at the end."""
        channel.when_closed(lambda _: self._wake.set())
        await self._declared.algorithm(channel, self.algorithm)
        self._hold = Hold(channel, self._on_settled)
        self._idle.stirred(self._time())
        self._keeper.flowing()
        try:
            while not (self._closing and self._gave_back.is_set() and not self._hold.unsettled):
                if not channel.is_open:
                    raise QueueUnavailable(f"the channel was closed: {channel.close_reason}")
                if self._cancelled:
                    raise QueueUnavailable("the broker cancelled the consumer")
                await self._step(channel)
        except QueueUnavailable:
            # Perhaps because the queue was deleted.
            self._declared.missing(self.algorithm)
            raise
        finally:
            self._let_go()

    async def _step(self, channel: Channel) -> None:
        """One thing that is due now, or a sleep until something is."""
        now = self._time()
        tune_in = 0.0 if self._returning else self._window.tune_in(now)
        idle = self._consumer is not None and self._window.has_room and not self._buffer
        look_in = self._idle.look_in(now) if idle else None
        try:
            if tune_in == 0.0:
                await self._tune(channel)
            elif look_in == 0.0:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    state = await channel.declare_queue(self._queue, passive=True)
                self._idle.looked(state, self._time())
            elif self._closing and not self._gave_back.is_set():
                self._gave_back.set()
            else:
                # A full feed has room again without a word: it looks now and then.
                nap = QUIET_SECONDS if look_in is None else look_in
                await self._sleep(nap if tune_in is None else min(nap, tune_in))
        except TimeoutError:
            raise QueueUnavailable("the broker does not answer") from None

    async def _tune(self, channel: Channel) -> None:
        """Gives back what is too much, and consumes with the prefetch that is right now."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            async with asyncio.timeout(_ANSWER_SECONDS):
                await channel.cancel(consumer)
        self._set_surplus_aside()
        returning, self._returning = self._returning, []
        # Only now: as long as this consumer has room, the broker would hand them right back to it.
        await self._release(returning)
        prefetch = self._window.retune(self._time())
        if prefetch and channel.is_open:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await channel.qos(prefetch)
                self._consumer = await channel.consume(self._queue, self._on_message, self._on_cancel)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _on_message(self, message: IncomingMessage) -> None:
        if self._hold is None:
            return
        self._hold.arrived(message.tag)
        self._window.arrived(message.tag, len(message.body))
        self._idle.stirred(self._time())
        delivery = read_delivery(message, self.algorithm, self._hold, self._releases, self._wall())
        if delivery is None:
            self._on_misfit(read_arrival(message, self._hold))
        elif self._window.count == 0:
            self._returning.append(delivery)
            self._wake.set()
        else:
            self._buffer.append(delivery)
            self._here.set()

    def _on_cancel(self) -> None:
        self._consumer = None
        self._cancelled = True
        self._wake.set()

    def _on_settled(self, tags: list[int]) -> None:
        now = self._time()
        self._window.settled(tags, now)
        self._idle.stirred(now)
        if self._closing or self._window.tune_in(now) is not None:
            self._wake.set()

    def _set_surplus_aside(self) -> None:
        """What is here beyond the prefetch, newest first; it is given back in its old order."""
        surplus: list[Delivery] = []
        room = self._window.out - len(self._returning)
        while self._buffer and room - len(surplus) > self._window.count:
            surplus.append(self._buffer.pop())
        self._returning[:0] = reversed(surplus)

    def _let_go(self) -> None:
        """The channel is lost, or no longer needed."""
        self._hold = None
        self._consumer = None
        self._cancelled = False
        self._buffer.clear()
        self._returning.clear()
        self._window.restart()

    def _ended(self, _: object) -> None:
        self._here.set()
        self._gave_back.set()
