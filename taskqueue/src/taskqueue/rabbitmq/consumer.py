"""What feeds and the ingress consumer share: to keep consuming, to notice a dead consumer, to give back at the end."""

import asyncio
import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

from runnerlib.service.backoff import Backoff
from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, IncomingMessage, QueueState
from taskqueue.rabbitmq.connection import ConnectionPool, Report, RobustConnection
from taskqueue.rabbitmq.unacked import UnackedDeliveries, nack
from taskqueue.tasks import Arrival, Delivery

_log = logging.getLogger(__name__)

#: A consumer that cannot consume for longer is reported as not ready.
REPORT_AFTER_SECONDS = 5.0
#: The pause before a channel is opened again grows from the first to the second.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
#: How long one attempt waits for a connection, before it is reported and starts over.
_CONNECT_SECONDS = 30.0
#: After this time of consuming, the pauses start small again.
_STABLE_SECONDS = 5.0
#: A consumer that gets nothing for so long looks at its queue ...
QUIET_SECONDS = 5.0
#: ... and at most after so long, if all was well the times before.
LONGEST_QUIET_SECONDS = 40.0
#: The second look, before it is sure.
SECOND_LOOK_SECONDS = 1.0
#: A broker that does not answer a consumer's call in this time gets a new channel.
ANSWER_SECONDS = 4.0
#: How long closing a consumer waits until what was not taken is given back.
CLOSE_SECONDS = 3.0

Item = TypeVar("Item", Delivery, Arrival)


class Consumer(Generic[Item]):
    """Consumes on one channel after another, and buffers what comes until it is taken.

    Connection, channel and consumer are all watched: whichever is lost, it consumes again on a new channel. What was
    buffered is dropped then (it is delivered again), and what was taken becomes stale: settling it does nothing.
    """

    def __init__(
        self,
        queue: str,
        title: str,
        channels: RobustConnection | ConnectionPool,
        report: Report,
        *,
        awaited: bool = False,
        here: asyncio.Event | None = None,
    ) -> None:
        self._queue = queue
        self._title = title
        self._supervisor = ConsumerSupervisor(channels, queue, report, awaited=awaited)
        self._time = asyncio.get_running_loop().time
        self._stall = StallDetector()
        #: of the channel it consumes on; None while there is none
        self._unacked: UnackedDeliveries | None = None
        self._cancelled = False
        self._buffer: deque[Item] = deque()
        #: wakes `take`, and the task that serves a channel
        self._here = here or asyncio.Event()
        self._wake = asyncio.Event()
        #: set when it is closing and has given back what was not taken
        self._gave_back = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._supervisor.run(self._serve), name=title)
        self._task.add_done_callback(self._ended)

    async def take(self, most: int) -> list[Item]:
        """Waits until something is here. Raises QueueClosed once the consumer or the queue is closed."""
        while not (taken := self.take_here(most)):
            self._here.clear()
            await self._here.wait()
        return taken

    def take_here(self, most: int) -> list[Item]:
        """The same without waiting, maybe nothing."""
        if self._closing:
            raise QueueClosed(f"{self._title} is closed")
        if self._task.done():
            self._task.result()
            raise QueueClosed("the queue is closed")
        return list(itertools.islice(self._fresh(), most))

    def waiting(self) -> int:
        """Messages that are here and were not taken."""
        return len(self._buffer)

    @property
    def trouble(self) -> str:
        """Why nothing has been consumed for some seconds; empty when something is."""
        return self._supervisor.trouble

    @property
    def is_closing(self) -> bool:
        return self._closing or self.is_over

    @property
    def is_over(self) -> bool:
        """Closed, with nothing left to settle on its channel."""
        return self._task.done()

    async def close(self) -> None:
        """Gives back what was not taken. Idempotent; returns soon, also when the broker is gone."""
        if not self._closing:
            self._closing = True
            self._stop_wanting()
            self._here.set()
            self._wake.set()
            if self._unacked is None:
                self._task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._gave_back.wait()

    async def abandon(self) -> None:
        """Closes the channel, too: what was taken and not settled is delivered again, to anybody."""
        self._closing = True
        self._here.set()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _serve(self, channel: Channel) -> None:
        """Consumes until something is lost (raises QueueUnavailable), or it is closed and everything is settled."""
        channel.when_closed(lambda _: self._wake.set())
        self._cancelled = False
        try:
            await self._declare(channel)
            self._unacked = UnackedDeliveries(channel, self._on_settled)
            await self._start(channel)
            self._stall.activity(self._time())
            self._supervisor.flowing()
            while not (self._closing and self._gave_back.is_set() and not len(self._unacked)):
                if not channel.is_open:
                    raise QueueUnavailable(f"the channel was closed: {channel.close_reason}")
                if self._cancelled:
                    raise QueueUnavailable("the broker cancelled the consumer")
                await self._step(channel)
        except (QueueUnavailable, TimeoutError) as error:
            # Perhaps because something was deleted.
            self._forget_declared()
            if isinstance(error, TimeoutError):
                raise QueueUnavailable("the broker does not answer") from None
            raise
        finally:
            self._unacked = None
            self._channel_lost()

    async def _declare(self, channel: Channel) -> None:
        """Declares what it consumes from."""
        raise NotImplementedError

    async def _start(self, channel: Channel) -> None:
        """Called once on each channel, when messages may come."""

    async def _step(self, channel: Channel) -> None:
        """Does one thing that is due now, or sleeps until something is. Sets `_gave_back` once, when closing."""
        raise NotImplementedError

    def _received(self, queue: str, message: IncomingMessage, unacked: UnackedDeliveries) -> None:
        """Called for each message that is consumed."""
        raise NotImplementedError

    def _forget_declared(self) -> None:
        """Called when consuming was lost: what was declared may be missing."""
        raise NotImplementedError

    def _channel_lost(self) -> None:
        """Called when a channel is lost, or no longer needed."""

    def _stop_wanting(self) -> None:
        """Called once, when closing begins."""

    async def _consume(self, channel: Channel, queue: str) -> str:
        """Starts a consumer and returns its tag."""
        return await channel.consume(queue, functools.partial(self._on_message, queue), self._on_cancel)

    def _on_message(self, queue: str, message: IncomingMessage) -> None:
        if self._unacked is not None:
            self._unacked.arrived(message.tag)
            self._stall.activity(self._time())
            self._received(queue, message, self._unacked)

    def _on_cancel(self) -> None:
        self._cancelled = True
        self._wake.set()

    def _on_settled(self, _: list[int]) -> None:
        self._stall.activity(self._time())
        if self._closing:
            self._wake.set()

    async def _look_for_stall(self, channel: Channel) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            state = await channel.declare_queue(self._queue, passive=True)
        self._stall.looked(state, self._time())

    async def _sleep(self, seconds: float) -> None:
        """Until something happens."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _fresh(self) -> Iterator[Item]:
        """Empties the buffer, leaving out messages of channels that were lost: they come again."""
        while self._buffer:
            item = self._buffer.popleft()
            if item.receipt.unacked.alive:
                yield item

    def _give_back(self) -> None:
        nack(item.receipt for item in self._fresh())

    def _ended(self, _: object) -> None:
        self._give_back()
        self._here.set()
        self._gave_back.set()


class ConsumerSupervisor:
    """Runs `serve(channel)` on one channel after another until it returns, and reports when nothing is consumed.

    Parameters:
        name: what is consumed, for logs and reports.
        awaited: report it as not ready from the start, until it flows for the first time. Otherwise it is given
            `REPORT_AFTER_SECONDS`.
    """

    def __init__(
        self, channels: RobustConnection | ConnectionPool, name: str, report: Report, *, awaited: bool = False
    ) -> None:
        self._channels = channels
        self._name = name
        self._report = report
        self._part = part_of(name)
        # Jittered: the consumers of one connection are lost together.
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, least=0.0)
        self._alarm: asyncio.TimerHandle | None = None
        self._reason = "not connected yet"
        self._reported = awaited
        if awaited:
            report(self._part, False, f"{name} is not consumed yet")

    @property
    def trouble(self) -> str:
        """Why nothing has been consumed for some seconds; empty when something is."""
        return self._reason if self._reported else ""

    async def run(self, serve: Callable[[Channel], Awaitable[None]]) -> None:
        self._lost("not connected yet")
        try:
            while not await self._serve_once(serve):  # noqa: ASYNC110 - nothing tells when it can
                await asyncio.sleep(self._backoff.next_seconds())
        except QueueClosed:
            return
        finally:
            self.flowing()

    async def _serve_once(self, serve: Callable[[Channel], Awaitable[None]]) -> bool:
        """Returns whether `serve` came to its end."""
        time = asyncio.get_running_loop().time
        try:
            channel = await self._channels.channel(_CONNECT_SECONDS)
        except QueueUnavailable as error:
            # It may be refused at once, without a turn of the loop, when the connection has no free channel.
            self._lost(str(error))
            return False
        since = time()
        try:
            await serve(channel)
            return True
        except QueueUnavailable as error:
            self._lost(str(error))
            _log.warning("%s is not consumed for now: %s", self._name, error)
        except QueueClosed:
            raise
        except Exception as error:
            # Whatever it was, it is tried again: otherwise nothing would consume from here until a restart.
            self._lost(f"{type(error).__name__}: {error}")
            _log.exception("consuming %s failed in an unforeseen way", self._name)
        finally:
            await channel.close()
        if time() - since >= _STABLE_SECONDS:
            self._backoff.reset()
        return False

    def flowing(self) -> None:
        """To be called by `serve` when it consumes (or has nothing to consume)."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reported:
            self._reported = False
            self._report(self._part, True, "")

    def _lost(self, reason: str) -> None:
        self._reason = reason
        if self._alarm is None and not self._reported:
            self._alarm = asyncio.get_running_loop().call_later(REPORT_AFTER_SECONDS, self._report_lost)

    def _report_lost(self) -> None:
        self._alarm = None
        self._reported = True
        self._report(self._part, False, f"no tasks are consumed from {self._name}: {self._reason}")


def part_of(name: str) -> str:
    """The name under which the consuming of a queue is reported."""
    return f"queue {name}"


class StallDetector:
    """Notices a consumer that is dead though connection and channel live. Pure: times are given.

    A consumer that has room and gets nothing looks at its queue. If messages are ready there, or the broker knows of no
    consumer, and so again a moment later, it is dead.
    """

    def __init__(self) -> None:
        self._look_at = 0.0
        self._suspect = False
        self._quiet = QUIET_SECONDS

    def activity(self, now: float) -> None:
        """A message came, or was settled, or the consumer is a new one."""
        self._quiet = QUIET_SECONDS
        self._look_at = now + QUIET_SECONDS
        self._suspect = False

    def look_in(self, now: float) -> float:
        return max(0.0, self._look_at - now)

    def looked(self, state: QueueState, now: float) -> None:
        """Raises QueueUnavailable when it is sure that nothing will come."""
        if self._look_at > now:
            return
        odd = state.messages > 0 or state.consumers == 0
        if odd and self._suspect:
            raise QueueUnavailable(
                f"{state.messages} messages are ready in {state.name} and none comes (consumers there: "
                f"{state.consumers})"
            )
        self._suspect = odd
        # A thousand idle algorithms must not ask the broker all the time.
        self._quiet = min(LONGEST_QUIET_SECONDS, self._quiet * 2)
        self._look_at = now + (SECOND_LOOK_SECONDS if odd else self._quiet)
