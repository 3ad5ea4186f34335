"""The worker process's end of the socket: frames in, frames out, and progress at a bearable rate."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from runnerlib.frames import CONNECTION_LOST, FrameError, FrameReader, encode

#: One run reports its progress at most this often.
PROGRESS_EVERY_SECONDS = 0.1
_READ_BYTES = 256 * 1024

Frame = tuple[dict[str, Any], bytes]
OnFrames = Callable[[list[Frame]], None]


class Channel:
    """Sends from any thread; reads in a thread of its own, so that a busy handler does not keep a cancel waiting.

    That thread is started before the adapter is loaded, which may replace what `threading` and `socket` mean (gevent).
    The channel is this process's alone: frames of one that a handler forked would get in between ours.
    """

    def __init__(self, connection: socket.socket, parent: int) -> None:
        self._socket = connection
        self._parent = parent
        self._reader = FrameReader()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._early: list[Frame] = []
        self._on_frames: OnFrames = self._early.extend
        self._process = os.getpid()

    @property
    def is_own(self) -> bool:
        """Whether this is still the process that it was made in."""
        return self._process == os.getpid()

    def send(self, data: bytes) -> None:
        """Bytes of one or several whole frames. Ends the process when nobody is there to read them.

        Also ends a forked one, which came out of the handler as if it were the worker process.
        """
        if not self.is_own:
            os._exit(1)
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            self._end()

    def first(self) -> Frame:
        """Waits for the first frame; reads the others in a thread from then on."""
        while not self._early:
            self._early += self._receive()
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        return self._early.pop(0)

    def deliver_to(self, on_frames: OnFrames) -> None:
        """From now on the reading thread calls this with the frames that came; at once with those that came before."""
        with self._reading:
            self._on_frames = on_frames
            if self._early:
                on_frames(self._early)

    def _read(self) -> None:
        while True:
            frames = self._receive()
            with self._reading:
                self._on_frames(frames)

    def _receive(self) -> list[Frame]:
        try:
            data = self._socket.recv(_READ_BYTES)
            if data:
                return self._reader.feed(data)
        except (OSError, FrameError):
            pass
        self._end()
        return []

    def _end(self) -> None:
        """Ends this process at once: without its connection it can do nothing for anybody."""
        if os.getppid() == self._parent:
            # A handler closed it. The serving process is told so by this code, and ends the whole group.
            os._exit(CONNECTION_LOST)
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


class ProgressReports:
    """Progress of one run on its way out: the first at once, then the latest each tenth of a second.

    What a process says that the handler forked is dropped.
    """

    def __init__(self, channel: Channel, call: int, at: int) -> None:
        self._channel = channel
        self._call = call
        self._at = at
        self._lock = threading.Lock()
        self._sent_at = 0.0
        self._pending: tuple[float, str] | None = None
        self._timer: threading.Timer | None = None

    def report(self, fraction: float, message: str) -> None:
        if not self._channel.is_own:
            return
        with self._lock:
            self._pending = (fraction, message)
            wait = self._sent_at + PROGRESS_EVERY_SECONDS - time.monotonic()
            if wait <= 0:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._late)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """The run has ended: what is not out yet is worthless."""
        with self._lock:
            self._pending = None
            if self._timer is not None:
                self._timer.cancel()

    def _late(self) -> None:
        with self._lock:
            self._timer = None
            self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            fraction, message = self._pending
            self._pending = None
            self._sent_at = time.monotonic()
            header = {"kind": "progress", "call": self._call, "at": self._at, "fraction": fraction, "message": message}
            self._channel.send(encode(header))
