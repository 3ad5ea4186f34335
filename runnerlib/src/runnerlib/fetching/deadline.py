"""One time limit for a whole conversation: a server that sends a byte now and then must not hold a slot for hours."""

import io
import socket
import threading
import time
from typing import Any


class Deadline:
    """Counts from now. `stopped` ends it early."""

    def __init__(self, seconds: float, stopped: threading.Event) -> None:
        self._ends_at = time.monotonic() + seconds
        self._stopped = stopped

    def left(self) -> float:
        """Seconds; always more than 0. Raises TimeoutError."""
        left = self._ends_at - time.monotonic()
        if left <= 0 or self._stopped.is_set():
            raise TimeoutError("the time limit is over")
        return left


class TimedSocket:
    """What http.client needs of a socket; each wait for it is no longer than what is left.

    A socket's own time-out would begin anew at every byte. Closing is left to whoever opened the socket.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._deadline))

    def close(self) -> None:
        return None


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)
