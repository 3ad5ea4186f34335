"""Ports: whether they are free, asked before anything starts; who holds one that is not; a pool for runners."""

import contextlib
import socket
from collections.abc import Callable, Collection

import psutil

from worker.errors import PortTaken
from worker.plan import PortUse

_LAST_PORT = 65535


def is_free(host: str, port: int) -> bool:
    """Whether we could listen there now (a connection that is being closed does not count)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def taken_sentence(host: str, use: PortUse) -> str:
    """The error message for a port that is taken."""
    pid = listener_pid(use.port)
    holder = f" by process {pid}{_name_of(pid)}" if pid is not None else ""
    return (
        f"{use.process} needs port {use.port} on {host}, but it is taken{holder}; "
        f"stop that process or choose another port with {use.setting}"
    )


def listener_pid(port: int) -> int | None:
    """The process that listens on the port, if the system tells (mostly of own processes)."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                pid: int | None = connection.pid
                return pid
    return None


def environment_of(pid: int) -> dict[str, str]:
    """The variables a process was started with; empty if they cannot be read."""
    with contextlib.suppress(psutil.Error, OSError):
        return dict(psutil.Process(pid).environ())
    return {}


def _name_of(pid: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return f" ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return ""


class PortPool:
    """Hands out the lowest free port, each to one process at a time.

    `is_free(port)` tells whether nobody else listens there; `not_these` are ours but not for runners.
    """

    def __init__(self, first: int, is_free: Callable[[int], bool], not_these: Collection[int] = ()) -> None:
        self._first = first
        self._is_free = is_free
        self._held = set(not_these)

    def reserve(self, port: int) -> int:
        """Takes this very port, even if somebody listens there now."""
        self._held.add(port)
        return port

    def take(self) -> int:
        """Raises PortTaken if there is none left."""
        for port in range(self._first, _LAST_PORT + 1):
            if port not in self._held and self._is_free(port):
                return self.reserve(port)
        raise PortTaken(f"no port from {self._first} on is free for a runner; choose another with RUNNER_PORTS_START")

    def give_back(self, port: int) -> None:
        self._held.discard(port)
