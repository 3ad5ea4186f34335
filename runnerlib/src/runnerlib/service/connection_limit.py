"""How many connections a server has at most, and what becomes of those beyond it."""

import asyncio
import resource
import time
from collections import OrderedDict
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


class IdleConnection(Protocol):
    """A connection without a request in progress."""

    def close_idle(self) -> None: ...


class ConnectionLimit:
    """Makes room for a new connection by closing the one that has been idle for longest.

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
        #: Kept by the connections themselves; those that have been idle for longest come first.
        self.idle: OrderedDict[IdleConnection, None] = OrderedDict()
        self._logged_at = -_LOG_SECONDS

    def admit(self, transport: asyncio.Transport, connections: int) -> bool:
        """Whether there is room for a new connection, which is the last of so many. Without any, it is cut."""
        descriptor = transport.get_extra_info("socket").fileno()
        is_last_descriptor = descriptor >= self._last_descriptor
        if connections <= self.most and not is_last_descriptor:
            return True
        self._log(connections, is_last_descriptor)
        # The next connection gets a descriptor that was freed, a low one: so some more of them.
        closed = min(len(self.idle), _SPARE_DESCRIPTORS if is_last_descriptor else 1)
        for _ in range(closed):
            self.idle.popitem(last=False)[0].close_idle()
        if closed:
            return connections - closed <= self.most
        if connections > self.most + SPARE_CONNECTIONS:
            transport.abort()
        return False

    def _log(self, connections: int, is_last_descriptor: bool) -> None:
        now = time.monotonic()
        if now - self._logged_at < _LOG_SECONDS:
            return
        self._logged_at = now
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
