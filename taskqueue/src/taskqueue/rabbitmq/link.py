"""One connection to the broker that is made again whenever it is lost."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Self

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.address import BrokerAddress
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.reasons import unreachable
from taskqueue.rabbitmq.wire import CannotConnect, Wire, connect, quiet_pika

_log = logging.getLogger(__name__)

#: Pauses between attempts to connect grow from the first to the second.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
#: A connection that lasted so long was a good one: after it the pauses start small again.
_STABLE_SECONDS = 10.0
#: The broker sends something at least once in each heartbeat; this many of them in silence, and it is given up.
_SILENT_HEARTBEATS = 1.5
#: How often the watchdog looks, for each heartbeat. Looks are counted, not seconds: a process that was stopped itself
#: must not blame the broker.
_LOOKS_PER_HEARTBEAT = 4
_CLOSE_SECONDS = 2.0
#: Channels of a connection that are kept for what is opened for a moment, to declare something.
RESERVED_CHANNELS = 8

Report = Callable[[str, bool, str], None]


def no_report(part: str, ready: bool, reason: str) -> None:
    """For whoever has no health to show."""


class Link:
    """Keeps one connection. Entering does not wait for it: the broker may come later.

    `report(part, ready, reason)` hears when the connection comes and goes, and when the broker blocks publishers.
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
        #: grows with each connection
        self.epoch = 0
        #: why the broker blocks publishers; empty when it does not
        self.blocked = ""
        #: set while there is a connection
        self.connected = asyncio.Event()
        self._reason = "not connected yet"
        self._wire: Wire | None = None
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        quiet_pika()
        self._report(self._part, False, unreachable(self._address, self._reason))
        self._task = asyncio.create_task(self._keep(), name=f"link {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Has `listener()` called when the connection came or went, or `blocked` changed. It must not raise."""
        self._listeners.append(listener)

    @property
    def trouble(self) -> str:
        """Why nothing can be published now; empty when all is well."""
        return self.blocked if self.connected.is_set() else unreachable(self._address, self._reason)

    @property
    def free_channels(self) -> int | None:
        """Channels that can still be opened; None while there is no connection."""
        return None if self._wire is None else self._wire.free_channels

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    async def channel(self, timeout_seconds: float = 10.0) -> Channel:
        """Opens a channel; waits for a connection first. Raises QueueUnavailable when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._open_channel()
        except TimeoutError:
            raise QueueUnavailable(self.trouble or "The broker opened no channel in time.") from None

    async def channel_now(self) -> Channel | None:
        """Opens a channel of the connection there is; None when it is lost meanwhile."""
        wire = self._wire
        if wire is None:
            return None
        try:
            return await _opened_channel(wire)
        except QueueUnavailable:
            if self._wire is wire and not wire.gone.done():
                raise
            # Let it be noticed; then whoever asks can wait for the next.
            await asyncio.sleep(0.01)
            return None

    async def close(self) -> None:
        """Closes the connection in good order, or drops it when that takes too long."""
        self._closed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.shut(_CLOSE_SECONDS)
        self.connected.clear()
        self._reason = "closed on this side"
        self._tell()

    async def _open_channel(self) -> Channel:
        while True:
            await self._wait_connected()
            channel = await self.channel_now()
            if channel is not None:
                return channel

    async def _wait_connected(self) -> None:
        if not self.connected.is_set() and not self._closed.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self.connected, self._closed)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self._closed.is_set():
            raise QueueClosed("The connection to the broker was closed on this side.")

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                failures = 0 if await self._live_once() else failures + 1
            except Exception:
                # Whatever it was, the next attempt starts from nothing: a link must never die unseen.
                _log.exception("the connection to the broker failed in an unforeseen way (%r)", self._name)
                failures += 1
            await asyncio.sleep(_pause(failures))

    async def _live_once(self) -> bool:
        """One connection, from the attempt to its end. Tells whether it was a lasting one."""
        wire = await self._connect_somewhere()
        if wire is None:
            return False
        since = time.monotonic()
        self._established(wire)
        self._lost(await self._watch(wire))
        return time.monotonic() - since >= _STABLE_SECONDS

    async def _connect_somewhere(self) -> Wire | None:
        """Tries each host once, in a random order: the clients of a lost node must not all go to the same next one."""
        hosts = random.sample(self._address.hosts, k=len(self._address.hosts))
        reasons: set[str] = set()
        for host in hosts:
            try:
                return await connect(
                    self._address,
                    host,
                    self._name,
                    on_blocked=self._on_blocked,
                    timeout_seconds=self._connect_seconds,
                )
            except CannotConnect as failure:
                reasons.add(str(failure))
        # Sorted, so that the same trouble is told once.
        self._unready("; ".join(sorted(reasons)))
        return None

    async def _watch(self, wire: Wire) -> str:
        """Returns why the connection is over; ends it itself when nothing comes from the broker any more."""
        heartbeat = self._address.heartbeat_seconds
        heard, silent = wire.bytes_received, 0
        while not wire.gone.done():
            await asyncio.wait({wire.gone}, timeout=heartbeat / _LOOKS_PER_HEARTBEAT)
            silent = silent + 1 if wire.bytes_received == heard else 0
            heard = wire.bytes_received
            if silent >= _SILENT_HEARTBEATS * _LOOKS_PER_HEARTBEAT and not wire.gone.done():
                reason = f"the broker has been silent for {_SILENT_HEARTBEATS * heartbeat:g} s"
                wire.abort(reason)
                await asyncio.wait({wire.gone}, timeout=1.0)
                return reason
        return wire.gone.result()

    def _established(self, wire: Wire) -> None:
        self.epoch += 1
        self._wire = wire
        self._reason = ""
        self.connected.set()
        _log.info("connected to the broker at %s as %r", self._address.shown, self._name)
        self._report(self._part, True, "")
        self._tell()

    def _lost(self, reason: str) -> None:
        self._wire = None
        self.connected.clear()
        self.blocked = ""
        self._unready(reason)
        self._tell()

    def _unready(self, reason: str) -> None:
        sentence = unreachable(self._address, reason)
        # Once for each reason: a broker may be away for hours.
        if reason != self._reason:
            _log.warning("%s Trying again until it is there (%r).", sentence, self._name)
        self._reason = reason
        self._report(self._part, False, sentence)

    def _on_blocked(self, reason: str) -> None:
        self.blocked = f"The broker accepts no messages now: {reason}." if reason else ""
        if reason:
            _log.warning("the broker blocks publishers (%r): %s", self._name, reason)
        self._report(self._part, not reason, self.blocked)
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


class Links:
    """Connections for any number of channels: a further one is made when the others have no free channel left."""

    def __init__(self, first: Link, further: Callable[[int], Link]) -> None:
        """`first` is entered and closed by the caller; `further(number)` makes the second and later ones."""
        self._links = [first]
        self._further = further
        #: set, and replaced, when a connection came or went
        self._changed = asyncio.Event()
        first.subscribe(self._on_change)

    async def channel(self, timeout_seconds: float = 10.0) -> Channel:
        """See `Link.channel`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    link = await self._with_room()
                    # Between the look at its room and the new channel's number nobody else has a turn.
                    channel = await link.channel_now()
                    if channel is not None:
                        return channel
        except TimeoutError:
            troubles = filter(None, (link.trouble for link in self._links))
            raise QueueUnavailable(next(troubles, "The broker opened no channel in time.")) from None

    async def close(self) -> None:
        """Closes the further ones."""
        await asyncio.gather(*(link.close() for link in self._links[1:]))

    async def _with_room(self) -> Link:
        """One that is connected. How much room there is at one that is not shows only later: were it chosen, all whose
        channels went with the connection would crowd onto it when it is back."""
        while True:
            rooms = [link.free_channels for link in self._links]
            for link, free in zip(self._links, rooms, strict=True):
                if free is not None and free > RESERVED_CHANNELS:
                    return link
            if None not in rooms:
                await self._make_further()
            elif any(link.is_closed for link in self._links):
                raise QueueClosed("The connection to the broker was closed on this side.")
            else:
                await self._changed.wait()

    async def _make_further(self) -> None:
        link = self._further(len(self._links) + 1)
        self._links.append(link)
        link.subscribe(self._on_change)
        _log.info("a further connection to the broker is made: the others have no free channel")
        await link.__aenter__()

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _opened_channel(wire: Wire) -> Channel:
    """A new channel of this connection, ready for use."""
    channel = Channel(wire)
    try:
        await channel.opened()
    except asyncio.CancelledError:
        channel.abandon("no longer wanted")
        raise
    return channel


def _pause(failures: int) -> float:
    """Jittered, so that a restarted broker does not meet all its clients in the same moment."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.3, 1.0)  # noqa: S311 - jitter, nothing secret
