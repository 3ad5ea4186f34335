"""The front door: what strangers send, what no algorithm's queue wants, and the broker's own dead letters."""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage
from taskqueue.rabbitmq.declared import Declared
from taskqueue.rabbitmq.idle_watch import QUIET_SECONDS, IdleWatch
from taskqueue.rabbitmq.keeping import Keeper
from taskqueue.rabbitmq.messages import forwarded_message, parked_message, read_arrival
from taskqueue.rabbitmq.names import BROKER_DEAD, FRONT_DOOR, TASKS_EXCHANGE
from taskqueue.rabbitmq.publisher import Publisher
from taskqueue.rabbitmq.receipts import Hold, by_hold
from taskqueue.tasks import Arrival, NewTask

_log = logging.getLogger(__name__)

#: Most arrivals of each queue that are out at the same time.
PREFETCH = 200
_ANSWER_SECONDS = 4.0
_CLOSE_SECONDS = 3.0


class Door:
    """See `taskqueue.protocols.FrontDoor`. `misfits` are messages that feeds could not read as tasks."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        declared: Declared,
        open_channel: Callable[[], Awaitable[Channel]],
        publisher: Publisher,
        misfits: Sequence[Arrival],
        wall: Callable[[], float],
    ) -> None:
        self._keeper = keeper
        self._declared = declared
        self._open_channel = open_channel
        self._publisher = publisher
        self._wall = wall
        self._time = asyncio.get_running_loop().time
        self._buffer: deque[Arrival] = deque(misfits)
        self._idle = IdleWatch()
        self._hold: Hold | None = None
        self._consumers: list[str] = []
        self._cancelled = False
        self._here = asyncio.Event()
        self._wake = asyncio.Event()
        self._gave_back = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(keeper.run(self._serve), name="front door")
        self._task.add_done_callback(self._ended)

    async def take(self, most: int) -> list[Arrival]:
        while True:
            if self._closing:
                raise QueueClosed("the front door is closed")
            if self._task.done():
                self._task.result()
                raise QueueClosed("the queue is closed")
            # A misfit's channel may have been lost since: it comes again, and must not be forwarded twice.
            fresh = (arrival for arrival in _drained(self._buffer) if arrival.receipt.hold.alive)
            taken = list(itertools.islice(fresh, most))
            if taken:
                return taken
            self._here.clear()
            await self._here.wait()

    def misfit(self, arrival: Arrival) -> None:
        """Told by a feed: this is no task of its algorithm."""
        self._buffer.append(arrival)
        self._here.set()

    async def forward(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        """Where an algorithm's queue cannot be declared, its tasks are parked: they must not hold up the others."""
        pairs = _fresh(arrivals, tasks)
        refused = await self._declare({task.algorithm for _, task in pairs})
        now = self._wall()
        messages = [
            parked_message(arrival, task, now) if task.algorithm in refused else forwarded_message(arrival, task)
            for arrival, task in pairs
        ]
        await self._publisher.publish(messages)
        _ack(arrivals)

    async def park(self, arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> None:
        now = self._wall()
        pairs = _fresh(arrivals, tasks)
        await self._publisher.publish([parked_message(arrival, task, now) for arrival, task in pairs])
        _ack(arrivals)

    @property
    def is_closing(self) -> bool:
        return self._closing or self._task.done()

    async def close(self) -> None:
        """Idempotent; returns soon, also when the broker is gone."""
        if not self._closing:
            self._closing = True
            self._here.set()
            self._wake.set()
            if self._hold is None:
                self._give_back()
                self._task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gave_back.wait()

    async def abandon(self) -> None:
        """Closes the channel too: what was taken and not settled comes again, to somebody."""
        self._closing = True
        self._here.set()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _declare(self, algorithms: Iterable[str]) -> set[str]:
        """Makes the queues that are missing; returns the algorithms whose queue cannot be made."""
        refused: set[str] = set()
        for algorithm in sorted(algorithms):
            if self._declared.has(algorithm):
                continue
            # On a channel of its own: a refusal closes it.
            channel = await self._open_channel()
            try:
                await self._declared.algorithm(channel, algorithm)
            except QueueUnavailable as error:
                _log.warning("tasks of %r wait aside: %s", algorithm, error)
                refused.add(algorithm)
            finally:
                await channel.close()
        return refused

    async def _serve(self, channel: Channel) -> None:
        """Consumes until something is lost (raises QueueUnavailable), or all is settled at the end."""
        channel.when_closed(lambda _: self._wake.set())
        self._hold = hold = Hold(channel, self._on_settled)
        self._cancelled = False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._declared.topology(channel)
                await channel.qos(PREFETCH)
                for queue, on_message in ((FRONT_DOOR, self._on_arrival), (BROKER_DEAD, self._on_dead)):
                    self._consumers.append(await channel.consume(queue, on_message, self._on_cancel))
            self._idle.stirred(self._time())
            self._keeper.flowing()
            while not (self._closing and self._gave_back.is_set() and not hold.unsettled):
                if not channel.is_open:
                    raise QueueUnavailable(f"the channel was closed: {channel.close_reason}")
                if self._cancelled:
                    raise QueueUnavailable("the broker cancelled a consumer")
                await self._step(channel, hold)
        except TimeoutError:
            raise QueueUnavailable("the broker does not answer") from None
        except QueueUnavailable:
            # Perhaps because something was deleted.
            self._declared.forget()
            raise
        finally:
            self._hold = None
            self._consumers.clear()

    async def _step(self, channel: Channel, hold: Hold) -> None:
        if self._closing and not self._gave_back.is_set():
            async with asyncio.timeout(_ANSWER_SECONDS):
                for consumer in self._consumers:
                    await channel.cancel(consumer)
            self._give_back()
            self._gave_back.set()
            return
        now = self._time()
        idle = not self._closing and hold.unsettled < PREFETCH
        look_in = self._idle.look_in(now) if idle else QUIET_SECONDS
        if look_in == 0.0:
            async with asyncio.timeout(_ANSWER_SECONDS):
                state = await channel.declare_queue(FRONT_DOOR, passive=True)
            self._idle.looked(state, self._time())
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(look_in):
                await self._wake.wait()
        self._wake.clear()

    def _on_arrival(self, message: IncomingMessage) -> None:
        if message.exchange == TASKS_EXCHANGE:
            # It was meant for an algorithm, and nobody has its queue.
            self._declared.missing(message.routing_key)
        self._arrived(message, dead=False)

    def _on_dead(self, message: IncomingMessage) -> None:
        self._arrived(message, dead=True)

    def _arrived(self, message: IncomingMessage, *, dead: bool) -> None:
        if self._hold is None:
            return
        self._hold.arrived(message.tag)
        self._idle.stirred(self._time())
        self._buffer.append(read_arrival(message, self._hold, dead=dead))
        self._here.set()

    def _on_cancel(self) -> None:
        self._cancelled = True
        self._wake.set()

    def _on_settled(self, _: list[int]) -> None:
        self._idle.stirred(self._time())
        if self._closing:
            self._wake.set()

    def _give_back(self) -> None:
        for hold, tags in by_hold(arrival.receipt for arrival in _drained(self._buffer)).items():
            hold.nack(tags)

    def _ended(self, _: object) -> None:
        self._here.set()
        self._gave_back.set()


def _drained(buffer: deque[Arrival]) -> Iterator[Arrival]:
    while buffer:
        yield buffer.popleft()


def _ack(arrivals: Sequence[Arrival]) -> None:
    for hold, tags in by_hold(arrival.receipt for arrival in arrivals).items():
        hold.ack(tags)


def _fresh(arrivals: Sequence[Arrival], tasks: Sequence[NewTask]) -> list[tuple[Arrival, NewTask]]:
    """What came on a channel that is lost comes again; published here too, one without an id would be two tasks."""
    return [(each, task) for each, task in zip(arrivals, tasks, strict=True) if each.receipt.hold.alive]
