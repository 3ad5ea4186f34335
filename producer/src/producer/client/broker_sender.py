"""Sends tasks straight to the broker: taskqueue's publisher, on an event loop in a thread of its own."""

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from producer.client.steps import TaskMessage, retry_pauses
from producer.errors import CLOSED, BrokerUnreachable, Refused
from runnerlib.contract import EnvelopeError, FailureCode, parse_envelope
from runnerlib.contract.envelope import MAX_MESSAGE_BYTES
from taskqueue.errors import QueueClosed, QueueUnavailable, TaskQueueError
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.queue import RabbitQueue, open_rabbitmq
from taskqueue.tasks import NewTask

#: The loop starts in milliseconds, and closes a connection in two seconds at most.
_THREAD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Running:
    """What runs in the thread."""

    loop: asyncio.AbstractEventLoop
    queue: RabbitQueue
    stop: asyncio.Event
    thread: threading.Thread


class BrokerSender:
    """For any number of threads: what they send at the same time shares one window of unconfirmed messages.

    After a fork the child connects by itself: its parent's thread does not run in it. Raises BrokerUnreachable for a
    URL that cannot be used; only :meth:`send` finds out whether the broker is there.
    """

    def __init__(self, queue_url: str, *, patience_seconds: float) -> None:
        try:
            parse_queue_url(queue_url)
        except TaskQueueError as error:
            raise BrokerUnreachable(str(error)) from None
        self._queue_url = queue_url
        self._patience_seconds = patience_seconds
        #: By process id. Those of other processes are never touched: threads that held their locks are not here.
        self._publishers: dict[int, _Publisher] = {}
        self._closed = False

    def send(self, tasks: Sequence[TaskMessage]) -> list[Refused | None]:
        """A refusal or None for each. Returns when the broker has the others durably; retries as long as the patience
        lasts."""
        now = time.time()
        read = [_new_task(task, now) for task in tasks]
        if new_tasks := [task for task in read if isinstance(task, NewTask)]:
            self._publish(new_tasks)
        return [task if isinstance(task, Refused) else None for task in read]

    def _publish(self, new_tasks: list[NewTask]) -> None:
        # Counted from here, also the time that the first attempt waits for a connection.
        pauses = retry_pauses(self._patience_seconds, time.monotonic())
        while True:
            try:
                self._own_publisher().publish(new_tasks)
                return
            except (QueueClosed, concurrent.futures.CancelledError):
                raise BrokerUnreachable(CLOSED) from None
            except QueueUnavailable as error:
                if (pause := next(pauses, None)) is None:
                    raise BrokerUnreachable(f"{error} Send the same again, with the same ids.") from None
            time.sleep(pause)

    def close(self) -> None:
        """Calls of :meth:`send` in progress raise BrokerUnreachable. Returns when the thread has ended. Idempotent."""
        self._closed = True
        self._own_publisher().close()

    def _own_publisher(self) -> "_Publisher":
        publisher = self._publishers.setdefault(os.getpid(), _Publisher(self._queue_url))
        if self._closed:
            publisher.close()
        return publisher


class _Publisher:
    """An event loop with a connection to the broker, in a thread that starts with the first tasks."""

    def __init__(self, queue_url: str) -> None:
        self._queue_url = queue_url
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    def publish(self, tasks: Sequence[NewTask]) -> None:
        """Raises QueueUnavailable, QueueClosed and CancelledError."""
        with self._lock:  # so that nothing is handed to a loop that has ended
            if self._closed:
                raise QueueClosed(CLOSED)
            self._running = running = self._running or self._start()
            future = asyncio.run_coroutine_threadsafe(running.queue.publish(tasks), running.loop)
        future.result()

    def close(self) -> None:
        with self._lock:
            is_first, self._closed = not self._closed, True
            running = self._running
            if running is not None and is_first:
                running.loop.call_soon_threadsafe(running.stop.set)
        if running is not None:
            running.thread.join(_THREAD_SECONDS)

    def _start(self) -> _Running:
        started: concurrent.futures.Future[_Running] = concurrent.futures.Future()
        threading.Thread(target=self._run, args=(started,), name="broker sender", daemon=True).start()
        try:
            return started.result(_THREAD_SECONDS)
        except TimeoutError:
            raise QueueUnavailable(f"The broker's thread did not start within {_THREAD_SECONDS:.0f} s.") from None

    def _run(self, started: "concurrent.futures.Future[_Running]") -> None:
        try:
            asyncio.run(self._live(started))
        except TaskQueueError as error:
            started.set_exception(error)

    async def _live(self, started: "concurrent.futures.Future[_Running]") -> None:
        stop = asyncio.Event()
        # A sender retries no tasks, so it needs no delay queues: controllers declare those.
        async with open_rabbitmq(self._queue_url, retry_steps_seconds=()) as queue:
            started.set_result(_Running(asyncio.get_running_loop(), queue, stop, threading.current_thread()))
            await stop.wait()


def _new_task(task: TaskMessage, now: float) -> NewTask | Refused:
    """Checks the message here: no gateway sees it before the broker has it."""
    try:
        envelope = parse_envelope(task.body, max_bytes=MAX_MESSAGE_BYTES)
    except EnvelopeError as error:
        status = 413 if error.code is FailureCode.TOO_LARGE else 400
        return Refused(status, error.code.value, str(error))
    if envelope.unknown:
        return Refused(422, "invalid_request", envelope.unknown[0].sentence)
    return NewTask(
        id=task.id,
        algorithm=envelope.algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        expires_at=None if envelope.expires_seconds is None else now + envelope.expires_seconds,
        group=envelope.group,
        not_before=None if envelope.delay_seconds is None else now + envelope.delay_seconds,
    )
