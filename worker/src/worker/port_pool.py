"""Ports for runners: the lowest free one, each for one process at a time."""

from collections.abc import Callable, Collection

from worker.errors import PortTaken

_LAST = 65535


class PortPool:
    """`is_free(port)` tells whether a stranger listens there; `not_these` are ours but not for runners."""

    def __init__(self, first: int, is_free: Callable[[int], bool], not_these: Collection[int] = ()) -> None:
        self._first = first
        self._is_free = is_free
        self._held = set(not_these)

    def reserve(self, port: int) -> int:
        """Takes this very port, whoever listens there now."""
        self._held.add(port)
        return port

    def take(self) -> int:
        """Raises PortTaken when there is none left."""
        for port in range(self._first, _LAST + 1):
            if port not in self._held and self._is_free(port):
                return self.reserve(port)
        raise PortTaken(f"no port from {self._first} on is free for a runner; choose another with RUNNER_PORTS_START")

    def give_back(self, port: int) -> None:
        self._held.discard(port)
