"""Runs handlers: ``def`` ones in the main thread, one call at a time; ``async def`` ones on one event loop.

A call is a sequence, in which each run is a call of the handler, or one call of the batch handler. Whatever the
author's code raises is the outcome of its run; whatever an ``async def`` handler does to the loop must not end others.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from runnerlib.adapter.provided import TaskCancelled
from runnerlib.adapter.session import Session
from runnerlib.adapter.values import classify, encode_result, read_arguments
from runnerlib.contract import FailureCode, RunError
from runnerlib.frames import (
    BATCH_FAILED,
    CALL,
    CANCEL,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    STOP,
    SUCCEEDED,
    Frame,
    encode,
)
from runnerlib.leftovers import OwnFolder
from runnerlib.process.ipc import CallRequest, Cancelled, LiveTask, WorkerConnection, read_call, rss_bytes
from runnerlib.service.logs import get_logger

T = TypeVar("T")
log = get_logger("runnerlib.process")

_EXPIRED = (
    RunError(code=FailureCode.EXPIRED.value, message="the task's deadline passed before it could start")
    .model_dump_json()
    .encode()
)


class _Calls:
    """What both kinds share. `watch_rss`: report the process's memory after each call."""

    def __init__(self, session: Session, connection: WorkerConnection, watch_rss: bool, folder: OwnFolder) -> None:
        self._session = session
        self._connection = connection
        self._watch_rss = watch_rss
        self._folder = folder
        self._cancelled = Cancelled()

    def _done(self, request: CallRequest) -> bytes:
        self._cancelled.forget(request.call)
        self._connection.check()
        return encode(DONE, request.call, value=rss_bytes() if self._watch_rss else 0)

    def _batch_arguments(self, request: CallRequest) -> tuple[list[int], list[dict[str, Any]]]:
        """Which members of a batch can be called, with their arguments. Sends the outcomes of the others."""
        algorithm = self._session.algorithms[request.algorithm]
        members, arguments, frames = [], [], []
        for at, payload in enumerate(request.payloads):
            started = time.monotonic()
            try:
                arguments.append(read_arguments(algorithm, payload))
                members.append(at)
            except BaseException as error:  # the outermost level for this member: its neighbours are called
                frames.append(self._failed(request, at, time.monotonic() - started, error))
        if frames:
            self._connection.send(b"".join(frames))
        return members, arguments

    def _batch_outcomes(self, request: CallRequest, members: list[int], values: list[object], seconds: float) -> bytes:
        """One frame for each member that was called; an exception in its place fails that one alone."""
        algorithm = self._session.algorithms[request.algorithm]
        frames = []
        for at, value in zip(members, values, strict=True):
            try:
                if isinstance(value, BaseException):
                    raise value
                frames.append(encode(SUCCEEDED, request.call, at, seconds, encode_result(algorithm, value)))
            except BaseException as error:  # the outermost level for this member
                frames.append(self._failed(request, at, seconds, error))
        return b"".join(frames)

    def _failed(self, request: CallRequest, at: int, seconds: float, error: BaseException) -> bytes:
        return encode(FAILED, request.call, at, seconds, self._error(request, at, error))

    def _error(self, request: CallRequest, at: int, error: BaseException) -> bytes:
        """The RunError for the caller, as JSON. The traceback is logged."""
        classified = classify(error, self._session.algorithms[request.algorithm].options)
        about = {"algorithm": request.algorithm, "task_id": request.ids[at][0], "error": classified.message}
        if classified.code == FailureCode.INVALID_PAYLOAD.value:
            log.info("a payload does not fit", **about)
        else:
            log.warning("a handler failed", **about, code=classified.code, traceback=classified.traceback)
        return classified.model_dump_json().encode()


class SyncCalls(_Calls):
    """Calls ``def`` handlers."""

    def __init__(self, session: Session, connection: WorkerConnection, watch_rss: bool, folder: OwnFolder) -> None:
        super().__init__(session, connection, watch_rss, folder)
        self._inbox: SimpleQueue[CallRequest | None] = SimpleQueue()

    def on_frames(self, frames: list[Frame]) -> None:
        """Called by the reading thread."""
        for kind, call, at, _, body in frames:
            if kind == CALL:
                self._inbox.put(read_call(call, body))
            elif kind == CANCEL:
                self._cancelled.add(call, at)
            elif kind == STOP:
                self._inbox.put(None)

    def serve(self) -> None:
        """Serves until the serving process sends `stop`."""
        while (request := self._inbox.get()) is not None:
            last = self._cleared(self._batch(request)) if request.batch else self._sequence(request)
            self._connection.send(last + self._done(request))

    def _sequence(self, request: CallRequest) -> bytes:
        """Each outcome is sent before the next run starts: a death then costs the run in progress only."""
        frame = b""
        for at in range(len(request.payloads)):
            if frame:
                self._connection.send(frame)
            ends_at = request.ends_at[at]
            if self._cancelled.has(request.call, at):
                frame = encode(CANCELLED, request.call, at)
            elif ends_at is not None and time.monotonic() >= ends_at:
                frame = encode(FAILED, request.call, at, body=_EXPIRED)
            else:
                frame = self._cleared(self._one(request, at))
        return frame

    def _cleared(self, frame: bytes) -> bytes:
        """Empties the folder for temporary files. That may take long, so the frame is sent before it."""
        if self._folder.left():
            self._connection.send(frame)
            self._folder.empty()
            return b""
        return frame

    def _one(self, request: CallRequest, at: int) -> bytes:
        algorithm = self._session.algorithms[request.algorithm]
        needs_task = self._session.uses_task(request.algorithm)
        task = LiveTask(self._connection, self._cancelled, request, at) if needs_task else None
        started = time.monotonic()
        try:
            arguments = read_arguments(algorithm, request.payloads[at])
            result = encode_result(algorithm, self._session.call(request.algorithm, arguments, task))
            return encode(SUCCEEDED, request.call, at, time.monotonic() - started, result)
        except BaseException as error:  # the outermost level: whatever the author's code raises is this run's outcome
            seconds = time.monotonic() - started
            if isinstance(error, TaskCancelled) and self._cancelled.has(request.call, at):
                return encode(CANCELLED, request.call, at, seconds)
            return self._failed(request, at, seconds, error)
        finally:
            if task is not None:
                task.close()

    def _batch(self, request: CallRequest) -> bytes:
        tasks = [LiveTask(self._connection, self._cancelled, request, at) for at in range(len(request.payloads))]
        members, arguments = self._batch_arguments(request)
        started = time.monotonic()
        try:
            values = self._session.call_batch(request.algorithm, arguments, [tasks[at] for at in members])
        except BaseException as error:  # the outermost level: the members run again, one by one
            return encode(BATCH_FAILED, request.call, body=self._error(request, 0, error))
        finally:
            for task in tasks:
                task.close()
        return self._batch_outcomes(request, members, values, time.monotonic() - started)


class AsyncCalls(_Calls):
    """Calls ``async def`` handlers, as many at once as the serving process sends."""

    def __init__(
        self,
        session: Session,
        connection: WorkerConnection,
        watch_rss: bool,
        loop: asyncio.AbstractEventLoop,
        folder: OwnFolder,
    ) -> None:
        super().__init__(session, connection, watch_rss, folder)
        self._loop = loop
        self._running: dict[int, asyncio.Task[bytes]] = {}
        self._out: list[bytes] = []
        self._stopping = False

    def on_frames(self, frames: list[Frame]) -> None:
        """Called by the reading thread."""
        for kind, call, at, *_ in frames:
            if kind == CANCEL:
                # Here and not on the loop, which a handler may be blocking.
                self._cancelled.add(call, at)
        self._loop.call_soon_threadsafe(self._handle, frames)

    def serve(self) -> None:
        """Serves until the serving process sends `stop`. No asyncio task does this: a handler could cancel it."""
        run_until(self._loop, lambda: self._stopping)
        run_to_its_end(self._loop, self._end_calls())
        self._flush()

    async def _end_calls(self) -> None:
        left = list(self._running.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _handle(self, frames: list[Frame]) -> None:
        for kind, call, _, _, body in frames:
            if kind == CALL:
                request = read_call(call, body)
                answer = self._batch(request) if request.batch else self._one(request)
                task = self._running[request.call] = self._loop.create_task(answer)
                task.add_done_callback(partial(self._ended, request))
            elif kind == CANCEL and call in self._running:
                self._running[call].cancel()
            elif kind == STOP:
                self._stopping = True
                self._loop.stop()

    def _ended(self, request: CallRequest, task: "asyncio.Task[bytes]") -> None:
        """Here and not at the end of the task, which may be cancelled before it begins."""
        if not task.cancelled():
            frame = task.result()
        elif self._was_asked(request):
            frame = encode(CANCELLED, request.call)
        else:
            frame = encode(INTERRUPTED, request.call)
        self._running.pop(request.call, None)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame + self._done(request))
        if not self._running:
            try:
                self._folder.empty()
            except Exception:  # the answer is sent whatever becomes of what the call left
                log.exception("what a call left could not be removed")

    def _was_asked(self, request: CallRequest) -> bool:
        return self._cancelled.has(request.call, 0) or self._stopping

    def _flush(self) -> None:
        """Sends together what ended in one turn of the loop."""
        frames, self._out = self._out, []
        if frames:
            self._connection.send(b"".join(frames))

    async def _one(self, request: CallRequest) -> bytes:
        algorithm = self._session.algorithms[request.algorithm]
        task = LiveTask(self._connection, self._cancelled, request, 0)
        started = time.monotonic()
        try:
            arguments = read_arguments(algorithm, request.payloads[0])
            value = await self._session.call_async(request.algorithm, arguments, task)
            return encode(SUCCEEDED, request.call, 0, time.monotonic() - started, encode_result(algorithm, value))
        except BaseException as error:  # the outermost level: whatever the author's code raises is this run's outcome
            seconds = time.monotonic() - started
            if isinstance(error, TaskCancelled | asyncio.CancelledError) and self._was_asked(request):
                return encode(CANCELLED, request.call, 0, seconds)
            if isinstance(error, asyncio.CancelledError) and _was_cancelled():
                return encode(INTERRUPTED, request.call)
            return self._failed(request, 0, seconds, error)
        finally:
            task.close()

    async def _batch(self, request: CallRequest) -> bytes:
        tasks = [LiveTask(self._connection, self._cancelled, request, at) for at in range(len(request.payloads))]
        members, arguments = self._batch_arguments(request)
        started = time.monotonic()
        try:
            values = await self._session.call_batch_async(request.algorithm, arguments, [tasks[at] for at in members])
        except BaseException as error:  # the outermost level: the members run again, one by one
            if isinstance(error, asyncio.CancelledError) and not self._was_asked(request) and _was_cancelled():
                return encode(INTERRUPTED, request.call)
            return encode(BATCH_FAILED, request.call, body=self._error(request, 0, error))
        finally:
            for task in tasks:
                task.close()
        return self._batch_outcomes(request, members, values, time.monotonic() - started)


def _was_cancelled() -> bool:
    """Whether the current asyncio task was cancelled; if not, its handler raised CancelledError by itself."""
    task = asyncio.current_task()
    assert task is not None
    # Python 3.10 does not know.
    return sys.version_info < (3, 11) or task.cancelling() > 0


def run_until(loop: asyncio.AbstractEventLoop, is_done: Callable[[], bool]) -> None:
    """Runs the loop until `is_done`, whatever a handler does to it. Who makes it true stops the loop.

    asyncio raises SystemExit and KeyboardInterrupt of any task out of the loop; they are the outcome of whoever awaits
    that task, and the loop goes on.
    """
    while not is_done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            # What had not run in this turn of the loop stays in its queue.
            log.warning("a task that a handler started asked the process to end; the others go on", error=repr(error))


def run_to_its_end(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs the loop until `coroutine` has ended; returns its result."""
    task = loop.create_task(coroutine)
    task.add_done_callback(lambda _: loop.stop())
    run_until(loop, task.done)
    return task.result()


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels what handlers left behind, and closes the loop."""

    async def cancel_all() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()

    run_to_its_end(loop, cancel_all())
    loop.close()
