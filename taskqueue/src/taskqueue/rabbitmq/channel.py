"""One AMQP channel with awaitable calls, the messages it carries, and what pika's errors mean."""

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self

from pika import exceptions, spec
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from runnerlib.contract.immutable import immutable
from taskqueue.errors import QueueUnavailable

#: A call that the broker has not answered by then is given up, and the channel with it.
ANSWER_SECONDS = 15.0
#: How long an orderly close may take.
CLOSE_SECONDS = 2.0
#: Cancelled consumers whose late messages are still accepted.
_CANCELLED_CONSUMERS = 8

#: What pika raises for a channel or a connection that is no longer open.
_NOT_OPEN = (exceptions.AMQPChannelError, exceptions.AMQPConnectionError)
#: What pika raises for a name, an argument or a message that AMQP cannot carry.
_NOT_ENCODABLE = (
    exceptions.ShortStringTooLong,
    exceptions.UnsupportedAMQPFieldException,
    struct.error,
    AssertionError,
)


@immutable
class IncomingMessage:
    """A message from the broker. `tag` identifies it on the channel that delivered it."""

    tag: int
    body: bytes
    properties: spec.BasicProperties
    redelivered: bool
    routing_key: str
    exchange: str


@immutable
class OutgoingMessage:
    """A message to publish. Publishing makes its properties persistent."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.BasicProperties
    mandatory: bool = True


class QueueState(NamedTuple):
    """The messages of a queue that are ready, and the number of its consumers."""

    name: str
    messages: int
    consumers: int


class Channel:
    """Calls raise QueueUnavailable once the channel is closed, also those that were waiting for an answer.

    The broker may close just the channel (unknown tag, other arguments, consumer timeout) or cancel just a consumer
    while the connection lives: `closed` is set, or the consumer's `on_cancel` is called. A closed channel is never
    reused.
    """

    def __init__(self, connection: Any) -> None:
        """Starts to open a channel of a pika connection; see `open`."""
        #: set once the channel is closed, by either side
        self.closed = asyncio.Event()
        #: why it was closed, and the broker's code for it (0: not closed by the broker)
        self.close_reason = ""
        self.close_code = 0
        self._waiting: set[asyncio.Future[Any]] = set()
        self._on_cancel: dict[str, Callable[[], None]] = {}
        self._when_closed: list[Callable[[str], None]] = []
        self._consumers = 0
        self._cancelled: deque[str] = deque()
        with self._request("opening a channel") as (self._opened, answer):
            self._raw = connection.channel(on_open_callback=answer)
        self._raw.add_on_close_callback(self._on_raw_closed)
        self._raw.add_on_cancel_callback(self._on_broker_cancel)

    @classmethod
    async def open(cls, connection: Any) -> Self:
        """Opens a channel of a pika connection. The channel is allocated before this yields to the event loop."""
        channel = cls(connection)
        try:
            await channel._answer(channel._opened, "opening a channel")
        except asyncio.CancelledError:
            channel.abandon("no longer wanted")
            raise
        return channel

    @property
    def is_open(self) -> bool:
        return not self.closed.is_set()

    def when_closed(self, callback: Callable[[str], None]) -> None:
        """Calls `callback(reason)` once when the channel closes, or at once if it is closed already."""
        if self.is_open:
            self._when_closed.append(callback)
        else:
            callback(self.close_reason)

    async def declare_queue(
        self, name: str, *, arguments: dict[str, Any] | None = None, passive: bool = False
    ) -> QueueState:
        """Creates the durable queue or finds it. Other arguments (406) or a missing queue (404) close the channel."""
        doing = f"declaring queue '{name}'"
        frame = await self._call(
            doing, self._raw.queue_declare, name, passive=passive, durable=True, arguments=arguments
        )
        return QueueState(frame.method.queue, frame.method.message_count, frame.method.consumer_count)

    async def declare_exchange(self, name: str, kind: str, *, arguments: dict[str, Any] | None = None) -> None:
        """Creates the durable exchange or finds it."""
        doing = f"declaring exchange '{name}'"
        await self._call(doing, self._raw.exchange_declare, name, kind, durable=True, arguments=arguments)

    async def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        doing = f"binding queue '{queue}' to '{exchange}'"
        await self._call(doing, self._raw.queue_bind, queue, exchange, routing_key=routing_key)

    async def qos(self, count: int) -> None:
        """Sets the prefetch of each consumer that starts after this; a running one keeps its own."""
        await self._call("setting the prefetch", self._raw.basic_qos, prefetch_count=count)

    async def consume(
        self, queue: str, on_message: Callable[[IncomingMessage], None], on_cancel: Callable[[], None]
    ) -> str:
        """Starts a consumer and returns its tag. The first messages may come before this returns.

        `on_message` must not raise. `on_cancel` is called once if the broker cancels the consumer: abandon the channel
        then, because what the broker still delivers to that tag is lost on it.
        """
        self._consumers += 1
        tag = f"c{self._consumers}"
        self._on_cancel[tag] = on_cancel

        def deliver(_: Any, method: spec.Basic.Deliver, properties: spec.BasicProperties, body: bytes) -> None:
            on_message(
                IncomingMessage(
                    method.delivery_tag, body, properties, method.redelivered, method.routing_key, method.exchange
                )
            )

        doing = f"consuming from queue '{queue}'"
        await self._call(doing, self._raw.basic_consume, queue, deliver, consumer_tag=tag)
        return tag

    async def cancel(self, tag: str) -> None:
        """Cancels a consumer. Messages in transit still reach its `on_message`, before this returns or after.

        A quorum queue also takes some back that never came here; it counts each as a failed delivery.
        """
        self._on_cancel.pop(tag, None)
        if tag not in self._raw.consumer_tags or tag in self._cancelled:
            return
        # Not pika's basic_cancel: it rejects what still comes, which the broker counts as a failed delivery, and
        # forgets the consumer, so that late messages would stay unsettled for as long as the channel lives.
        method, answers = spec.Basic.Cancel(consumer_tag=tag), [(spec.Basic.CancelOk, {"consumer_tag": tag})]
        await self._call("cancelling a consumer", self._raw._rpc, method, acceptable_replies=answers)
        self._cancelled.append(tag)
        while len(self._cancelled) > _CANCELLED_CONSUMERS:
            self._raw._consumers.pop(self._cancelled.popleft(), None)

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledges a message (with `multiple`: all up to it). Does nothing when the channel is closed."""
        if self._raw.is_open:
            with suppress(*_NOT_OPEN):
                self._raw.basic_ack(tag, multiple)

    def nack(self, tag: int, requeue: bool = True, multiple: bool = False) -> None:
        """Returns a message to the head of its queue, or dead-letters it. Does nothing when the channel is closed."""
        if self._raw.is_open:
            with suppress(*_NOT_OPEN):
                self._raw.basic_nack(tag, multiple, requeue)

    async def confirm_mode(
        self, on_confirm: Callable[[int, bool, bool], None], on_return: Callable[[str, str], None]
    ) -> None:
        """Makes the broker confirm published messages, numbered from 1: `on_confirm(number, multiple, is_ack)`.

        A mandatory message that fits no queue is passed to `on_return(exchange, routing_key)` before it is confirmed.
        """

        def confirmed(frame: Any) -> None:
            method = frame.method
            on_confirm(method.delivery_tag, method.multiple, isinstance(method, spec.Basic.Ack))

        self._raw.add_on_return_callback(lambda _, method, *__: on_return(method.exchange, method.routing_key))
        await self._call("turning on confirms", self._raw.confirm_delivery, confirmed)

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: spec.BasicProperties, *, mandatory: bool
    ) -> None:
        """Writes a message. Raises QueueUnavailable when closed, ValueError for what AMQP cannot carry."""
        self._raise_if_closed()
        try:
            self._raw.basic_publish(exchange, routing_key, body, properties, mandatory)
        except _NOT_OPEN as error:
            raise _closed(reason_of(error)) from None
        except _NOT_ENCODABLE as error:
            raise ValueError(f"AMQP cannot carry this message: {type(error).__name__}.") from None

    async def close(self) -> None:
        """Closes in good order, or abandons the channel when that takes too long. Unsettled messages come again."""
        with suppress(*_NOT_OPEN):
            if self._raw.is_open:
                self._raw.close()
        if self.is_open:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.closed.wait()
        self._end("closed on this side")

    def abandon(self, reason: str) -> None:
        """Closes the channel without waiting for the broker's answer."""
        with suppress(*_NOT_OPEN):
            if self.is_open:
                self._raw.close()
        self._end(reason)

    async def _call(self, doing: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a method of pika that gives the broker's answer to a callback, and waits for the answer."""
        self._raise_if_closed()
        with self._request(doing) as (waiting, answer):
            method(*arguments, callback=answer, **options)
        return await self._answer(waiting, doing)

    @contextmanager
    def _request(self, doing: str) -> Iterator[tuple[asyncio.Future[Any], Callable[[Any], None]]]:
        """A future for an answer and the callback that resolves it, while the request is sent."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)

        def answer(frame: Any) -> None:
            # The caller may have gone away.
            if not waiting.done():
                waiting.set_result(frame)

        try:
            yield waiting, answer
        except _NOT_OPEN as error:
            self._waiting.discard(waiting)
            raise _closed(reason_of(error)) from None
        except _NOT_ENCODABLE as error:
            self._waiting.discard(waiting)
            raise ValueError(f"AMQP cannot carry this name or argument ({doing}).") from error

    async def _answer(self, waiting: asyncio.Future[Any], doing: str) -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await waiting
        except TimeoutError:
            # pika sends nothing more on this channel until the answer comes, so it is of no use any more.
            reason = f"the broker did not answer within {ANSWER_SECONDS:g} s ({doing})"
            self.abandon(reason)
            raise _closed(reason) from None
        finally:
            self._waiting.discard(waiting)

    def _raise_if_closed(self) -> None:
        if not self.is_open:
            raise _closed(self.close_reason)

    def _on_raw_closed(self, _: Any, error: BaseException) -> None:
        if isinstance(error, exceptions.ChannelClosedByBroker) and self.is_open:
            self.close_code = error.reply_code
        self._end(reason_of(error))

    def _end(self, reason: str) -> None:
        if not self.is_open:
            return
        self.close_reason = reason
        self.closed.set()
        self._on_cancel.clear()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_closed(reason))
        self._waiting.clear()
        listeners, self._when_closed = self._when_closed, []
        for listener in listeners:
            listener(reason)

    def _on_broker_cancel(self, frame: Any) -> None:
        on_cancel = self._on_cancel.pop(frame.method.consumer_tag, None)
        if on_cancel is not None:
            on_cancel()


def reason_of(error: BaseException | None) -> str:
    """Why a connection or a channel ended: one line for whoever runs the broker, without a password."""
    for cause in _causes(error):
        match cause:
            case exceptions.ProbableAuthenticationError():
                return "the broker refuses the user or the password"
            case exceptions.ProbableAccessDeniedError():
                return "the broker refuses the virtual host: it does not exist, or the user may not use it"
            case exceptions.IncompatibleProtocolError():
                return "what answers there does not speak AMQP 0-9-1, or expects TLS"
            case exceptions.ConnectionClosedByBroker() | exceptions.ChannelClosedByBroker():
                return f"the broker closed it: {cause.reply_text} ({cause.reply_code})"
            case exceptions.ConnectionClosedByClient() | exceptions.ChannelClosedByClient():
                return "closed on this side"
            case exceptions.ConnectionBlockedTimeout():
                return "the broker blocked publishing for too long"
            case exceptions.AMQPHeartbeatTimeout():
                return next((text for text in cause.args if isinstance(text, str)), "") or "the broker fell silent"
            case ssl.SSLCertVerificationError():
                return f"the broker's certificate is not trusted: {cause.verify_message or cause}"
            case ssl.SSLError():
                return f"TLS does not work with this broker: {cause.reason or cause}"
            case TimeoutError():
                return "no answer in time"
            case OSError():
                return cause.strerror or str(cause) or type(cause).__name__
            case exceptions.StreamLostError():
                return "the connection broke"
    return "the connection ended" if error is None else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it wraps, the most specific first: pika puts causes into attributes and arguments."""
    if error is None:
        return
    inner: list[object] = list(getattr(error, "exceptions", ()) or ())[-1:]
    if isinstance(error, AMQPConnectorException | exceptions.AMQPConnectionError):
        inner += [getattr(error, "exception", None), *error.args]
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)
    yield error


def _closed(reason: str) -> QueueUnavailable:
    return QueueUnavailable(f"The channel to the broker is closed: {reason}.")
