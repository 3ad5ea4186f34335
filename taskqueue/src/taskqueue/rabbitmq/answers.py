"""What was asked of the broker and is not answered yet: nobody must wait for an answer that can no longer come."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pika import exceptions

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.reasons import reason_of

#: What pika raises for a channel or a connection that is no longer open.
NOT_OPEN = (exceptions.AMQPChannelError, exceptions.AMQPConnectionError)
#: What pika raises for a name, an argument or a message that AMQP cannot carry.
NOT_ENCODABLE = (
    exceptions.ShortStringTooLong,
    exceptions.UnsupportedAMQPFieldException,
    struct.error,
    AssertionError,
)


class Answers:
    """The answers that one channel waits for."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[Any]] = set()

    def expect(self) -> asyncio.Future[Any]:
        """For an answer to come, by `give`."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        return waiting

    async def received(self, waiting: asyncio.Future[Any], seconds: float) -> Any:
        """The answer. Raises TimeoutError when it does not come, QueueUnavailable when it cannot come any more."""
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        finally:
            self._waiting.discard(waiting)

    @contextmanager
    def asking(self, waiting: asyncio.Future[Any], doing: str) -> Iterator[None]:
        """While the question is put: if pika refuses it, no answer is expected, and the error becomes one of ours."""
        try:
            yield
        except NOT_OPEN as error:
            self._waiting.discard(waiting)
            raise QueueUnavailable(closed_sentence(reason_of(error))) from None
        except NOT_ENCODABLE as error:
            self._waiting.discard(waiting)
            raise ValueError(f"AMQP cannot carry this name or argument ({doing}).") from error

    def fail(self, reason: str) -> None:
        """No more answers come: the channel is closed."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(QueueUnavailable(closed_sentence(reason)))
        self._waiting.clear()


def giver(waiting: asyncio.Future[Any]) -> Callable[[Any], None]:
    """A callback that takes the answer; whoever asked may have gone away."""

    def give(answer: Any) -> None:
        if not waiting.done():
            waiting.set_result(answer)

    return give


def closed_sentence(reason: str) -> str:
    return f"The channel to the broker is closed: {reason}."
