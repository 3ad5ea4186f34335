"""pika's connection, made fast: written once for each turn of the event loop, read a whole message at a time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import MAX_CHANNELS
from pika.exceptions import AMQPHeartbeatTimeout, ConnectionWrongStateError

from taskqueue.rabbitmq.channel import reason_of
from taskqueue.rabbitmq.frames import DECODING_ERRORS, read_delivered, read_without_headers

#: How long a dropped connection may take to release its socket.
_ABORT_SECONDS = 1.0


class CannotConnect(Exception):
    """An attempt to connect failed; the message says why, without the address."""


class PikaConnection(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """A pika connection that sends everything written in one turn of the event loop with one call of the socket.

    `gone` resolves to a reason once the connection has ended, also when it never opened. `on_blocked` is called with
    the broker's reason for blocking publishers ("" when it no longer does).
    """

    def __init__(self, parameters: pika.ConnectionParameters, on_blocked: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[bool] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._unsent: list[bytes] = []
        super().__init__(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_gone,
            on_close_callback=self._on_gone,
            custom_ioloop=loop,
        )
        self.add_on_connection_blocked_callback(lambda _, frame: on_blocked(_text(frame.method.reason) or "no reason"))
        self.add_on_connection_unblocked_callback(lambda _, frame: on_blocked(""))

    @classmethod
    async def open(
        cls, parameters: pika.ConnectionParameters, on_blocked: Callable[[str], None], timeout_seconds: float
    ) -> Self:
        """Connects to one host, or raises CannotConnect. The limit covers everything: a frozen broker accepts TCP."""
        connection = cls(parameters, on_blocked)
        try:
            ends: set[asyncio.Future[Any]] = {connection.opened, connection.gone}
            await asyncio.wait(ends, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await connection.abort("no longer wanted")
            raise
        if connection.gone.done():
            raise CannotConnect(connection.gone.result())
        if not connection.opened.done():
            await connection.abort("the broker did not answer in time")
            raise CannotConnect(f"no answer within {timeout_seconds:g} s")
        return connection

    @property
    def free_channels(self) -> int:
        """Channels that can still be opened; the broker limits the number per connection."""
        most: int = self.params.channel_max or MAX_CHANNELS
        return most - len(self._channels)

    async def abort(self, reason: str) -> None:
        """Drops the connection without asking the broker, and waits a moment for its end."""
        if not self.gone.done() and not self.is_closed:
            if not self.opened.done():
                if not self.is_closing:
                    self.close()
            elif self._transport is not None:
                self._terminate_stream(AMQPHeartbeatTimeout(reason))
        await asyncio.wait({self.gone}, timeout=_ABORT_SECONDS)

    async def close_within(self, seconds: float) -> None:
        """Closes in good order, or drops the connection when that takes too long."""
        with suppress(ConnectionWrongStateError):
            if not self.gone.done():
                self.close()
        await asyncio.wait({self.gone}, timeout=seconds)
        if not self.gone.done():
            await self.abort("the broker did not answer while the connection was being closed")

    def _adapter_emit_data(self, data: bytes) -> None:
        # pika would call the socket once for each frame: three times for each message.
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None:
            self._transport.write(data)

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # For an attempt that was aborted during the handshake pika passes the error's class, and trips over it.
        super()._on_connection_workflow_done(outcome() if isinstance(outcome, type) else outcome)

    def _on_data_available(self, data_in: bytes) -> None:
        # pika's way takes three frames, a dozen calls and three copies of the buffer for each message.
        self._frame_buffer += data_in
        while self._frame_buffer:
            self._take_delivered()
            length, frame = self._read_frame()
            if not frame:
                return
            self._trim_frame_buffer(length)
            self._process_frame(frame)

    def _take_delivered(self) -> None:
        """Gives the whole messages at the beginning of the buffer to their consumers."""
        buffer, start = self._frame_buffer, 0
        while (message := read_delivered(buffer, start)) is not None:
            channel = self._channels.get(message.channel)
            consumer = None if channel is None else channel._consumers.get(message.method.consumer_tag)
            if consumer is None or channel._content_assembler._method_frame or channel._cancelled:
                break
            start = message.end
            self.frames_received += 3
            consumer(channel, message.method, message.properties, message.body)
        self._trim_frame_buffer(start)

    def _read_frame(self) -> Any:
        try:
            return super()._read_frame()
        except DECODING_ERRORS:
            frame = read_without_headers(self._frame_buffer)
            if frame is None:
                raise
            return frame

    def _on_open(self, _: Any) -> None:
        if not self.opened.done():
            self.opened.set_result(True)

    def _on_gone(self, _: Any, error: BaseException) -> None:
        if not self.gone.done():
            self.gone.set_result(reason_of(error))


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
