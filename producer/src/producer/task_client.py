"""Sends tasks and waits for their results, from any Python program."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from producer import calls, steps
from producer.dead_filter import DeadLetterFilter
from producer.errors import CLOSED, GatewayUnreachable, NoGateway
from producer.models import DeadLettersDone, DeadLetterView, TaskState, TaskSummaryView, TaskView
from producer.outgoing import Given, outgoing
from producer.transport import Transport

if TYPE_CHECKING:
    from producer.broker_sender import BrokerSender

T = TypeVar("T")


class TaskClient:
    """``with TaskClient("http://127.0.0.1:8000") as client: client.result(client.submit("upper", {"text": "a"}))``.

    With `queue_url` (``amqp://…``) tasks go straight to the broker, and only waiting and cancelling need the gateway.
    The broker does not look into tasks: what the gateway would refuse at once (an unknown algorithm, a payload that
    does not fit) then ends as `failed`. One client may be used by any number of threads, and after a fork by each of
    the processes. `patience_seconds` is how long a call is tried again while a gateway restarts or a broker is away.

    Raises Refused, GatewayUnreachable and BrokerUnreachable, each with a sentence.
    """

    def __init__(self, gateway_url: str = "", *, queue_url: str = "", patience_seconds: float = 10.0) -> None:
        if not gateway_url and not queue_url:
            raise ValueError(nowhere(type(self).__name__))
        self._transports = _Transports(gateway_url, patience_seconds)
        self._broker = broker_sender(queue_url, patience_seconds) if queue_url else None

    def __enter__(self) -> "TaskClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. Ends the broker's thread, if there is one."""
        self._transports.close()
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
        self._do(calls.send(task, to_broker=self._broker is not None))
        return task.id

    def submit_many(self, tasks: Iterable[Given], *, expires_seconds: float | None = None) -> list[str]:
        """Queues tasks, ``("upper", {"text": "a"})`` or messages ``{"algorithm", "payload", "id", …}``, in parts.

        Returns their ids, in order. Raises SomeRefused at the end when some were refused, the others are queued then;
        and NotAllSent when it breaks off, which tells what was queued until then.
        """
        return self._do(calls.submit_many(tasks, expires_seconds, to_broker=self._broker is not None))

    def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        return self._do(calls.get(task_id))

    def wait(self, task_id: str, timeout_seconds: float = 60.0) -> TaskView:
        """The task when it has ended, however it ended. Raises NotFinished, a TimeoutError, when the time is over.

        A client with `queue_url` also waits for a task that the gateway has not seen yet.
        """
        return self._do(calls.wait(task_id, timeout_seconds, unseen_too=self._broker is not None))

    def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> list[TaskView]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        return self._do(calls.wait_many(task_ids, timeout_seconds, unseen_too=self._broker is not None))

    def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        return self._do(calls.result(task_id, timeout_seconds, unseen_too=self._broker is not None))

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Refused: it had ended."""
        return self._do(calls.cancel(task_id))

    def tasks(
        self, *, algorithm: str | None = None, states: Iterable[TaskState] = (), limit: int = 100
    ) -> list[TaskSummaryView]:
        """The newest tasks first, without their results."""
        return self._do(calls.tasks(calls.tasks_query(algorithm, states), limit))

    def dead_letters(self, wanted: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetterView]:
        """Failed tasks that wait for a decision, the newest first."""
        return self._do(calls.dead_letters(wanted, limit))

    def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id. Refused: it cannot be, or was already."""
        return self._do(calls.replay(dead_id))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        return self._do(calls.settle_many(calls.REPLAY_MANY, wanted))

    def discard(self, dead_id: int) -> DeadLetterView:
        """Notes that nothing more shall become of a dead letter. Refused: it was replayed or discarded already."""
        return self._do(calls.discard(dead_id))

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """The same for these, or for all open ones that are wanted: how many, and which were skipped and why."""
        return self._do(calls.settle_many(calls.DISCARD_MANY, wanted))

    def _do(self, call: steps.Call[T]) -> T:
        return steps.outcome_of(call, self._step)

    def _step(self, step: steps.Step) -> Any:
        match step:
            case steps.Ask():
                return self._transports.ask(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return self._broker.send(step.tasks)
            case steps.Pause():
                time.sleep(step.seconds)
        return None


class _Transports:
    """As many connections as calls are under way; they are kept open for the next calls."""

    def __init__(self, url: str, patience_seconds: float) -> None:
        self._url = url
        self._patience_seconds = patience_seconds
        self._free: deque[Transport] = deque()
        self._closed = False

    def ask(self, ask: steps.Ask) -> Any:
        if not self._url:
            raise no_gateway("TaskClient")
        if self._closed:
            raise GatewayUnreachable(CLOSED)
        try:
            transport = self._free.pop()
        except IndexError:
            transport = Transport(self._url, patience_seconds=self._patience_seconds)
        try:
            return transport.ask(ask)
        finally:
            self._free.append(transport)
            if self._closed:
                self._close_free()

    def close(self) -> None:
        """Those that are in use are closed afterwards. Idempotent."""
        self._closed = True
        self._close_free()

    def _close_free(self) -> None:
        while self._free:
            try:
                self._free.pop().close()
            except IndexError:  # another thread closes them, too
                return


def nowhere(client: str) -> str:
    return f"name where tasks go: {client}('http://HOST:8000'), queue_url='amqp://...', or both"


def no_gateway(client: str) -> NoGateway:
    return NoGateway(f"the broker cannot tell that; give the gateway's address, too: {client}('http://...')")


def broker_sender(queue_url: str, patience_seconds: float) -> "BrokerSender":
    """Here and not above: programs that send by the gateway need not have what speaks to a broker."""
    try:
        from producer.broker_sender import BrokerSender
    except ModuleNotFoundError as error:
        raise ImportError(
            f"sending straight to a broker needs more packages ({error.name} is missing); from a checkout: "
            "pip install ./runnerlib ./taskqueue './producer[broker]'"
        ) from None
    return BrokerSender(queue_url, patience_seconds=patience_seconds)
