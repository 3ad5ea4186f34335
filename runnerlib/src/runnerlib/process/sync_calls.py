"""Runs ``def`` handlers in the main thread, one call at a time."""

import time
from queue import SimpleQueue

from runnerlib.adapter.model import Algorithm
from runnerlib.adapter.session import Session, TaskCancelled
from runnerlib.adapter.values import read_arguments
from runnerlib.leftovers import OwnFolder
from runnerlib.process import orders
from runnerlib.process.channel import Channel, Frame
from runnerlib.process.orders import Cancelled, LiveTask, Order


class SyncCalls:
    """`watch_rss`: tell the process's memory after each call."""

    def __init__(self, session: Session, channel: Channel, watch_rss: bool, folder: OwnFolder) -> None:
        self._session = session
        self._channel = channel
        self._watch_rss = watch_rss
        self._folder = folder
        self._cancelled = Cancelled()
        self._inbox: SimpleQueue[Order | None] = SimpleQueue()

    def on_frames(self, frames: list[Frame]) -> None:
        """Called by the reading thread."""
        for header, body in frames:
            kind = header["kind"]
            if kind == "call":
                self._inbox.put(orders.read_order(header, body))
            elif kind == "cancel":
                self._cancelled.add(header["call"], header["at"])
            elif kind == "stop":
                self._inbox.put(None)

    def serve(self) -> None:
        """Until the serving process says stop."""
        while (order := self._inbox.get()) is not None:
            last = self._cleared(self._batch(order)) if order.batch else self._sequence(order)
            self._cancelled.forget(order.call)
            self._channel.send(last + orders.done(order.call, orders.rss_bytes() if self._watch_rss else 0))

    def _sequence(self, order: Order) -> bytes:
        """Each outcome goes out before the next run starts: a death then costs the run in progress only."""
        frame = b""
        for at in range(len(order.ids)):
            if frame:
                self._channel.send(frame)
            ends_at = order.ends_at[at]
            if self._cancelled.has(order.call, at):
                frame = orders.cancelled(order.call, at, 0.0)
            elif ends_at is not None and time.monotonic() >= ends_at:
                frame = orders.failed(order.call, at, 0.0, orders.EXPIRED)
            else:
                frame = self._cleared(self._one(order, at))
        return frame

    def _cleared(self, frame: bytes) -> bytes:
        """Empties the folder for temporary files. What is to go out has gone before: this may take its time."""
        if self._folder.left():
            self._channel.send(frame)
            self._folder.empty()
            return b""
        return frame

    def _one(self, order: Order, at: int) -> bytes:
        algorithm = self._session.algorithms[order.algorithm]
        task = LiveTask(self._channel, self._cancelled, order, at)
        started = time.monotonic()
        try:
            arguments = read_arguments(algorithm, order.payloads[at])
            result = algorithm.encode_result(self._session.call(order.algorithm, arguments, task))
            return orders.succeeded(order.call, at, time.monotonic() - started, result)
        except BaseException as error:  # the outermost level: whatever the author's code raises is this run's outcome
            seconds = time.monotonic() - started
            if isinstance(error, TaskCancelled) and self._cancelled.has(order.call, at):
                return orders.cancelled(order.call, at, seconds)
            return orders.failed(order.call, at, seconds, orders.failure_of(error, algorithm, order.ids[at][0]))
        finally:
            task.close()

    def _batch(self, order: Order) -> bytes:
        algorithm = self._session.algorithms[order.algorithm]
        tasks = [LiveTask(self._channel, self._cancelled, order, at) for at in range(len(order.ids))]
        members, arguments, refused = orders.read_members(algorithm, order)
        if refused:
            self._channel.send(refused)
        started = time.monotonic()
        try:
            values = self._session.call_batch(order.algorithm, arguments, [tasks[at] for at in members])
        except BaseException as error:  # the outermost level: the members run again, one by one
            return orders.batch_failed(order.call, orders.failure_of(error, algorithm, order.ids[0][0]))
        finally:
            for task in tasks:
                task.close()
        return member_outcomes(algorithm, order, members, values, time.monotonic() - started)


def member_outcomes(
    algorithm: Algorithm, order: Order, members: list[int], values: list[object], seconds: float
) -> bytes:
    """One frame for each member that was called; an exception in its place fails that one alone."""
    frames = []
    for at, value in zip(members, values, strict=True):
        try:
            if isinstance(value, BaseException):
                raise value
            frames.append(orders.succeeded(order.call, at, seconds, algorithm.encode_result(value)))
        except BaseException as error:  # the outermost level for this member
            failure = orders.failure_of(error, algorithm, order.ids[at][0])
            frames.append(orders.failed(order.call, at, seconds, failure))
    return b"".join(frames)
