"""One worker process as its starter sees it: frames to it, frames from it, its death."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from runnerlib.execution.endings import how_it_ended
from runnerlib.frames import FrameError, FrameReader, encode
from runnerlib.import_path import SAFELY

#: After a read while a call of many runs is on, the next read waits this long: one wake-up for many outcomes.
COALESCE_SECONDS = 0.001
#: How long the last frames of a dead process are waited for, when something else holds its socket open.
_LAST_FRAMES_SECONDS = 0.5

Frame = tuple[dict[str, Any], bytes]
OnFrames = Callable[[list[Frame]], None]


class StartFailed(Exception):
    """The process could not load what it needs; the message says why."""


class WorkerProcess:
    """Made by :func:`start_process`. Kills are of the whole process group: what a handler started goes too."""

    def __init__(self, process: asyncio.subprocess.Process, transport: asyncio.Transport, frames: "_Frames") -> None:
        self._process = process
        self._transport = transport
        self._frames = frames
        self.pid = process.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._wait())

    def on_frames(self, on_frames: OnFrames) -> None:
        """From now on frames go there."""
        self._frames.on_frames = on_frames

    def send(self, data: bytes) -> None:
        """Bytes of whole frames; lost when the process is dead, which :attr:`exited` tells."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def coalesce(self, wanted: bool) -> None:
        """Whether many frames are about to come, so that reading may wait for some to gather."""
        self._frames.coalesce = wanted

    def kill(self) -> None:
        if self._process.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it ended by itself just now
            except PermissionError:
                self._process.kill()

    async def stop(self, within_seconds: float) -> None:
        """Lets it tear down what it loaded, then ends it in any case."""
        self.send(encode({"kind": "stop"}))
        await asyncio.wait([self._watch], timeout=within_seconds)
        self.kill()
        await asyncio.wait([self._watch])

    async def _wait(self) -> None:
        """Tells the death after the last frame, so that nothing that was finished counts as lost."""
        lost = asyncio.ensure_future(self._frames.closed.wait())
        ended = asyncio.ensure_future(self._process.wait())
        either: list[asyncio.Future[Any]] = [lost, ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            # It closed the socket: alive or not, it can do nothing for us any more.
            await asyncio.wait([ended], timeout=_LAST_FRAMES_SECONDS)
            self.kill()
        code = await ended
        self._frames.resume()
        await asyncio.wait([lost], timeout=_LAST_FRAMES_SECONDS)
        lost.cancel()
        self._transport.abort()
        self.exited.set_result(code)


async def start_process(setup: Mapping[str, Any], on_frames: OnFrames) -> WorkerProcess:
    """Starts a process and returns when it is ready for calls. Raises StartFailed.

    A fresh interpreter, never a fork: the threads and locks of the serving process stay here.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    # Closed on our side only, the process sees the end of the socket and goes.
    transport, frames = await asyncio.get_running_loop().create_connection(_Frames, sock=ours)
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *SAFELY,
                "-m",
                "runnerlib.process",
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
    except OSError as error:
        transport.abort()
        raise StartFailed(f"a worker process could not be started: {error}") from None
    except BaseException:
        transport.abort()
        raise
    worker = WorkerProcess(process, transport, frames)
    try:
        worker.send(encode(setup))
        await _ready(worker, frames)
    except BaseException:
        worker.kill()
        await asyncio.wait([worker.exited])
        raise
    frames.on_frames = on_frames
    return worker


async def _ready(worker: WorkerProcess, frames: "_Frames") -> None:
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def first(received: list[Frame]) -> None:
        if not answer.done():
            answer.set_result(received[0][0])

    frames.on_frames = first
    either: list[asyncio.Future[Any]] = [answer, worker.exited]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        raise StartFailed(f"the worker process {how_it_ended(worker.exited.result())} while it loaded")
    header = answer.result()
    if header["kind"] == "failed":
        raise StartFailed(header["reason"])


class _Frames(asyncio.Protocol):
    """Reads frames; a stream that is out of step is the end of the connection."""

    def __init__(self) -> None:
        self.on_frames: OnFrames | None = None
        self.closed = asyncio.Event()
        self.coalesce = False
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._paused: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of a class of their own.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            frames = self._reader.feed(data)
        except FrameError:
            self._transport.abort()
            return
        if frames and self.on_frames is not None:
            self.on_frames(frames)
        if self.coalesce and self._paused is None:
            self._transport.pause_reading()
            self._paused = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self.resume)

    def resume(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()
