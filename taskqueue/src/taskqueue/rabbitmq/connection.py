"""Connections to the broker that are opened again whenever they are lost, and a pool of them for many channels."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Self

import pika

from runnerlib.service.backoff import Backoff
from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.address import BrokerAddress
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.pika_connection import CannotConnect, PikaConnection

_log = logging.getLogger(__name__)

#: Pauses between attempts to connect grow from the first to the second.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
#: After a connection that lasted this long, the pauses start small again.
_STABLE_SECONDS = 10.0
#: The broker sends something at least once per heartbeat; after this many of them in silence it is given up.
_SILENT_HEARTBEATS = 1.5
#: How often the watchdog looks, per heartbeat. It counts looks, not seconds: a process that was stopped itself must not
#: blame the broker.
_LOOKS_PER_HEARTBEAT = 4
#: How long an orderly close may take.
_CLOSE_SECONDS = 2.0
#: Channels of a connection that are kept free for short-lived uses, such as declaring something.
RESERVED_CHANNELS = 8

_CLOSED = "The connection to the broker was closed on this side."

Report = Callable[[str, bool, str], None]


def no_report(part: str, ready: bool, reason: str) -> None:
    """A `Report` for callers that show no health."""


class RobustConnection:
    """Keeps one connection to the broker. Entering does not wait for it: the broker may come later.

    Parameters:
        name: shown in the broker's list of connections.
        report: `report(part, ready, reason)` is called when the connection comes and goes, and when the broker blocks
            and unblocks publishers.
        part: the name under which it is reported; by default `name`.
        connect_seconds: time limit of one attempt, for TCP, TLS and AMQP together.
    """

    def __init__(
        self,
        address: BrokerAddress,
        name: str,
        *,
        report: Report = no_report,
        part: str | None = None,
        connect_seconds: float = 5.0,
    ) -> None:
        self._address = address
        self._name = name
        self._report = report
        self._part = part or name
        self._connect_seconds = connect_seconds
        #: grows with each new connection
        self.epoch = 0
        #: why the broker blocks publishers; empty when it does not
        self.blocked = ""
        #: set while there is a connection
        self.connected = asyncio.Event()
        self.is_closed = False
        self._reason = "not connected yet"
        self._pika: PikaConnection | None = None
        self._task: asyncio.Task[None] | None = None
        #: set, and replaced, when the connection comes or goes
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        # pika logs stack traces for ordinary losses, which are logged here in a sentence. A level that was set stays.
        logger = logging.getLogger("pika")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)
        self._report(self._part, False, self._unreachable())
        self._task = asyncio.create_task(self._stay_connected(), name=f"connection {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls `listener()` when the connection comes or goes, or `blocked` changes. It must not raise."""
        self._listeners.append(listener)

    @property
    def trouble(self) -> str:
        """Why nothing can be published now; empty when all is well."""
        return self.blocked if self.connected.is_set() else self._unreachable()

    @property
    def free_channels(self) -> int | None:
        """Channels that can still be opened; None while there is no connection."""
        return None if self._pika is None else self._pika.free_channels

    async def channel(self, timeout_seconds: float = 10.0) -> Channel:
        """Opens a channel, after waiting for a connection. Raises QueueUnavailable when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.is_closed:
                    channel = await self.channel_now()
                    if channel is not None:
                        return channel
                    if self._pika is None:
                        await self._changed.wait()
            raise QueueClosed(_CLOSED)
        except TimeoutError:
            raise QueueUnavailable(self.trouble or "The broker opened no channel in time.") from None

    async def channel_now(self) -> Channel | None:
        """Opens a channel on the present connection. Returns None if there is none, or it is lost meanwhile."""
        connection = self._pika
        if connection is None:
            return None
        try:
            return await Channel.open(connection)
        except QueueUnavailable:
            if self._pika is connection and not connection.gone.done():
                raise
            # Let the loss be noticed; then the caller can wait for the next connection.
            await asyncio.sleep(0.01)
            return None

    async def close(self) -> None:
        """Closes the connection in good order, or drops it when that takes too long."""
        self.is_closed = True
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        connection, self._pika = self._pika, None
        if connection is not None:
            await connection.close_within(_CLOSE_SECONDS)
        self.connected.clear()
        self._reason = "closed on this side"
        self._notify()

    async def _stay_connected(self) -> None:
        # Jittered, so that a restarted broker does not meet all its clients in the same moment.
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, least=0.3)
        while True:
            try:
                if await self._connect_once():
                    backoff.reset()
            except Exception:
                # Whatever it was, the next attempt starts from scratch: this task must never die unnoticed.
                _log.exception("the connection to the broker failed in an unforeseen way (%r)", self._name)
            await asyncio.sleep(backoff.next_seconds())

    async def _connect_once(self) -> bool:
        """One connection, from the attempt to its end. Returns whether it was a stable one."""
        connection = await self._connect_somewhere()
        if connection is None:
            return False
        since = time.monotonic()
        self._established(connection)
        self._lost(await self._watch(connection))
        return time.monotonic() - since >= _STABLE_SECONDS

    async def _connect_somewhere(self) -> PikaConnection | None:
        """Tries each host once, in random order: the clients of a lost node must not all move to the same next one."""
        hosts = random.sample(self._address.hosts, k=len(self._address.hosts))
        reasons: set[str] = set()
        for host in hosts:
            parameters = _parameters(self._address, host, self._name, self._connect_seconds)
            try:
                return await PikaConnection.open(parameters, self._on_blocked, self._connect_seconds)
            except CannotConnect as failure:
                reasons.add(str(failure))
        # Sorted, so that the same reasons are logged once.
        self._unready("; ".join(sorted(reasons)))
        return None

    async def _watch(self, connection: PikaConnection) -> str:
        """Returns why the connection ended; ends it itself when the broker has fallen silent."""
        heartbeat = self._address.heartbeat_seconds
        received, silent = connection.bytes_received, 0
        while not connection.gone.done():
            await asyncio.wait({connection.gone}, timeout=heartbeat / _LOOKS_PER_HEARTBEAT)
            silent = silent + 1 if connection.bytes_received == received else 0
            received = connection.bytes_received
            if silent >= _SILENT_HEARTBEATS * _LOOKS_PER_HEARTBEAT and not connection.gone.done():
                reason = f"the broker has been silent for {_SILENT_HEARTBEATS * heartbeat:g} s"
                await connection.abort(reason)
                return reason
        return connection.gone.result()

    def _established(self, connection: PikaConnection) -> None:
        self.epoch += 1
        self._pika = connection
        self._reason = ""
        self.connected.set()
        _log.info("connected to the broker at %s as %r", self._address.shown, self._name)
        self._report(self._part, True, "")
        self._notify()

    def _lost(self, reason: str) -> None:
        self._pika = None
        self.connected.clear()
        self.blocked = ""
        self._unready(reason)
        self._notify()

    def _unready(self, reason: str) -> None:
        is_new, self._reason = reason != self._reason, reason
        # Once for each reason: a broker may be away for hours.
        if is_new:
            _log.warning("%s Trying again until it is there (%r).", self._unreachable(), self._name)
        self._report(self._part, False, self._unreachable())

    def _unreachable(self) -> str:
        return f"No connection to the broker at {self._address.shown}: {self._reason}."

    def _on_blocked(self, reason: str) -> None:
        self.blocked = f"The broker accepts no messages now: {reason}." if reason else ""
        if reason:
            _log.warning("the broker blocks publishers (%r): %s", self._name, reason)
        self._report(self._part, not reason, self.blocked)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()


class ConnectionPool:
    """Connections for any number of channels: another one is opened when none has a free channel left."""

    def __init__(self, first: RobustConnection, make_another: Callable[[int], RobustConnection]) -> None:
        """`first` is opened and closed by the caller; `make_another(number)` makes the second and later ones."""
        self._connections = [first]
        self._make_another = make_another
        #: set, and replaced, when a connection comes or goes
        self._changed = asyncio.Event()
        first.subscribe(self._on_change)

    async def channel(self, timeout_seconds: float = 10.0) -> Channel:
        """See `RobustConnection.channel`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    connection = await self._with_room()
                    # No other task runs between the check for room and the allocation of the channel.
                    channel = await connection.channel_now()
                    if channel is not None:
                        return channel
        except TimeoutError:
            troubles = filter(None, (connection.trouble for connection in self._connections))
            raise QueueUnavailable(next(troubles, "The broker opened no channel in time.")) from None

    async def close(self) -> None:
        """Closes all but the first."""
        await asyncio.gather(*(connection.close() for connection in self._connections[1:]))

    async def _with_room(self) -> RobustConnection:
        """A connected one with a free channel. One that is not connected is not chosen: how much room it has shows only
        later, and all channels that were lost with it would crowd onto it when it is back."""
        while True:
            rooms = [connection.free_channels for connection in self._connections]
            for connection, free in zip(self._connections, rooms, strict=True):
                if free is not None and free > RESERVED_CHANNELS:
                    return connection
            if None not in rooms:
                another = self._make_another(len(self._connections) + 1)
                self._connections.append(another)
                another.subscribe(self._on_change)
                _log.info("another connection to the broker is opened: the others have no free channel")
                await another.__aenter__()
            elif any(connection.is_closed for connection in self._connections):
                raise QueueClosed(_CLOSED)
            else:
                await self._changed.wait()

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


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
        # Our own limit ends first; these are for what is left behind when nobody waits any more.
        socket_timeout=timeout_seconds + 1,
        stack_timeout=timeout_seconds + 1,
        client_properties={"connection_name": name},
        tcp_options={
            "TCP_KEEPIDLE": address.heartbeat_seconds,
            "TCP_KEEPINTVL": math.ceil(address.heartbeat_seconds / 3),
            "TCP_KEEPCNT": 3,
        },
    )
