"""One connection to one broker: pika's, with gathered writes, and attempts that always end."""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import MAX_CHANNELS
from pika.exceptions import AMQPHeartbeatTimeout, ConnectionWrongStateError

from taskqueue.rabbitmq.address import BrokerAddress
from taskqueue.rabbitmq.reasons import reason_of
from taskqueue.rabbitmq.salvage import DECODING_ERRORS, salvaged

#: How long a connection that was given up may take to let go of its socket.
_ABORT_SECONDS = 1.0


class CannotConnect(Exception):
    """This attempt failed; the message says why, without the address."""


class Wire(AsyncioConnection):  # type: ignore[misc]  # pika has no types
    """A connection of pika's that sends all that was written in one turn of the loop with one call of the socket.

    `gone` is done, with a reason, once the connection is over, also when it never opened. `on_blocked` is told why the
    broker blocks publishers ("" when it no longer does).
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

    @property
    def free_channels(self) -> int:
        """Channels that can still be opened; the broker says how many a connection may have."""
        most: int = self.params.channel_max or MAX_CHANNELS
        return most - len(self._channels)

    def abort(self, reason: str) -> None:
        """Drops the connection without asking the broker; `gone` follows soon. Harmless when it is over already."""
        if self.gone.done() or self.is_closed:
            return
        if self.opened.done():
            if self._transport is not None:
                self._terminate_stream(AMQPHeartbeatTimeout(reason))
        elif not self.is_closing:
            self.close()

    async def shut(self, seconds: float) -> None:
        """Closes in good order, or drops the connection when that takes too long."""
        with suppress(ConnectionWrongStateError):
            if not self.gone.done():
                self.close()
        await asyncio.wait({self.gone}, timeout=seconds)
        if not self.gone.done():
            self.abort("the broker did not answer while the connection was being closed")
            await asyncio.wait({self.gone}, timeout=_ABORT_SECONDS)

    def _adapter_emit_data(self, data: bytes) -> None:
        # pika would call the socket once for each frame: three times for each message.
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # For an attempt that was aborted during the handshake pika hands over the error's class, and trips over it.
        super()._on_connection_workflow_done(outcome() if isinstance(outcome, type) else outcome)

    def _read_frame(self) -> Any:
        try:
            return super()._read_frame()
        except DECODING_ERRORS:
            frame = salvaged(self._frame_buffer)
            if frame is None:
                raise
            return frame

    def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        if self._transport is not None:
            self._transport.write(data)

    def _on_open(self, _: Any) -> None:
        if not self.opened.done():
            self.opened.set_result(True)

    def _on_gone(self, _: Any, error: BaseException) -> None:
        if not self.gone.done():
            self.gone.set_result(reason_of(error))


async def connect(
    address: BrokerAddress,
    host: tuple[str, int],
    name: str,
    *,
    on_blocked: Callable[[str], None],
    timeout_seconds: float,
) -> Wire:
    """Connects to one host of the address. The time limit is for all of it: a frozen broker still accepts TCP."""
    wire = Wire(_parameters(address, host, name, timeout_seconds), on_blocked)
    try:
        ends: set[asyncio.Future[Any]] = {wire.opened, wire.gone}
        await asyncio.wait(ends, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        wire.abort("no longer wanted")
        await asyncio.wait({wire.gone}, timeout=_ABORT_SECONDS)
        raise
    if wire.gone.done():
        raise CannotConnect(wire.gone.result())
    if not wire.opened.done():
        wire.abort("the broker did not answer in time")
        await asyncio.wait({wire.gone}, timeout=_ABORT_SECONDS)
        raise CannotConnect(f"no answer within {timeout_seconds:g} s")
    return wire


def quiet_pika() -> None:
    """Keeps pika from logging stack traces for what is part of a connection's life; ours says it in a sentence.

    A level that somebody gave to the logger `pika` stays as it is.
    """
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


def _parameters(
    address: BrokerAddress, host: tuple[str, int], name: str, timeout_seconds: float
) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=host[0],
        port=host[1],
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.user, address.password),
        heartbeat=address.heartbeat_seconds,
        blocked_connection_timeout=address.blocked_seconds,
        ssl_options=pika.SSLOptions(address.tls, server_hostname=host[0]) if address.tls else None,
        connection_attempts=1,
        # Ours ends first; these are for what is left behind when nobody waits any more.
        socket_timeout=timeout_seconds + 1,
        stack_timeout=timeout_seconds + 1,
        client_properties={"connection_name": name},
        tcp_options={
            "TCP_KEEPIDLE": address.heartbeat_seconds,
            "TCP_KEEPINTVL": math.ceil(address.heartbeat_seconds / 3),
            "TCP_KEEPCNT": 3,
        },
    )


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
