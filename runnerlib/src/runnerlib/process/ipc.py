"""The worker process's ends of its connection: the calls that it receives, and the frames that it answers with."""

import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from runnerlib.adapter.errors import clean
from runnerlib.adapter.provided import Task
from runnerlib.frames import CONNECTION_LOST, PROGRESS, Frame, FrameError, FrameReader, encode

#: One run reports its progress at most this often.
PROGRESS_EVERY_SECONDS = 0.1
_READ_BYTES = 256 * 1024
_STATM = Path("/proc/self/statm")
_MAX_MESSAGE_CHARACTERS = 2000

OnFrames = Callable[[list[Frame]], None]


class WorkerConnection:
    """Sends from any thread; reads in a thread of its own, so that a busy handler does not keep a cancel waiting.

    It reads the socket `calls` and sends into the pipe `answers`.

    That thread is started before the adapter is loaded, which may replace what `threading` and `socket` mean (gevent).
    Only this process uses the connection: frames of a process that a handler forked would mix with ours.
    """

    def __init__(self, calls: socket.socket, answers: int, parent: int) -> None:
        self._socket = calls
        self._answers = answers
        self._parent = parent
        self._reader = FrameReader()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._early: list[Frame] = []
        self._on_frames: OnFrames = self._early.extend
        self._process = os.getpid()

    @property
    def is_own(self) -> bool:
        """False in a process that a handler forked."""
        return self._process == os.getpid()

    def send(self, data: bytes) -> None:
        """Sends one or several whole frames. Ends the process when the other end is gone.

        Also ends a forked one, which returned from the handler as if it were the worker process.
        """
        if not self.is_own:
            os._exit(1)
        try:
            with self._lock:
                sent = os.write(self._answers, data)
                while sent < len(data):  # a signal came in between
                    sent += os.write(self._answers, data[sent:])
        except OSError:
            self._end()

    def check(self) -> None:
        """Ends the process when a handler closed the socket, so that the next call is not charged with it."""
        try:
            self._socket.getsockname()
        except OSError:
            self._end()

    def first(self) -> bytes:
        """Waits for the first frame and returns its body; from then on a thread reads the others."""
        while not self._early:
            self._early += self._receive()
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        *_, body = self._early.pop(0)
        return body

    def deliver_to(self, on_frames: OnFrames) -> None:
        """From now on the reading thread calls this with what arrives; it gets at once what arrived before."""
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
        """Ends this process at once: without its connection it is of no use."""
        if os.getppid() == self._parent:
            # A handler closed it. This code tells the serving process, which then ends the whole group.
            os._exit(CONNECTION_LOST)
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


@dataclass(frozen=True)
class CallRequest:
    """A call and its runs, in order. `ends_at` are times of this process's monotonic clock."""

    call: int
    algorithm: str
    batch: bool
    #: `ids` as JSON: most handlers don't need them
    names: bytes
    ends_at: list[float | None]
    payloads: list[bytes]

    @cached_property
    def ids(self) -> list[tuple[str, int]]:
        """Task id and attempt of each run."""
        return [(id, attempt) for id, attempt in from_json(self.names)]


def read_call(call: int, body: bytes) -> CallRequest:
    """See :meth:`runnerlib.execution.work_queue.Call.frame`."""
    start = 4 + int.from_bytes(body[:4], "big")
    header: dict[str, Any] = from_json(body[4:start])
    payloads = []
    for length in header["lengths"]:
        payloads.append(body[start : start + length])
        start += length
    now = time.monotonic()
    ends_at = [None if left is None else now + left for left in header["seconds_left"]]
    return CallRequest(call, header["algorithm"], header["batch"], body[start:], ends_at, payloads)


class Cancelled:
    """Which runs were cancelled: written by the reading thread, read by handlers."""

    def __init__(self) -> None:
        self._runs: set[tuple[int, int]] = set()

    def add(self, call: int, at: int) -> None:
        self._runs.add((call, at))

    def has(self, call: int, at: int) -> bool:
        return (call, at) in self._runs

    def forget(self, call: int) -> None:
        if self._runs:
            self._runs = {run for run in self._runs if run[0] != call}


class LiveTask(Task):
    """The `task` of a handler; its progress is sent through the connection."""

    def __init__(self, connection: WorkerConnection, cancelled: Cancelled, request: CallRequest, at: int) -> None:
        id, attempt = request.ids[at]
        ends_at = request.ends_at[at]
        left = None if ends_at is None else ends_at - time.monotonic()
        super().__init__(id, attempt, left, self._send_progress, partial(cancelled.has, request.call, at))
        self._connection = connection
        self._place = (request.call, at)
        self._reports: ProgressReports | None = None

    def _send_progress(self, fraction: float, message: str) -> None:
        if self._reports is None:
            self._reports = ProgressReports(self._connection, *self._place)
        self._reports.report(fraction, clean(message[:_MAX_MESSAGE_CHARACTERS]))

    def close(self) -> None:
        super().close()
        if self._reports is not None:
            self._reports.close()


class ProgressReports:
    """Sends the progress of one run: the first report at once, then the latest one each tenth of a second.

    Reports of a process that the handler forked are dropped.
    """

    def __init__(self, connection: WorkerConnection, call: int, at: int) -> None:
        self._connection = connection
        self._call = call
        self._at = at
        self._lock = threading.Lock()
        self._sent_at = 0.0
        self._pending: tuple[float, str] | None = None
        self._timer: threading.Timer | None = None

    def report(self, fraction: float, message: str) -> None:
        if not self._connection.is_own:
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
        """The run has ended: what was not sent yet is dropped."""
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
            self._connection.send(encode(PROGRESS, self._call, self._at, fraction, message.encode()))


def rss_bytes() -> int:
    """Memory of this process now; where the system does not report that, its highest so far."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
