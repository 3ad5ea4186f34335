"""Which published messages still wait for the broker's confirm, and whose they are. Pure: no channel, no clock."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass


class Ticket:
    """One call of `publish`: done when every message of it is confirmed, or when one of them failed."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: why it failed; empty while it did not
        self.failure = ""
        self._unconfirmed = 0
        self._complete = False

    def written(self) -> None:
        """One more message of it went out."""
        self._unconfirmed += 1

    def completed(self) -> None:
        """All of its messages went out."""
        self._complete = True
        self._end_if_done()

    def confirmed(self) -> None:
        self._unconfirmed -= 1
        self._end_if_done()

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._end()

    def _end_if_done(self) -> None:
        if self._complete and not self._unconfirmed:
            self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class _Written:
    ticket: Ticket
    exchange: str
    routing_key: str
    size: int


class Confirms:
    """Numbers the messages of one channel as the broker does, from 1, and matches its confirms."""

    def __init__(self) -> None:
        #: bytes of the bodies that are not confirmed
        self.size = 0
        self._next = 1
        self._waiting: OrderedDict[int, _Written] = OrderedDict()

    def __len__(self) -> int:
        """Messages that are not confirmed."""
        return len(self._waiting)

    def written(self, ticket: Ticket, exchange: str, routing_key: str, size: int) -> None:
        """To be called for each message right after it was written, in that order."""
        self._waiting[self._next] = _Written(ticket, exchange, routing_key, size)
        self._next += 1
        self.size += size
        ticket.written()

    def confirmed(self, number: int, multiple: bool, is_ack: bool) -> None:
        """The broker has the message (and with `multiple` all before it), or refuses it."""
        for entry in self._pop(number, multiple):
            self.size -= entry.size
            if is_ack:
                entry.ticket.confirmed()
            else:
                entry.ticket.fail("it refuses a message: a queue is full, or not available")

    def returned(self, exchange: str, routing_key: str) -> None:
        """No queue wants messages of this kind. The broker does not say which one it was, so all of them failed."""
        for entry in self._waiting.values():
            if (entry.exchange, entry.routing_key) == (exchange, routing_key):
                entry.ticket.fail(f"it has no queue for exchange '{exchange}' and routing key '{routing_key}'")

    def fail_all(self, reason: str) -> None:
        """Nobody waits any more for what is not confirmed. It keeps its numbers: a confirm may still come."""
        for ticket in {entry.ticket for entry in self._waiting.values()}:
            ticket.fail(reason)

    def _pop(self, number: int, multiple: bool) -> list[_Written]:
        if not multiple:
            entry = self._waiting.pop(number, None)
            return [] if entry is None else [entry]
        popped = []
        # Number 0 stands for all of them.
        while self._waiting and (number == 0 or next(iter(self._waiting)) <= number):
            popped.append(self._waiting.popitem(last=False)[1])
        return popped
