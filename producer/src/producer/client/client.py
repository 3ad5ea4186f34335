"""The blocking clients: TaskClient for programs, and GatewayClient with one method for each call of the gateway."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from producer.client import calls, steps
from producer.client.steps import TaskInput, task_message
from producer.client.transport import Transport
from producer.errors import NoGateway, Refused
from producer.models import (
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLettersDone,
    DeadLetterView,
    TaskState,
    TaskSummaryView,
    TaskView,
)

if TYPE_CHECKING:
    from producer.client.broker_sender import BrokerSender

T = TypeVar("T")

#: Longest wait of one request; short enough to show progress meanwhile.
_POLL_SECONDS = 1.0


class _BlockingClient:
    """What both clients share: connections, the steps of a call, and the calls that are the same."""

    def __init__(self, transport: Transport, broker: "BrokerSender | None" = None) -> None:
        self._transport = transport
        self._broker = broker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections, and ends the broker's thread if there is one. Idempotent."""
        self._transport.close()
        if self._broker is not None:
            self._broker.close()

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Raises Refused if it had ended."""
        return self._outcome(calls.cancel(task_id))

    def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id.

        Raises Refused if that is impossible, or was done already.
        """
        return self._outcome(calls.replay(dead_id))

    def discard(self, dead_id: int) -> DeadLetterView:
        """Closes a dead letter without running its task again. Raises Refused if it was replayed or discarded."""
        return self._outcome(calls.discard(dead_id))

    def _outcome(self, call: steps.Call[T], on_value: Callable[[Any], None] = lambda _: None) -> T:
        return steps.outcome_of(call, self._perform, on_value)

    def _perform(self, step: steps.Step) -> Any:
        match step:
            case steps.Request():
                return self._transport.send(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return self._broker.send(step.tasks)
            case steps.Sleep():
                time.sleep(step.seconds)
        return None


class TaskClient(_BlockingClient):
    """``with TaskClient("http://127.0.0.1:8000") as client: client.result(client.submit("upper", {"text": "a"}))``.

    With `queue_url` (``amqp://…``) tasks go straight to the broker, and only waiting and cancelling need the gateway.
    The broker does not look into tasks: what the gateway would refuse at once (an unknown algorithm, a payload that
    does not fit) then ends as `failed`. One client may be used by any number of threads, and after a fork by each of
    the processes. `patience_seconds` is how long a call is tried again while a gateway restarts or a broker is away.

    Raises Refused, GatewayUnreachable and BrokerUnreachable, each with a sentence.
    """

    def __init__(self, gateway_url: str = "", *, queue_url: str = "", patience_seconds: float = 10.0) -> None:
        if not gateway_url and not queue_url:
            raise ValueError(no_address(type(self).__name__))
        broker = broker_sender(queue_url, patience_seconds) if queue_url else None
        super().__init__(Transport(gateway_url, patience_seconds=patience_seconds), broker)
        self._by_broker = broker is not None

    def submit(
        self, algorithm: str, payload: Any, *, task_id: str | None = None, expires_seconds: float | None = None
    ) -> str:
        """Queues a task and returns its id, once the task is durable.

        With a `task_id` of your own it can be sent again after any error and is still one task. A task that has not
        started `expires_seconds` later fails as `expired`.
        """
        return self._outcome(calls.send((algorithm, payload), task_id, expires_seconds, by_broker=self._by_broker))

    def submit_many(self, tasks: Iterable[TaskInput], *, expires_seconds: float | None = None) -> list[str]:
        """Queues tasks, ``("upper", {"text": "a"})`` or messages ``{"algorithm", "payload", "id", …}``, in parts.

        Returns their ids, in order. Raises SomeRefused at the end when some were refused, the others are queued then;
        and NotAllSent when sending breaks off, which says what was queued until then.
        """
        return self._outcome(calls.submit_many(tasks, expires_seconds, by_broker=self._by_broker))

    def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        return self._outcome(calls.get(task_id))

    def wait(self, task_id: str, timeout_seconds: float = 60.0) -> TaskView:
        """The task when it has ended, whatever its state. Raises NotFinished, a TimeoutError, when the time is over.

        A client with `queue_url` also waits for a task that the gateway has not seen yet.
        """
        return self._outcome(calls.wait(task_id, timeout_seconds, by_broker=self._by_broker))

    def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> list[TaskView]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        return self._outcome(calls.wait_many(task_ids, timeout_seconds, by_broker=self._by_broker))

    def result(self, task_id: str, timeout_seconds: float = 60.0) -> Any:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        return self._outcome(calls.result(task_id, timeout_seconds, by_broker=self._by_broker))

    def tasks(
        self, *, algorithm: str | None = None, states: Iterable[TaskState] = (), limit: int = 100
    ) -> list[TaskSummaryView]:
        """The newest tasks first, without their results."""
        return self._outcome(calls.tasks(algorithm, states, limit))

    def dead_letters(self, wanted: DeadLetterFilter | None = None, *, limit: int = 100) -> list[DeadLetterView]:
        """Failed tasks that wait for a decision, the newest first."""
        return self._outcome(calls.dead_letters(wanted, limit))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """Replays these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return self._outcome(calls.settle_many(calls.REPLAY_MANY, wanted))

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> DeadLettersDone:
        """Discards these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return self._outcome(calls.settle_many(calls.DISCARD_MANY, wanted))

    def _perform(self, step: steps.Step) -> Any:
        if isinstance(step, steps.Request) and not self._transport.url:
            raise no_gateway("TaskClient")
        return super()._perform(step)


class GatewayClient(_BlockingClient):
    """``with GatewayClient("http://127.0.0.1:8000") as client: client.wait(client.submit("upper", {...}).id)``.

    Raises GatewayUnreachable when nothing answers, and Refused with the gateway's own message. After a fork each
    process has connections of its own. `url_from` says where the address was found, for the error when nothing
    answers there.
    """

    def __init__(self, url: str, *, patience_seconds: float = 10.0, url_from: str = "") -> None:
        super().__init__(Transport(url, patience_seconds=patience_seconds, url_from=url_from))

    @property
    def url(self) -> str:
        return self._transport.url

    def submit(
        self,
        algorithm: str,
        payload: Any,
        *,
        task_id: str | None = None,
        expires_seconds: float | None = None,
        wait_seconds: float = 0,
    ) -> TaskView:
        """Queues a task; returns when it is durable, or with `wait_seconds` when it has ended or after that long.

        The id is chosen here when none is given, so that sending it again after a lost connection makes one task.
        """
        return self._outcome(calls.submit(task_message((algorithm, payload), task_id, expires_seconds), wait_seconds))

    def submit_lines(self, lines: Sequence[bytes]) -> list[Refused | TaskState]:
        """Queues up to 1,000 messages, each JSON on one line: a refusal, or the state of the task, for each, in order.

        A state other than `queued` means that the task was sent before. Sending the same again makes no task twice.
        """
        return self._outcome(calls.submit_lines(lines))

    def submit_batch(self, messages: Sequence[dict[str, Any]]) -> list[Refused | None]:
        """Queues up to 1,000 messages: a refusal or None for each."""
        answers = self.submit_lines([task_message(message).body for message in messages])
        return [answer if isinstance(answer, Refused) else None for answer in answers]

    def get(self, task_id: str, *, wait_seconds: float = 0) -> TaskView:
        """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
        return self._outcome(calls.get(task_id, wait_seconds))

    def get_many(self, task_ids: Sequence[str]) -> dict[str, TaskView]:
        """Up to 100 tasks as they are now, by their ids; without those that the gateway does not know."""
        return self._outcome(calls.get_many(task_ids))

    def wait(
        self, task_id: str, timeout_seconds: float, *, on_view: Callable[[TaskView], None] = lambda _view: None
    ) -> TaskView:
        """The task when it has ended, or as it is when the time is over. `on_view` sees it about each second."""
        view = self._outcome(calls.watch(task_id, timeout_seconds, poll_seconds=_POLL_SECONDS), on_view)
        assert view is not None, "an unknown task is refused"
        return view

    def wait_for_part(
        self, task_ids: Sequence[str], end: float, on_view: Callable[[TaskView | None], None]
    ) -> dict[str, TaskView]:
        """Up to 100 tasks, by their ids: all when they have ended, else as they are at `end` (monotonic).

        Without those that the gateway does not know. `on_view` sees one that has not ended about each second.
        """
        return self._outcome(calls.wait_for_part(task_ids, end, poll_seconds=_POLL_SECONDS), on_view)

    def tasks(
        self,
        *,
        algorithm: str | None = None,
        states: Iterable[TaskState] = (),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = 100,
    ) -> Iterator[TaskSummaryView]:
        """The newest tasks first, requested page by page as they are taken. `limit` None: all."""
        call = calls.tasks(algorithm, states, limit, created_from, created_before)
        return steps.run(call, self._perform)

    def algorithms(self) -> list[dict[str, Any]]:
        """The algorithms that can be used, as ``GET /algorithms`` lists them."""
        found: list[dict[str, Any]] = self.algorithms_answer()["algorithms"]
        return found

    def algorithms_answer(self) -> dict[str, Any]:
        """The same, and whether the list is `complete`."""
        return self._outcome(calls.algorithms())

    def dead_letters(
        self, wanted: DeadLetterFilter | None = None, *, with_settled: bool = False, limit: int | None = 100
    ) -> Iterator[DeadLetterView]:
        """The newest dead letters first; `with_settled`: also those that were replayed or discarded."""
        return steps.run(calls.dead_letters(wanted, limit, with_settled=with_settled), self._perform)

    def dead_letter(self, dead_id: int) -> DeadLetterDetail:
        """A dead letter with its history, its traceback and the message as it came."""
        return self._outcome(calls.dead_letter(dead_id))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Replays these dead letters, or all open ones that match, request by request as the answers are taken."""
        return steps.run(calls.settle_many(calls.REPLAY_MANY, wanted), self._perform)

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Discards these dead letters, or all open ones that match, request by request as the answers are taken."""
        return steps.run(calls.settle_many(calls.DISCARD_MANY, wanted), self._perform)


def no_address(client: str) -> str:
    return f"name where tasks go: {client}('http://HOST:8000'), queue_url='amqp://...', or both"


def no_gateway(client: str) -> NoGateway:
    return NoGateway(f"the broker cannot tell that; give the gateway's address, too: {client}('http://...')")


def broker_sender(queue_url: str, patience_seconds: float) -> "BrokerSender":
    """Imported here: programs that send through the gateway need not have the broker's packages."""
    try:
        from producer.client.broker_sender import BrokerSender
    except ModuleNotFoundError as error:
        raise ImportError(
            f"sending straight to a broker needs more packages ({error.name} is missing); from a checkout: "
            "pip install ./runnerlib ./taskqueue './producer[broker]'"
        ) from None
    return BrokerSender(queue_url, patience_seconds=patience_seconds)
