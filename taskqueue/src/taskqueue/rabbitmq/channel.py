"""One AMQP channel with awaitable calls. Never used again once it is closed."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika import exceptions, spec

from taskqueue.errors import QueueUnavailable
from taskqueue.rabbitmq.answers import (
    NOT_ENCODABLE,
    NOT_OPEN,
    Answers,
    closed_sentence,
    giver,
)
from taskqueue.rabbitmq.deliveries import IncomingMessage, QueueState, ReturnedMessage, incoming
from taskqueue.rabbitmq.reasons import reason_of
from taskqueue.rabbitmq.wire import Wire

#: A call that the broker has not answered by then is given up, and the channel with it.
ANSWER_SECONDS = 15.0
#: How long closing in good order may take.
CLOSE_SECONDS = 2.0
#: Ended consumers that are remembered, for what comes late.
_ENDED_CONSUMERS = 8

__all__ = ["Channel", "IncomingMessage", "QueueState", "ReturnedMessage"]


class Channel:
    """Calls raise QueueUnavailable once the channel is closed, also those that were waiting for an answer.

    The broker may close just the channel (an unknown tag, other arguments, consumer timeout) or cancel just a consumer
    while the connection lives: `closed` is set, or the consumer's `on_cancel` called.
    """

    def __init__(self, wire: Wire) -> None:
        #: set once the channel is closed, by whomever
        self.closed = asyncio.Event()
        #: why it was closed, and the broker's code for it (0: not closed by the broker)
        self.close_reason = ""
        self.close_code = 0
        self._answers = Answers()
        self._on_cancel: dict[str, Callable[[], None]] = {}
        self._when_closed: list[Callable[[str], None]] = []
        self._consumers = 0
        self._ended: deque[str] = deque()
        self._getting = asyncio.Lock()
        self._got: asyncio.Future[IncomingMessage | None] | None = None
        self._opened = self._answers.expect()
        with self._answers.asking(self._opened, "opening a channel"):
            self._raw = wire.channel(on_open_callback=giver(self._opened))
        self._raw.add_on_close_callback(self._on_raw_closed)
        self._raw.add_on_cancel_callback(self._on_broker_cancel)
        self._raw.add_callback(self._on_get_empty, [spec.Basic.GetEmpty], one_shot=False)

    async def opened(self) -> None:
        """Waits until the broker has opened it; the first thing to do with a new channel."""
        await self._answered(self._opened, "opening a channel")

    @property
    def is_open(self) -> bool:
        return not self.closed.is_set()

    def when_closed(self, callback: Callable[[str], None]) -> None:
        """Has `callback(reason)` called once, when the channel closes; at once if it is closed already."""
        if self.is_open:
            self._when_closed.append(callback)
        else:
            callback(self.close_reason)

    async def declare_queue(
        self,
        name: str,
        *,
        arguments: dict[str, Any] | None = None,
        passive: bool = False,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
    ) -> QueueState:
        """Makes the queue, or finds it. Other arguments than it has (406), or a missing one (404) close the channel."""
        frame = await self._call(
            f"declaring queue '{name}'",
            lambda answer: self._raw.queue_declare(
                queue=name,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=arguments,
                callback=answer,
            ),
        )
        return QueueState(frame.method.queue, frame.method.message_count, frame.method.consumer_count)

    async def declare_exchange(self, name: str, kind: str, *, arguments: dict[str, Any] | None = None) -> None:
        """Makes the durable exchange, or finds it."""
        await self._call(
            f"declaring exchange '{name}'",
            lambda answer: self._raw.exchange_declare(
                exchange=name, exchange_type=kind, durable=True, arguments=arguments, callback=answer
            ),
        )

    async def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        await self._call(
            f"binding queue '{queue}' to '{exchange}'",
            lambda answer: self._raw.queue_bind(queue, exchange, routing_key=routing_key, callback=answer),
        )

    async def qos(self, count: int) -> None:
        """Most unsettled messages of each consumer that starts after this; a running one keeps its own."""
        await self._call(
            "setting the prefetch", lambda answer: self._raw.basic_qos(prefetch_count=count, callback=answer)
        )

    async def consume(
        self,
        queue: str,
        on_message: Callable[[IncomingMessage], None],
        on_cancel: Callable[[], None],
        *,
        auto_ack: bool = False,
        exclusive: bool = False,
    ) -> str:
        """Starts a consumer; returns its tag. The first messages may come before this returns.

        `on_message` must not raise. `on_cancel` is called once if the broker cancels the consumer: then give the
        channel up, for what the broker still delivers to that tag is lost on it.
        """
        self._consumers += 1
        tag = f"c{self._consumers}"
        self._on_cancel[tag] = on_cancel

        def deliver(_: Any, method: spec.Basic.Deliver, properties: spec.BasicProperties, body: bytes) -> None:
            on_message(incoming(method, properties, body))

        await self._call(
            f"consuming from queue '{queue}'",
            lambda answer: self._raw.basic_consume(
                queue, deliver, auto_ack=auto_ack, exclusive=exclusive, consumer_tag=tag, callback=answer
            ),
        )
        return tag

    async def cancel(self, tag: str) -> None:
        """Ends a consumer. Messages that were on their way still come to its `on_message`, before it returns or after.

        A quorum queue also takes some back that never came here; it counts each as a failed delivery.
        """
        self._on_cancel.pop(tag, None)
        if tag not in self._raw.consumer_tags or tag in self._ended:
            return

        def start(answer: Callable[[Any], None]) -> None:
            # Not pika's basic_cancel: it rejects what still comes, which the broker counts as a failed delivery, and
            # forgets the consumer, so that what came late would stay unsettled for as long as the channel lives.
            expected = [(spec.Basic.CancelOk, {"consumer_tag": tag})]
            self._raw._rpc(spec.Basic.Cancel(consumer_tag=tag), answer, expected)

        await self._call("ending a consumer", start)
        self._ended.append(tag)
        while len(self._ended) > _ENDED_CONSUMERS:
            self._raw._consumers.pop(self._ended.popleft(), None)

    async def get(self, queue: str) -> IncomingMessage | None:
        """Takes one message, if there is one."""
        async with self._getting:
            self._raise_if_closed()
            waiting = self._got = self._answers.expect()
            doing = f"getting from queue '{queue}'"
            with self._answers.asking(waiting, doing):
                self._raw.basic_get(queue, self._on_get_ok)
            message: IncomingMessage | None = await self._answered(waiting, doing)
            return message

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Settles a message (with `multiple`: all up to it). Nothing happens when the channel is closed."""
        if self._raw.is_open:
            with suppress(*NOT_OPEN):
                self._raw.basic_ack(tag, multiple)

    def nack(self, tag: int, requeue: bool = True, multiple: bool = False) -> None:
        """Gives a message back to the head of its queue, or to its dead letters. Nothing happens when closed."""
        if self._raw.is_open:
            with suppress(*NOT_OPEN):
                self._raw.basic_nack(tag, multiple, requeue)

    async def confirm_mode(
        self, on_confirm: Callable[[int, bool, bool], None], on_return: Callable[[ReturnedMessage], None]
    ) -> None:
        """From now on the broker confirms what is published: `on_confirm(number, multiple, is_ack)`.

        Messages are numbered from 1. A mandatory one that no queue wants comes to `on_return` before it is confirmed.
        """

        def confirmed(frame: Any) -> None:
            method = frame.method
            on_confirm(method.delivery_tag, method.multiple, isinstance(method, spec.Basic.Ack))

        def returned(_: Any, method: spec.Basic.Return, properties: spec.BasicProperties, body: bytes) -> None:
            on_return(ReturnedMessage(method.exchange, method.routing_key, body, properties, str(method.reply_text)))

        self._raw.add_on_return_callback(returned)
        await self._call("turning on confirms", lambda answer: self._raw.confirm_delivery(confirmed, callback=answer))

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: spec.BasicProperties, *, mandatory: bool
    ) -> None:
        """Writes a message. Raises QueueUnavailable when closed, and ValueError for what AMQP cannot carry."""
        self._raise_if_closed()
        try:
            self._raw.basic_publish(exchange, routing_key, body, properties, mandatory)
        except NOT_OPEN as error:
            raise QueueUnavailable(closed_sentence(reason_of(error))) from None
        except NOT_ENCODABLE as error:
            raise ValueError(f"AMQP cannot carry this message: {type(error).__name__}.") from None

    async def close(self) -> None:
        """Closes in good order, or gives the channel up when that takes too long. What is unsettled comes again."""
        with suppress(*NOT_OPEN):
            if self._raw.is_open:
                self._raw.close()
        if self.is_open:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.closed.wait()
        self._over("closed on this side")

    def abandon(self, reason: str) -> None:
        """Closes it without waiting for the broker's answer."""
        with suppress(*NOT_OPEN):
            if self.is_open:
                self._raw.close()
        self._over(reason)

    async def _call(self, doing: str, start: Callable[[Callable[[Any], None]], None]) -> Any:
        """Sends a request whose answer pika gives to a callback, and waits for the answer."""
        self._raise_if_closed()
        waiting = self._answers.expect()
        with self._answers.asking(waiting, doing):
            start(giver(waiting))
        return await self._answered(waiting, doing)

    async def _answered(self, waiting: asyncio.Future[Any], doing: str) -> Any:
        try:
            return await self._answers.received(waiting, ANSWER_SECONDS)
        except TimeoutError:
            # pika sends nothing more on it until the answer comes: no use to anybody.
            sentence = f"the broker did not answer within {ANSWER_SECONDS:g} s ({doing})"
            self.abandon(sentence)
            raise QueueUnavailable(closed_sentence(sentence)) from None

    def _raise_if_closed(self) -> None:
        if not self.is_open:
            raise QueueUnavailable(closed_sentence(self.close_reason))

    def _on_raw_closed(self, _: Any, error: BaseException) -> None:
        if isinstance(error, exceptions.ChannelClosedByBroker) and self.is_open:
            self.close_code = error.reply_code
        self._over(reason_of(error))

    def _over(self, reason: str) -> None:
        if not self.is_open:
            return
        self.close_reason = reason
        self.closed.set()
        self._on_cancel.clear()
        self._answers.fail(reason)
        listeners, self._when_closed = self._when_closed, []
        for listener in listeners:
            listener(reason)

    def _on_broker_cancel(self, frame: Any) -> None:
        on_cancel = self._on_cancel.pop(frame.method.consumer_tag, None)
        if on_cancel is not None:
            on_cancel()

    def _on_get_ok(self, _: Any, method: spec.Basic.GetOk, properties: spec.BasicProperties, body: bytes) -> None:
        waiting, self._got = self._got, None
        if waiting is None or waiting.done():
            self.nack(method.delivery_tag)
        else:
            waiting.set_result(incoming(method, properties, body))

    def _on_get_empty(self, _: Any) -> None:
        waiting, self._got = self._got, None
        if waiting is not None:
            giver(waiting)(None)
