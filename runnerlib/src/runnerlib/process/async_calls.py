"""Runs ``async def`` handlers on one event loop, as many calls at once as the serving process sends.

The loop is everybody's, so one handler must not end it for the others: what is raised out of it (asyncio does that with
SystemExit and KeyboardInterrupt of any task) is the outcome of whoever awaits that task, and the loop goes on.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from runnerlib.adapter.session import Session, TaskCancelled
from runnerlib.adapter.values import read_arguments
from runnerlib.leftovers import OwnFolder
from runnerlib.process import orders
from runnerlib.process.channel import Channel, Frame
from runnerlib.process.orders import Cancelled, LiveTask, Order
from runnerlib.process.sync_calls import member_outcomes
from runnerlib.service.logs import get_logger

T = TypeVar("T")
log = get_logger("runnerlib.process")


def run_until(loop: asyncio.AbstractEventLoop, is_done: Callable[[], bool]) -> None:
    """Runs the loop until `is_done`, whatever a handler does to it. Who makes it true stops the loop."""
    while not is_done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            # What had not run in this turn of the loop stays in its queue.
            log.warning("a task that a handler started asked the process to end; the others go on", error=repr(error))


def run_to_its_end(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """What `coroutine` returns."""
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


class AsyncCalls:
    """`watch_rss`: tell the process's memory after each call."""

    def __init__(
        self,
        session: Session,
        channel: Channel,
        watch_rss: bool,
        loop: asyncio.AbstractEventLoop,
        folder: OwnFolder,
    ) -> None:
        self._session = session
        self._channel = channel
        self._watch_rss = watch_rss
        self._loop = loop
        self._folder = folder
        self._cancelled = Cancelled()
        self._running: dict[int, asyncio.Task[bytes]] = {}
        self._out: list[bytes] = []
        self._stopping = False

    def on_frames(self, frames: list[Frame]) -> None:
        """Called by the reading thread."""
        for header, _ in frames:
            if header["kind"] == "cancel":
                # Here and not on the loop, which a handler may be blocking.
                self._cancelled.add(header["call"], header["at"])
        self._loop.call_soon_threadsafe(self._handle, frames)

    def serve(self) -> None:
        """Until the serving process says stop. There is no task for this, which a handler could cancel."""
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
        for header, body in frames:
            kind = header["kind"]
            if kind == "call":
                order = orders.read_order(header, body)
                task = self._running[order.call] = self._loop.create_task(self._call(order))
                task.add_done_callback(partial(self._ended, order))
            elif kind == "cancel" and header["call"] in self._running:
                self._running[header["call"]].cancel()
            elif kind == "stop":
                self._stopping = True
                self._loop.stop()

    async def _call(self, order: Order) -> bytes:
        return await (self._batch(order) if order.batch else self._one(order))

    def _ended(self, order: Order, task: "asyncio.Task[bytes]") -> None:
        """Here and not at the end of the task, which may be cancelled before it begins."""
        frame = self._unanswered(order) if task.cancelled() else task.result()
        self._running.pop(order.call, None)
        self._cancelled.forget(order.call)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame + orders.done(order.call, orders.rss_bytes() if self._watch_rss else 0))
        if not self._running:
            try:
                self._folder.empty()
            except Exception:  # the answer goes out whatever becomes of what the call left
                log.exception("what a call left could not be removed")

    def _was_asked(self, order: Order) -> bool:
        return self._cancelled.has(order.call, 0) or self._stopping

    def _unanswered(self, order: Order) -> bytes:
        return orders.cancelled(order.call, 0, 0.0) if self._was_asked(order) else orders.interrupted(order.call)

    def _flush(self) -> None:
        """What ended in one turn of the loop goes out together."""
        frames, self._out = self._out, []
        if frames:
            self._channel.send(b"".join(frames))

    async def _one(self, order: Order) -> bytes:
        algorithm = self._session.algorithms[order.algorithm]
        task = LiveTask(self._channel, self._cancelled, order, 0)
        started = time.monotonic()
        try:
            arguments = read_arguments(algorithm, order.payloads[0])
            value = await self._session.call_async(order.algorithm, arguments, task)
            return orders.succeeded(order.call, 0, time.monotonic() - started, algorithm.encode_result(value))
        except BaseException as error:  # the outermost level: whatever the author's code raises is this run's outcome
            seconds = time.monotonic() - started
            if isinstance(error, TaskCancelled | asyncio.CancelledError) and self._was_asked(order):
                return orders.cancelled(order.call, 0, seconds)
            if isinstance(error, asyncio.CancelledError) and _was_cancelled():
                return orders.interrupted(order.call)
            return orders.failed(order.call, 0, seconds, orders.failure_of(error, algorithm, order.ids[0][0]))
        finally:
            task.close()

    async def _batch(self, order: Order) -> bytes:
        algorithm = self._session.algorithms[order.algorithm]
        tasks = [LiveTask(self._channel, self._cancelled, order, at) for at in range(len(order.ids))]
        members, arguments, refused = orders.read_members(algorithm, order)
        if refused:
            self._channel.send(refused)
        started = time.monotonic()
        try:
            values = await self._session.call_batch_async(order.algorithm, arguments, [tasks[at] for at in members])
        except BaseException as error:  # the outermost level: the members run again, one by one
            if isinstance(error, asyncio.CancelledError) and not self._was_asked(order) and _was_cancelled():
                return orders.interrupted(order.call)
            return orders.batch_failed(order.call, orders.failure_of(error, algorithm, order.ids[0][0]))
        finally:
            for task in tasks:
                task.close()
        return member_outcomes(algorithm, order, members, values, time.monotonic() - started)


def _was_cancelled() -> bool:
    """Whether somebody cancelled the task that runs now; if not, its handler raised CancelledError by itself."""
    task = asyncio.current_task()
    assert task is not None
    # Python 3.10 does not tell.
    return sys.version_info < (3, 11) or task.cancelling() > 0
