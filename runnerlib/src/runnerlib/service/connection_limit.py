"""How many connections a server has at most, and what becomes of those beyond it."""

import asyncio
import resource
import time
from collections.abc import Collection
from operator import itemgetter
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
_LOOK_SECONDS = 0.1
#: One in so many connections is closed at once.
_PART_CLOSED = 64


class Connection(Protocol):
    """What the limit needs to know of a connection."""

    @property
    def idle_since(self) -> float | None: ...

    def close_idle(self) -> None: ...


class ConnectionLimit:
    """Makes room for a new connection by closing some of those that have been idle for longest.

    Parameters:
        most: open connections; 0 for three quarters of the process's descriptors, at most DEFAULT_CONNECTIONS.
    """

    #: How long a connection that had no room may be idle.
    crowded_seconds = 5

    def __init__(self, most: int = 0) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            descriptors = 2**31
        self.most = most or min(DEFAULT_CONNECTIONS, descriptors * 3 // 4)
        self._last_descriptor = descriptors - _SPARE_DESCRIPTORS
        self._look_again_at = self._log_again_at = 0.0

    def admit(self, new: Connection, transport: asyncio.Transport, connections: Collection[Connection]) -> bool:
        """Whether there is room for a new connection, which is among `connections`. Without any, it is cut."""
        is_last_descriptor = transport.get_extra_info("socket").fileno() >= self._last_descriptor
        if len(connections) <= self.most and not is_last_descriptor:
            return True
        self._log(len(connections), is_last_descriptor)
        if self._close_idle(new, connections):
            return len(connections) <= self.most
        if len(connections) > self.most + SPARE_CONNECTIONS:
            transport.abort()
        return False

    def _close_idle(self, new: Connection, connections: Collection[Connection]) -> bool:
        """All are looked at, so many are closed at once, and when there is none, the next look waits."""
        now = time.monotonic()
        if now < self._look_again_at:
            return False
        others = ((one.idle_since, one) for one in connections if one is not new)
        idle = sorted(((since, one) for since, one in others if since is not None), key=itemgetter(0))
        closed = idle[: 1 + self.most // _PART_CLOSED]
        for _, connection in closed:
            connection.close_idle()
        if not closed:
            self._look_again_at = now + _LOOK_SECONDS
        return bool(closed)

    def _log(self, connections: int, is_last_descriptor: bool) -> None:
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
