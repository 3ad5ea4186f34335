"""Publishing with publisher confirms: persistent, mandatory messages, in windows."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import takewhile

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel, OutgoingMessage
from taskqueue.rabbitmq.connection import RobustConnection

#: Most messages that wait for their confirm at a time: with 1 the rate is that of single disk writes.
WINDOW_MESSAGES = 500
#: ... and most bytes, so that large messages do not pile up in memory.
WINDOW_BYTES = 16 * 1024 * 1024
#: Messages that one call writes before others get their turn.
_SLICE = 50
#: A channel on which nothing was confirmed for so long is abandoned when a call has timed out.
_STUCK_SECONDS = 5.0
_PERSISTENT = 2


class Publisher:
    """Publishes over one channel of its connection, opened on first use and again after each loss.

    `prepare(channel)` declares what the messages need. It runs on each new channel, and again after a message was
    returned because no queue wanted it.
    """

    def __init__(self, connection: RobustConnection, prepare: Callable[[Channel], Awaitable[None]]) -> None:
        self._connection = connection
        self._prepare = prepare
        self._turn = asyncio.Lock()
        self._confirms: ConfirmChannel | None = None
        self._closed = False
        connection.subscribe(self._on_connection_change)

    @property
    def unconfirmed(self) -> int:
        """Messages that were written and that the broker has not confirmed yet."""
        return len(self._confirms) if self._confirms is not None else 0

    async def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float = 10.0) -> None:
        """Returns when the broker has all of them.

        Raises:
            QueueUnavailable: at least one was not confirmed, and nothing is known of the others: publish them again,
                with the same message ids. Raised at once while the broker blocks publishers.
            ValueError: AMQP cannot carry one of them.
        """
        if not messages:
            return
        call = PublishCall()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._write_all(messages, call)
                await call.done
        except TimeoutError:
            self._abandon_if_stuck()
            if self._connection.trouble:
                raise QueueUnavailable(self._connection.trouble) from None
            raise _unavailable(f"it did not confirm within {timeout_seconds:g} s") from None
        call.raise_if_failed()

    async def close(self) -> None:
        """Waiting calls raise QueueUnavailable, later ones QueueClosed."""
        self._closed = True
        confirms, self._confirms = self._confirms, None
        if confirms is not None:
            await confirms.channel.close()

    async def _write_all(self, messages: Sequence[OutgoingMessage], call: "PublishCall") -> None:
        for start in range(0, len(messages), _SLICE):
            # The lock is fair: a large call and many small ones take turns.
            async with self._turn:
                confirms = await self._ready_channel()
                for message in messages[start : start + _SLICE]:
                    await self._wait_for_room(confirms, len(message.body))
                    call.raise_if_failed()
                    confirms.write(message, call)
            await asyncio.sleep(0)
        call.all_written()

    async def _ready_channel(self) -> "ConfirmChannel":
        self._raise_if_unusable()
        confirms = self._confirms
        if confirms is None or not confirms.channel.is_open:
            async with AsyncExitStack() as undo:
                channel = await self._connection.channel()
                undo.callback(channel.abandon, "it could not be prepared")
                confirms = ConfirmChannel(channel)
                await confirms.open()
                await self._prepare(channel)
                undo.pop_all()
            self._confirms = confirms
        elif confirms.has_returned:
            confirms.has_returned = False
            try:
                await self._prepare(confirms.channel)
            except QueueUnavailable:
                confirms.has_returned = True
                raise
        return confirms

    async def _wait_for_room(self, confirms: "ConfirmChannel", size: int) -> None:
        while not confirms.has_room(size):
            confirms.changed.clear()
            self._raise_if_unusable()
            if not confirms.channel.is_open:
                raise _unavailable(f"the channel was closed: {confirms.channel.close_reason}")
            await confirms.changed.wait()
        self._raise_if_unusable()

    def _raise_if_unusable(self) -> None:
        if self._closed:
            raise QueueClosed("The queue was closed on this side.")
        if self._connection.blocked:
            raise QueueUnavailable(self._connection.blocked)

    def _abandon_if_stuck(self) -> None:
        confirms = self._confirms
        if confirms is not None and confirms.is_stuck and not self._connection.blocked:
            self._confirms = None
            confirms.channel.abandon(f"it confirmed nothing for {_STUCK_SECONDS:g} s")

    def _on_connection_change(self) -> None:
        # Messages under way may wait for as long as the alarm lasts.
        if self._connection.blocked and self._confirms is not None:
            self._confirms.fail_all(self._connection.blocked)


class ConfirmChannel:
    """A channel in confirm mode. Numbers its messages as the broker does, from 1, and matches the broker's confirms."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        #: a message came back: something of the topology is missing
        self.has_returned = False
        #: set when something was confirmed, or everything has failed
        self.changed = asyncio.Event()
        #: bytes of the bodies that are not confirmed
        self.size = 0
        self._next = 1
        self._unconfirmed: OrderedDict[int, tuple[OutgoingMessage, PublishCall]] = OrderedDict()
        self._last_confirm = time.monotonic()

    def __len__(self) -> int:
        """Messages that are not confirmed."""
        return len(self._unconfirmed)

    async def open(self) -> None:
        # An unknown exchange, for example, closes the channel, and no confirm ever comes.
        self.channel.when_closed(lambda reason: self.fail_all(f"the channel was closed: {reason}"))
        await self.channel.confirm_mode(self.confirmed, self.returned)

    def has_room(self, size: int) -> bool:
        """A message larger than the window is sent alone."""
        waiting = len(self)
        return not waiting or (waiting < WINDOW_MESSAGES and self.size + size <= WINDOW_BYTES)

    @property
    def is_stuck(self) -> bool:
        return len(self) > 0 and time.monotonic() - self._last_confirm > _STUCK_SECONDS

    def write(self, message: OutgoingMessage, call: "PublishCall") -> None:
        message.properties.delivery_mode = _PERSISTENT
        if not len(self):
            self._last_confirm = time.monotonic()
        self.channel.publish(
            message.exchange, message.routing_key, message.body, message.properties, mandatory=message.mandatory
        )
        self._unconfirmed[self._next] = message, call
        self._next += 1
        self.size += len(message.body)
        call.written()

    def confirmed(self, number: int, multiple: bool, is_ack: bool) -> None:
        """The broker has stored the message (with `multiple`: and all before it), or refuses it."""
        self._last_confirm = time.monotonic()
        numbers = [number] if number in self._unconfirmed else []
        if multiple:
            # Number 0 stands for all of them.
            numbers = list(takewhile(lambda waiting: waiting <= number or number == 0, self._unconfirmed))
        for each in numbers:
            message, call = self._unconfirmed.pop(each)
            self.size -= len(message.body)
            if is_ack:
                call.confirmed()
            else:
                call.fail("it refuses a message: a queue is full, or not available")
        self.changed.set()

    def returned(self, exchange: str, routing_key: str) -> None:
        """No queue takes messages of this kind. The broker does not say which one came back, so all of them failed."""
        self.has_returned = True
        for message, call in self._unconfirmed.values():
            if (message.exchange, message.routing_key) == (exchange, routing_key):
                call.fail(f"it has no queue for exchange '{exchange}' and routing key '{routing_key}'")

    def fail_all(self, reason: str) -> None:
        """Fails the calls of all unconfirmed messages. These keep their numbers: a confirm may still come."""
        for call in {call for _, call in self._unconfirmed.values()}:
            call.fail(reason)
        self.changed.set()


class PublishCall:
    """One call of `publish`: done when all of its messages are confirmed, or one of them has failed."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: why it failed; empty if it did not
        self.failure = ""
        self._unconfirmed = 0
        self._all_written = False

    def written(self) -> None:
        self._unconfirmed += 1

    def all_written(self) -> None:
        self._all_written = True
        self._end_if(not self._unconfirmed)

    def confirmed(self) -> None:
        self._unconfirmed -= 1
        self._end_if(self._all_written and not self._unconfirmed)

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._end_if(True)

    def raise_if_failed(self) -> None:
        if self.failure:
            raise _unavailable(self.failure)

    def _end_if(self, ended: bool) -> None:
        if ended and not self.done.done():
            self.done.set_result(None)


def _unavailable(reason: str) -> QueueUnavailable:
    return QueueUnavailable(f"The broker did not take the message: {reason}. It may have arrived all the same.")
