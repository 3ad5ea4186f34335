"""A worker process as seen by the serving process: starting it, frames to and from it, and its death."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_json

from runnerlib.execution.outcomes import Death, how_it_ended
from runnerlib.frames import LOAD_FAILED, SETUP, STOP, Frame, FrameError, FrameReader, encode
from runnerlib.import_path import SAFELY
from runnerlib.leftovers import TemporaryFolders, clear_up, environment_with, remove
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: After a read while a call of many runs is on, the next read waits this long: one wake-up for many outcomes.
COALESCE_SECONDS = 0.001
#: Not after a read of so many bytes: a pipe holds little more, and the process must not wait for room.
_LARGE_READ_BYTES = 16 * 1024
#: As much as a pipe usually holds.
_READ_BYTES = 64 * 1024
#: How long the last frames of a dead process are waited for, when something else holds its socket open.
_LAST_FRAMES_SECONDS = 0.5
#: The kernel's count of kills is read at most this often.
_COUNT_SECONDS = 1.0
_ROOT = Path("/")

T = TypeVar("T")
OnFrames = Callable[[list[Frame]], None]


class StartFailed(Exception):
    """The process could not load what it needs; the message says why."""


class WorkerProcess:
    """Made by :func:`start_process`. When it ends, for whatever reason, so does what handlers started in it.

    Raises StartFailed when no thread can be started to see to that; the process has been ended then.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        folder: Path | None,
        transport: asyncio.Transport,
        frames: "_Frames",
    ) -> None:
        self._process = process
        self._folder = folder
        self._transport = transport
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._memory_kills = memory_kills()
        self._counted_at = time.monotonic()
        self._is_reaped = False
        #: its number may be taken by another process once it is reaped; who kills holds this
        self._lock = threading.Lock()
        self.pid = process.pid
        self.exited: asyncio.Future[Death] = self._loop.create_future()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._cleared: asyncio.Future[None] = self._loop.create_future()
        try:
            threading.Thread(target=self._clear_up_behind, name=f"end of {self.pid}", daemon=True).start()
        except RuntimeError as error:
            process.kill()
            process.wait()
            raise StartFailed(f"a worker process could not be watched: {error}") from None
        self._watch = asyncio.ensure_future(self._wait())

    def on_frames(self, on_frames: OnFrames) -> None:
        """From now on `on_frames` is called with what arrives."""
        self._frames.on_frames = on_frames

    def send(self, data: bytes) -> None:
        """Sends whole frames. They are lost when the process is dead; :attr:`exited` says so."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def recount_memory_kills(self) -> None:
        """Called when it was idle and gets a call: earlier kills by the kernel have nothing to do with that call."""
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._memory_kills, self._counted_at = memory_kills(), now

    def coalesce(self, wanted: bool) -> None:
        """Whether many frames are about to arrive, so that reading may wait for some to gather."""
        self._frames.coalesce = wanted

    def kill(self) -> None:
        """Ends it at once, together with what it started."""
        with self._lock:
            self._kill_group()

    async def stop(self, within_seconds: float) -> None:
        """Lets it tear down what it loaded for so long, then ends it in any case."""
        self.send(encode(STOP))
        await asyncio.wait([self._watch], timeout=within_seconds)
        self.kill()
        await asyncio.wait([self._watch, self._cleared])

    async def _wait(self) -> None:
        """Sets :attr:`exited` after the last frame has been read, so that no finished run counts as lost."""
        either: list[asyncio.Future[Any]] = [self._frames.closed, self._ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        is_cut_off = False
        if not self._ended.done():
            # It closed the pipe, or wrote no frames into it: alive or not, it is of no use any more.
            self._transport.abort()
            await asyncio.wait([self._ended], timeout=_LAST_FRAMES_SECONDS)
            is_cut_off = not self._ended.done()
            self.kill()
        code = await self._ended
        # If it ended in another way, it was only slow to die.
        is_cut_off = is_cut_off and code == -signal.SIGKILL
        self._frames.resume()
        await asyncio.wait([self._frames.closed], timeout=_LAST_FRAMES_SECONDS)
        self._transport.abort()
        self._frames.close()
        before, after = self._memory_kills, memory_kills()
        memory_ran_out = None if before is None or after is None else after > before
        self.exited.set_result(Death(code, is_cut_off, memory_ran_out))

    def _clear_up_behind(self) -> None:
        """In a thread of its own: waits for the end of the process, then ends and removes what is left of it.

        Whatever fails here, both futures are set: runs wait for them.
        """
        code = 0
        try:
            code = self._reap()
        except Exception:
            log.exception("the end of a worker process could not be waited for", pid=self.pid)
            self.kill()
        finally:
            self._set(self._ended, code)
        try:
            if self._folder is not None:
                clear_up(self._folder)
        except Exception:
            log.exception("what a worker process left could not be cleared up", pid=self.pid)
        finally:
            self._set(self._cleared, None)

    def _reap(self) -> int:
        """Waits for the end, kills the process group, and returns the exit code; 0 when other code has collected it."""
        is_there = True
        if hasattr(os, "waitid"):
            try:
                # Not reaped yet, so that its number still means its group.
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                # The adapter ignores SIGCHLD, or waits for any child: the number may be another process's by now.
                is_there = False
        else:
            self._process.wait()
        with self._lock:
            if is_there:
                self._kill_group()
            code = self._process.wait()
            self._is_reaped = True
        return code

    def _kill_group(self) -> None:
        if not self._is_reaped:
            # No process is left, or one with other rights.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _set(self, future: "asyncio.Future[T]", value: T) -> None:
        def set_result() -> None:
            if not future.done():
                future.set_result(value)

        with suppress(RuntimeError):  # the loop is closed, so nothing waits for it
            self._loop.call_soon_threadsafe(set_result)


async def start_process(setup: Mapping[str, Any], on_frames: OnFrames, folders: TemporaryFolders) -> WorkerProcess:
    """Starts a process and returns when it is ready for calls. Raises StartFailed.

    A fresh interpreter, never a fork: the threads and locks of the serving process stay here.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    # When our end is closed, the process sees the end of the socket and exits.
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    # Its answers are many and short: to write one into a pipe takes a third of the time that a socket takes.
    reading, writing = os.pipe()
    frames = _Frames(reading)
    folder = folders.new()
    try:
        with theirs, os.fdopen(writing, "wb", buffering=0):
            process = _popen(theirs.fileno(), writing, folder)
        worker = WorkerProcess(process, folder, transport, frames)
    except (OSError, StartFailed) as error:
        transport.abort()
        frames.close()
        if folder is not None:
            remove(folder)
        if isinstance(error, StartFailed):
            raise
        raise StartFailed(f"a worker process could not be started: {error}") from None
    try:
        whole = {**setup, "temporary_folder": None if folder is None else str(folder)}
        worker.send(encode(SETUP, body=to_json(whole)))
        await _ready(worker, frames)
    except BaseException:
        worker.kill()
        await asyncio.wait([worker.exited])
        raise
    frames.on_frames = on_frames
    return worker


def _popen(calls: int, answers: int, folder: Path | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *SAFELY, "-m", "runnerlib.process", str(calls), str(answers), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        pass_fds=[calls, answers],
        env=environment_with(folder),
        start_new_session=True,
    )


async def _ready(worker: WorkerProcess, frames: "_Frames") -> None:
    answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

    def first(received: list[Frame]) -> None:
        if not answer.done():
            answer.set_result(received[0])

    frames.on_frames = first
    either: list[asyncio.Future[Any]] = [answer, worker.exited]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        raise StartFailed(f"the worker process {how_it_ended(worker.exited.result())} while it loaded")
    kind, *_, reason = answer.result()
    if kind == LOAD_FAILED:
        raise StartFailed(reason.decode())


class _Frames:
    """Reads frames from a pipe, which it closes at their end; anything else in the stream is such an end.

    Not a transport of the loop: uvloop closes the descriptor of a pipe twice, the second time when its number may
    already be that of a file which another thread has just opened.
    """

    def __init__(self, pipe: int) -> None:
        self.on_frames: OnFrames | None = None
        self.coalesce = False
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._pipe = pipe
        self._reader = FrameReader()
        self._paused: asyncio.TimerHandle | None = None
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _READ_BYTES)
            frames = self._reader.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data = b""
        if not data:
            self.close()
            return
        if frames and self.on_frames is not None:
            try:
                self.on_frames(frames)
            except Exception:
                # They are frames, but not ours: whatever wrote them, the process is of no use any more.
                self.close()
                raise
        if self.coalesce and self._paused is None and len(data) < _LARGE_READ_BYTES and not self.closed.done():
            self._loop.remove_reader(self._pipe)
            self._paused = self._loop.call_later(COALESCE_SECONDS, self.resume)

    def resume(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
            self._loop.add_reader(self._pipe, self._read)

    def close(self) -> None:
        if self.closed.done():
            return
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        self.closed.set_result(None)


def memory_kills(root: Path = _ROOT) -> int | None:
    """Processes that the kernel killed for lack of memory so far in our control group, else on the whole machine.

    None where it does not report that. A container is such a group: kills of its neighbours do not count there.
    """
    for counters in _kill_counters(root):
        with suppress(OSError, ValueError):
            for line in counters.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return None


def _kill_counters(root: Path) -> Iterator[Path]:
    """The nearest first. In a container our group may be mounted as if it were the top one."""
    groups = root / "sys/fs/cgroup"
    own: dict[str, str] = {}
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path.strip("/"))
    for place, controller, name in (
        (groups, "", "memory.events"),
        (groups / "memory", "memory", "memory.oom_control"),
    ):
        yield place / own.get(controller, "") / name
        yield place / name
    yield root / "proc/vmstat"
