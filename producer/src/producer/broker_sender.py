"""Sends tasks straight to the broker: taskqueue's publisher, on an event loop in a thread of its own."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from producer.errors import BrokerUnreachable
from producer.outgoing import Outgoing
from taskqueue.errors import QueueClosed, QueueUnavailable, TaskQueueError
from taskqueue.rabbitmq.queue import RabbitQueue, open_rabbitmq
from taskqueue.tasks import NewTask

#: The loop starts in milliseconds, and closes a connection in two seconds at most.
_THREAD_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05
_MOST_PAUSE_SECONDS = 2.0
_CLOSED = "this client was closed; make another one"


@dataclass(frozen=True, slots=True)
class _Running:
    """What lives in the thread."""

    loop: asyncio.AbstractEventLoop
    queue: RabbitQueue
    stop: asyncio.Event


class BrokerSender:
    """For any number of threads: what they send at the same time shares one window of unconfirmed messages.

    Raises BrokerUnreachable for a URL that cannot be used. A broker that is away is found out by :meth:`send`.
    """

    def __init__(self, queue_url: str, *, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._closed = False
        self._started: concurrent.futures.Future[_Running] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(queue_url,), name="broker sender", daemon=True)
        self._thread.start()
        try:
            self._running = self._started.result(_THREAD_SECONDS)
        except TaskQueueError as error:
            raise BrokerUnreachable(str(error)) from None

    def send(self, tasks: Sequence[Outgoing]) -> None:
        """Returns when the broker has all of them, durably. Asks again until the patience is over."""
        now = time.time()
        new_tasks = [_new_task(task, now) for task in tasks]
        end = time.monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._publish(new_tasks)
                return
            except (QueueClosed, concurrent.futures.CancelledError):
                raise BrokerUnreachable(_CLOSED) from None
            except QueueUnavailable as error:
                if time.monotonic() + pause > end:
                    raise BrokerUnreachable(f"{error} Send the same again, with the same ids.") from None
            time.sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    def close(self) -> None:
        """Who still waits in :meth:`send` gets BrokerUnreachable. Returns when the thread has ended. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._running.loop.call_soon_threadsafe(self._running.stop.set)
        self._thread.join(_THREAD_SECONDS)

    def _publish(self, tasks: Sequence[NewTask]) -> None:
        with self._lock:  # so that nothing is handed to a loop that has ended
            if self._closed:
                raise QueueClosed(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(self._running.queue.publish(tasks), self._running.loop)
        future.result()

    def _run(self, queue_url: str) -> None:
        try:
            asyncio.run(self._live(queue_url))
        except TaskQueueError as error:
            self._started.set_exception(error)

    async def _live(self, queue_url: str) -> None:
        stop = asyncio.Event()
        # It retries nothing, so it needs no delay queues: controllers declare those.
        async with open_rabbitmq(queue_url, retry_steps_seconds=()) as queue:
            self._started.set_result(_Running(asyncio.get_running_loop(), queue, stop))
            await stop.wait()


def _new_task(task: Outgoing, now: float) -> NewTask:
    envelope = task.envelope
    return NewTask(
        id=task.id,
        algorithm=envelope.algorithm,
        payload=envelope.payload,
        digest=envelope.digest,
        expires_at=None if envelope.expires_seconds is None else now + envelope.expires_seconds,
    )
