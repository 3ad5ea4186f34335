"""Takes the connections of a listening socket, and keeps those that do not say anything where they cost little."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import islice

from runnerlib.service.component import Component
from runnerlib.service.connection_limit import ConnectionLimit
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: After a connection could not be taken.
ACCEPT_AGAIN_SECONDS = 0.1
#: Of a burst; the others are taken after what else there is to do.
_MOST_AT_ONCE = 8
_PART_CLOSED = 64


class Acceptor(Component):
    """Lets a connection in with its first byte; leaving it closes the listening socket.

    Until then it has a descriptor and a kilobyte, but no parser, buffers or timers. There are at most
    `limit.most_silent` of these, for at most `silent_seconds`; the oldest one makes room for a new one.

    Parameters:
        let_in: makes a protocol have the connection. After an OSError, or when cancelled, the connection is closed.
    """

    def __init__(
        self,
        listener: socket.socket,
        let_in: Callable[[socket.socket], Awaitable[object]],
        limit: ConnectionLimit,
        silent_seconds: float,
    ) -> None:
        self._listener = listener
        self._let_in = let_in
        self._limit = limit
        self._silent_seconds = silent_seconds
        limit.close_silent = self._close_oldest
        self._loop = asyncio.get_running_loop()
        #: since when, in that order
        self._silent: dict[socket.socket, float] = {}
        #: until it accepts again
        self._waits: asyncio.TimerHandle | None = None
        self._entering: set[asyncio.Task[None]] = set()

    async def _start(self, stack: AsyncExitStack) -> None:
        stack.callback(self._close)
        self._watch()
        background(stack, self._close_old(), "silent connections")

    def _watch(self) -> None:
        self._waits = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            for _ in range(_MOST_AT_ONCE):
                connection, _ = self._listener.accept()
                self._take(connection)
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as error:  # no more descriptors, or memory
            log.warning("a connection could not be taken", reason=error.strerror)
            self._close_oldest()
            self._loop.remove_reader(self._listener)
            self._waits = self._loop.call_later(ACCEPT_AGAIN_SECONDS, self._watch)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._make_room(connection)
        self._silent[connection] = self._loop.time()
        self._loop.add_reader(connection, self._begins, connection)

    def _make_room(self, new: socket.socket) -> None:
        is_last_descriptor = self._limit.is_last_descriptor(new)
        if is_last_descriptor or len(self._silent) >= self._limit.most_silent:
            self._limit.log(len(self._silent), is_last_descriptor)
            self._close_oldest()

    def _close_oldest(self) -> bool:
        """One in so many: descriptors are needed for other things, too."""
        oldest = list(islice(self._silent, 1 + len(self._silent) // _PART_CLOSED))
        for connection in oldest:
            self._remove(connection)
            connection.close()
        return bool(oldest)

    def _remove(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        del self._silent[connection]

    def _begins(self, connection: socket.socket) -> None:
        self._remove(connection)
        if not _says_something(connection):
            connection.close()
            return
        task = self._loop.create_task(self._enter(connection))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self._let_in(connection)
        except OSError:
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _close_old(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._silent_seconds / 2))
            before = self._loop.time() - self._silent_seconds
            while self._silent and next(iter(self._silent.values())) < before:
                oldest = next(iter(self._silent))
                self._remove(oldest)
                oldest.close()

    def _close(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._entering:
            task.cancel()
        for connection in list(self._silent):
            self._remove(connection)
            connection.close()


def _says_something(connection: socket.socket) -> bool:
    """False for one that has ended: thousands may do so at once, and would take the places of others."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
