"""Runs ``async def`` handlers on one event loop, as many calls at once as the serving process sends."""

import asyncio
import time

from runnerlib.adapter.payloads import read_arguments
from runnerlib.adapter.session import Session, TaskCancelled
from runnerlib.process import orders
from runnerlib.process.channel import Channel, Frame
from runnerlib.process.orders import Cancelled, LiveTask, Order
from runnerlib.process.sync_calls import member_outcomes


class AsyncCalls:
    """`watch_rss`: tell the process's memory after each call."""

    def __init__(self, session: Session, channel: Channel, watch_rss: bool, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._channel = channel
        self._watch_rss = watch_rss
        self._loop = loop
        self._cancelled = Cancelled()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._out: list[bytes] = []
        self._stop = asyncio.Event()

    def on_frames(self, frames: list[Frame]) -> None:
        """Called by the reading thread."""
        for header, _ in frames:
            if header["kind"] == "cancel":
                # Here and not on the loop, which a handler may be blocking.
                self._cancelled.add(header["call"], header["at"])
        self._loop.call_soon_threadsafe(self._handle, frames)

    async def serve(self) -> None:
        """Until the serving process says stop."""
        await self._stop.wait()
        left = list(self._running.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        self._flush()

    def _handle(self, frames: list[Frame]) -> None:
        for header, body in frames:
            kind = header["kind"]
            if kind == "call":
                order = orders.read_order(header, body)
                self._running[order.call] = self._loop.create_task(self._call(order))
            elif kind == "cancel" and header["call"] in self._running:
                # Not at once: a call that came just before has not begun, and would end without a word.
                self._loop.call_soon(self._running[header["call"]].cancel)
            elif kind == "stop":
                self._stop.set()

    async def _call(self, order: Order) -> None:
        frame = await (self._batch(order) if order.batch else self._one(order))
        self._running.pop(order.call, None)
        self._cancelled.forget(order.call)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame + orders.done(order.call, orders.rss_bytes() if self._watch_rss else 0))

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
            asked = self._cancelled.has(order.call, 0) or self._stop.is_set()
            if isinstance(error, TaskCancelled | asyncio.CancelledError) and asked:
                return orders.cancelled(order.call, 0, seconds)
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
            return orders.batch_failed(order.call, orders.failure_of(error, algorithm, order.ids[0][0]))
        finally:
            for task in tasks:
                task.close()
        return member_outcomes(algorithm, order, members, values, time.monotonic() - started)
