"""Publishing that knows when the broker has a message: persistent, mandatory and confirmed, in windows."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from pika import spec

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.confirms import Confirms, Ticket
from taskqueue.rabbitmq.connection import RobustConnection

#: Most messages that wait for their confirm at a time: with 1 the rate is that of single disk writes.
WINDOW_MESSAGES = 500
#: ... and most bytes, so that large messages do not pile up in memory.
WINDOW_BYTES = 16 * 1024 * 1024
#: Written in one go before others get their turn.
_SLICE = 50
#: A channel on which nothing was confirmed for so long is given up, once somebody's time is over.
_STUCK_SECONDS = 5.0
_PERSISTENT = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. Its properties are made persistent on the way."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.BasicProperties
    mandatory: bool = True


class _Session:
    """One channel in confirm mode, and what is under way on it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.confirms = Confirms()
        #: a message came back: the topology has a hole
        self.stale = False
        self.last_confirm = time.monotonic()
        self.changed = asyncio.Event()

    async def open(self) -> None:
        self.channel.when_closed(self._on_closed)
        await self.channel.confirm_mode(self._on_confirm, self._on_return)

    def has_room(self, size: int) -> bool:
        """A message larger than the window goes out alone."""
        waiting = len(self.confirms)
        return not waiting or (waiting < WINDOW_MESSAGES and self.confirms.size + size <= WINDOW_BYTES)

    def write(self, message: Outgoing, ticket: Ticket) -> None:
        message.properties.delivery_mode = _PERSISTENT
        if not len(self.confirms):
            self.last_confirm = time.monotonic()
        self.channel.publish(
            message.exchange, message.routing_key, message.body, message.properties, mandatory=message.mandatory
        )
        self.confirms.written(ticket, message.exchange, message.routing_key, len(message.body))

    def fail(self, reason: str) -> None:
        self.confirms.fail_all(reason)
        self.changed.set()

    @property
    def is_stuck(self) -> bool:
        return len(self.confirms) > 0 and time.monotonic() - self.last_confirm > _STUCK_SECONDS

    def _on_confirm(self, number: int, multiple: bool, is_ack: bool) -> None:
        self.last_confirm = time.monotonic()
        self.confirms.confirmed(number, multiple, is_ack)
        self.changed.set()

    def _on_return(self, exchange: str, routing_key: str) -> None:
        self.stale = True
        self.confirms.returned(exchange, routing_key)

    def _on_closed(self, reason: str) -> None:
        # An unknown exchange, for one, closes the channel, and no confirm ever comes.
        self.fail(f"the channel was closed: {reason}")


class Publisher:
    """Publishes over one channel of its link, which is opened when it is needed and made again after each loss.

    `prepare(channel)` declares what the messages need; it runs on each new channel, and again after a message came
    back because no queue wanted it.
    """

    def __init__(self, link: RobustConnection, prepare: Callable[[Channel], Awaitable[None]]) -> None:
        self._link = link
        self._prepare = prepare
        self._turn = asyncio.Lock()
        self._session: _Session | None = None
        self._closed = False
        link.subscribe(self._on_link)

    @property
    def unconfirmed(self) -> int:
        """Messages on their way that the broker has not confirmed."""
        return len(self._session.confirms) if self._session is not None else 0

    async def publish(self, messages: Sequence[Outgoing], *, timeout_seconds: float = 10.0) -> None:
        """Returns when the broker has all of them.

        Raises QueueUnavailable otherwise; then nothing is known of any: publish them again, with the same message ids.
        Raises it at once while the broker blocks publishers.
        """
        if not messages:
            return
        ticket = Ticket()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._write_all(messages, ticket)
                await ticket.done
        except TimeoutError:
            self._drop_if_stuck()
            if self._link.trouble:
                raise QueueUnavailable(self._link.trouble) from None
            raise _unavailable(f"it did not confirm within {timeout_seconds:g} s") from None
        _raise_if_failed(ticket)

    async def close(self) -> None:
        """Who still waits gets QueueUnavailable, who comes later QueueClosed."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.channel.close()

    async def _write_all(self, messages: Sequence[Outgoing], ticket: Ticket) -> None:
        for start in range(0, len(messages), _SLICE):
            # The lock is fair: a large call and many small ones take turns.
            async with self._turn:
                session = await self._ready()
                for message in messages[start : start + _SLICE]:
                    await self._room(session, len(message.body))
                    _raise_if_failed(ticket)
                    session.write(message, ticket)
            await asyncio.sleep(0)
        ticket.completed()

    async def _ready(self) -> _Session:
        self._raise_if_unusable()
        session = self._session
        if session is None or not session.channel.is_open:
            session = self._session = await self._new_session()
        elif session.stale:
            session.stale = False
            try:
                await self._prepare(session.channel)
            except QueueUnavailable:
                session.stale = True
                raise
        return session

    async def _new_session(self) -> _Session:
        async with AsyncExitStack() as undo:
            channel = await self._link.channel()
            undo.callback(channel.abandon, "it could not be prepared")
            session = _Session(channel)
            await session.open()
            await self._prepare(channel)
            undo.pop_all()
        return session

    async def _room(self, session: _Session, size: int) -> None:
        while not session.has_room(size):
            session.changed.clear()
            self._raise_if_unusable()
            if not session.channel.is_open:
                raise _unavailable(f"the channel was closed: {session.channel.close_reason}")
            await session.changed.wait()
        self._raise_if_unusable()

    def _raise_if_unusable(self) -> None:
        if self._closed:
            raise QueueClosed("The queue was closed on this side.")
        if self._link.blocked:
            raise QueueUnavailable(self._link.blocked)

    def _drop_if_stuck(self) -> None:
        session = self._session
        if session is not None and session.is_stuck and not self._link.blocked:
            self._session = None
            session.channel.abandon(f"it confirmed nothing for {_STUCK_SECONDS:g} s")

    def _on_link(self) -> None:
        # What is under way may wait for as long as the alarm lasts.
        if self._link.blocked and self._session is not None:
            self._session.fail(self._link.blocked)


def _raise_if_failed(ticket: Ticket) -> None:
    if ticket.failure:
        raise _unavailable(ticket.failure)


def _unavailable(reason: str) -> QueueUnavailable:
    return QueueUnavailable(f"The broker did not take the message: {reason}. It may have arrived all the same.")
