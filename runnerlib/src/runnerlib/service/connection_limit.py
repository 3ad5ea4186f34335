"""How many connections a server has at most, and what becomes of those beyond it."""

import asyncio
import resource
import socket
import time
from collections.abc import Callable, Collection
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from runnerlib.service.logs import get_logger
from runnerlib.service.problems import problem_response

log = get_logger(__name__)

#: What a process may have without being told, if its files allow for it.
DEFAULT_CONNECTIONS = 4096
#: Further ones, for health checks.
SPARE_CONNECTIONS = 32
#: Descriptors that are left when a connection counts as one too many.
_SPARE_DESCRIPTORS = 16
_LOG_SECONDS = 60.0
#: From then on a connection that has not had a request is closed before all that had one.
GRACE_SECONDS = 2.0
#: Of connections that have not sent anything, there may be so many times as many.
_SILENT_RATIO = 4
#: One in so many connections is closed at once when descriptors run out: other things need them, too.
_PART_CLOSED = 64
#: Connections whose clients have yet to read an answer are passed over, so many at once.
_MOST_SENDING = 16


class Connection(Protocol):
    """What the limit needs to know of a connection."""

    @property
    def is_sending(self) -> bool: ...

    def close_idle(self) -> None: ...


class ConnectionLimit:
    """Makes room for a new connection by closing the one that has been idle for longest.

    Those whose first request does not begin for some time are closed before all others. Each tells when a request
    begins, when none is left, and when it is gone: with thousands of connections there is no time to look at all.

    Parameters:
        most: open connections; 0 for half of the process's descriptors, at most DEFAULT_CONNECTIONS.
    """

    #: How long a connection that had no room may be idle.
    crowded_seconds = 5

    def __init__(self, most: int = 0) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            descriptors = 2**31
        self.most = most or min(DEFAULT_CONNECTIONS, descriptors // 2)
        #: of those that have not sent anything
        self.most_silent = min(_SILENT_RATIO * self.most, max(1, descriptors * 3 // 4 - self.most))
        self._last_descriptor = descriptors - _SPARE_DESCRIPTORS
        self._log_again_at = 0.0
        #: closes some of those that have not sent anything; False: there are none. For the acceptor to set.
        self.close_silent: Callable[[], bool] = lambda: False
        #: since when (monotonic); in that order
        self._new: dict[Connection, float] = {}
        self._idle: dict[Connection, float] = {}

    def admit(self, new: Connection, transport: asyncio.Transport, connections: Collection[Connection]) -> bool:
        """Whether there is room for a new connection, which is among `connections`. Without any, it is cut."""
        is_last_descriptor = self.is_last_descriptor(transport.get_extra_info("socket"))
        if len(connections) > self.most or is_last_descriptor:
            self.log(len(connections), is_last_descriptor)
            has_closed = self.close_silent() if is_last_descriptor else False
            has_closed = has_closed or self._close_idle(1 + self.most // _PART_CLOSED if is_last_descriptor else 1)
            if len(connections) > self.most + SPARE_CONNECTIONS:
                transport.abort()
                return False
            has_room = has_closed and len(connections) <= self.most
        else:
            has_room = True
        self._new[new] = time.monotonic()
        return has_room

    def is_last_descriptor(self, connection: socket.socket) -> bool:
        return connection.fileno() >= self._last_descriptor

    def request_begins(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._new.pop(connection, None)

    def request_ends(self, connection: Connection) -> None:
        """It has no other."""
        self._idle[connection] = time.monotonic()

    #: the connection is gone
    forget = request_begins

    def _close_idle(self, count: int) -> bool:
        now, closed = time.monotonic(), 0
        for _ in range(count + _MOST_SENDING):
            oldest = self._oldest(now)
            if oldest is None or closed == count:
                break
            self.forget(oldest)
            if oldest.is_sending:
                self._idle[oldest] = now
            else:
                oldest.close_idle()
                closed += 1
        return closed > 0

    def _oldest(self, now: float) -> Connection | None:
        new, new_since = next(iter(self._new.items()), (None, now))
        idle, idle_since = next(iter(self._idle.items()), (None, now))
        is_new = idle is None or new_since < idle_since or now - new_since > GRACE_SECONDS
        return new if new is not None and is_new else idle

    def log(self, connections: int, is_last_descriptor: bool) -> None:
        now = time.monotonic()
        if now < self._log_again_at:
            return
        self._log_again_at = now + _LOG_SECONDS
        reason = "file descriptors" if is_last_descriptor else "connections"
        log.warning(
            f"this process runs out of {reason}: connections without a request are closed, further ones refused",
            connections=connections,
            max_connections=self.most,
        )


class HealthOnly:
    """ASGI middleware for connections beyond the limit: 503 for all but health checks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if not scope["path"].startswith("/healthz/"):
            detail = "This process has as many connections as it may have; try again in a moment."
            answer = problem_response(503, "overloaded", detail, {"Retry-After": "1", "Connection": "close"})
        await answer(scope, receive, send)
