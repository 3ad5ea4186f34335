"""Sends tasks and waits for their results, from any Python program."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from producer.client import GatewayClient
from producer.client_pool import ClientPool
from producer.dead_filter import DeadLetterFilter
from producer.errors import (
    BrokerUnreachable,
    GatewayUnreachable,
    NoGateway,
    NotAllSent,
    NotFinished,
    Refused,
    SomeRefused,
    TaskFailed,
)
from producer.many_waits import parts, wait_for_part
from producer.outgoing import Given, Outgoing, outgoing
from runnerlib.contract import DeadLettersDone, DeadLetterView, TaskState, TaskSummaryView, TaskView

if TYPE_CHECKING:
    from producer.broker_sender import BrokerSender

#: One request of a wait; the gateway holds none longer than a minute.
_SLICE_SECONDS = 20.0
#: Between two questions that are answered at once: the gateway has not seen the task yet, or what stands before the
#: gateway keeps the wish to wait from it.
_PAUSE_SECONDS = 0.2
#: Tasks in one request or one publish: as many, and as many bytes together.
_PART_TASKS = 1000
_PART_BYTES = 8 * 1024 * 1024


class TaskClient:
    """``with TaskClient("http://127.0.0.1:8000") as client: client.result(client.submit("upper", {"text": "a"}))``.

    With `queue_url` (``amqp://…``) tasks go straight to the broker, and only waiting and cancelling need the gateway.
    The broker does not look into tasks: what the gateway would refuse at once (an unknown algorithm, a payload that
    does not fit) then ends as `failed`. One client may be used by any number of threads. `patience_seconds` is how
    long a call is tried again while a gateway restarts or a broker is away.

    Raises Refused, GatewayUnreachable and BrokerUnreachable, each with a sentence.
    """

    def __init__(self, gateway_url: str = "", *, queue_url: str = "", patience_seconds: float = 10.0) -> None:
        if not gateway_url and not queue_url:
            raise ValueError("name where tasks go: TaskClient('http://HOST:8000'), queue_url='amqp://...', or both")
        self._gateways = ClientPool(gateway_url, patience_seconds=patience_seconds) if gateway_url else None
        self._broker = _broker(queue_url, patience_seconds) if queue_url else None

    def __enter__(self) -> "TaskClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. Ends the broker's thread, if there is one."""
        if self._gateways is not None:
            self._gateways.close()
        if self._broker is not None:
            self._broker.close()

    def submit(
        self, algorithm: str, payload: Any, *, task_id: str | None = None, expires_seconds: float | None = None
    ) -> str:
        """Queues a task and returns its id, once the task is durable.

        With a `task_id` of your own it can be sent again after any error and is still one task. A task that has not
        started `expires_seconds` later fails as `expired`.
        """
        task = outgoing((algorithm, payload), task_id, expires_seconds)
        if self._broker is not None:
            self._broker.send([task])
        else:
            with self._gateway() as gateway:
                gateway.submit(algorithm, payload, task_id=task.id, expires_seconds=expires_seconds)
        return task.id

    def submit_many(self, tasks: Iterable[Given], *, expires_seconds: float | None = None) -> list[str]:
        """Queues tasks, ``("upper", {"text": "a"})`` or messages ``{"algorithm", "payload", "id", …}``, in parts.

        Returns their ids, in order. Raises SomeRefused at the end when some were refused, the others are queued then;
        and NotAllSent when it breaks off, which tells what was queued until then.
        """
        ids: list[str] = []
        accepted: set[int] = set()
        refused: dict[int, Refused] = {}
        for part in _parts(_checked(tasks, expires_seconds, ids, refused)):
            try:
                answers = self._send([*part.values()])
            except (GatewayUnreachable, BrokerUnreachable, Refused) as error:
                raise NotAllSent(error, ids, accepted, set(part), refused) from error
            for position, refusal in zip(part, answers, strict=True):
                if refusal is None:
                    accepted.add(position)
                else:
                    refused[position] = refusal
        if refused:
            raise SomeRefused(ids, refused)
        return ids

    def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        with self._gateway() as gateway:
            return gateway.get(task_id)

    def wait(self, task_id: str, timeout_seconds: float = 60.0) -> TaskView:
        """The task when it has ended, however it ended. Raises NotFinished, a TimeoutError, when the time is over.

        A client with `queue_url` also waits for a task that the gateway has not seen yet.
        """
        end = time.monotonic() + timeout_seconds
        while True:
            asked_at = time.monotonic()
            view = self._look(task_id, max(0.0, min(end - asked_at, _SLICE_SECONDS)))
            if view is not None and view.state.is_terminal:
                return view
            if time.monotonic() >= end:
                raise _not_finished(task_id, view, timeout_seconds)
            pause = _PAUSE_SECONDS - (time.monotonic() - asked_at)
            time.sleep(max(0.0, min(pause, end - time.monotonic())))

    def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> list[TaskView]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        end = time.monotonic() + timeout_seconds
        past_gateway = self._broker is not None
        views: list[TaskView] = []
        for part in parts(task_ids):
            with self._gateway() as gateway:
                found = wait_for_part(gateway, part, end, slice_seconds=_SLICE_SECONDS, unseen_too=past_gateway)
            for task_id in part:
                view = found.get(task_id)
                if view is None and not past_gateway:
                    raise Refused(404, "unknown_task", f"There is no task {task_id!r}.")
                if view is None or not view.state.is_terminal:
                    raise _not_finished(task_id, view, timeout_seconds)
                views.append(view)
        return views

    def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        view = self.wait(task_id, timeout_seconds)
        if view.state is TaskState.SUCCEEDED:
            return view.result
        if view.error is not None:
            raise TaskFailed(f"task {task_id} failed ({view.error.code.value}): {view.error.message}", view)
        raise TaskFailed(f"task {task_id} was {view.state.value}", view)

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Refused: it had ended."""
        with self._gateway() as gateway:
            return gateway.cancel(task_id)

    def tasks(
        self, *, algorithm: str | None = None, states: Iterable[TaskState] = (), limit: int = 100
    ) -> list[TaskSummaryView]:
        """The newest tasks first, without their results."""
        with self._gateway() as gateway:
            return [*gateway.tasks(algorithm=algorithm, states=states, limit=limit)]

    def dead_letters(self, wanted: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetterView]:
        """Failed tasks that wait for a decision, the newest first."""
        with self._gateway() as gateway:
            return [*gateway.dead_letters(wanted, limit=limit)]

    def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id. Refused: it cannot be, or was already."""
        with self._gateway() as gateway:
            return gateway.replay(dead_id)

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        with self._gateway() as gateway:
            return _summed(gateway.replay_many(wanted))

    def discard(self, dead_id: int) -> DeadLetterView:
        """Notes that nothing more shall become of a dead letter. Refused: it was replayed or discarded already."""
        with self._gateway() as gateway:
            return gateway.discard(dead_id)

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        with self._gateway() as gateway:
            return _summed(gateway.discard_many(wanted))

    def _gateway(self) -> AbstractContextManager[GatewayClient]:
        if self._gateways is None:
            raise NoGateway("the broker cannot tell that; give the gateway's address, too: TaskClient('http://...')")
        return self._gateways.lent()

    def _send(self, tasks: list[Outgoing]) -> list[Refused | None]:
        if self._broker is not None:
            self._broker.send(tasks)
            return [None] * len(tasks)
        with self._gateway() as gateway:
            return gateway.submit_batch([task.message for task in tasks])

    def _look(self, task_id: str, wait_seconds: float) -> TaskView | None:
        """None: nobody has seen it yet. What went straight to the broker has no row before it ran."""
        with self._gateway() as gateway:
            try:
                return gateway.get(task_id, wait_seconds=wait_seconds)
            except Refused as error:
                if error.status == 404 and self._broker is not None:
                    return None
                raise


def _broker(queue_url: str, patience_seconds: float) -> "BrokerSender":
    # Here and not above: programs that send by the gateway need not load what speaks to a broker.
    from producer.broker_sender import BrokerSender

    return BrokerSender(queue_url, patience_seconds=patience_seconds)


def _checked(
    tasks: Iterable[Given], expires_seconds: float | None, ids: list[str], refused: dict[int, Refused]
) -> Iterator[tuple[int, Outgoing]]:
    """Those that may go, with their positions. Fills `ids` (empty for one that has none), and `refused`."""
    for position, given in enumerate(tasks):
        try:
            task = outgoing(given, expires_seconds=expires_seconds)
        except Refused as error:
            ids.append("")
            refused[position] = error
        else:
            ids.append(task.id)
            yield position, task


def _parts(tasks: Iterable[tuple[int, Outgoing]]) -> Iterator[dict[int, Outgoing]]:
    part: dict[int, Outgoing] = {}
    size = 0
    for position, task in tasks:
        if part and (len(part) == _PART_TASKS or size + task.size > _PART_BYTES):
            yield part
            part, size = {}, 0
        part[position] = task
        size += task.size
    if part:
        yield part


def _summed(answers: Iterable[DeadLettersDone]) -> DeadLettersDone:
    total = DeadLettersDone(done=0)
    for answer in answers:
        total.done += answer.done
        total.skipped += answer.skipped
    return total


def _not_finished(task_id: str, view: TaskView | None, waited_seconds: float) -> NotFinished:
    if view is None:
        return NotFinished(
            f"nobody has seen task {task_id} after {waited_seconds:g} s; it waits, or was not sent", view
        )
    return NotFinished(f"task {task_id} is {view.state.value} after {waited_seconds:g} s; wait for it again", view)
