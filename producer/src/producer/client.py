"""A small synchronous client of the gateway: one method for each of its calls."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from producer import calls, steps
from producer.dead_filter import DeadLetterFilter
from producer.errors import Refused
from producer.models import (
    DeadLetterDetail,
    DeadLettersDone,
    DeadLetterView,
    TaskState,
    TaskSummaryView,
    TaskView,
)
from producer.outgoing import outgoing
from producer.transport import Transport

T = TypeVar("T")

#: One wait; short enough to show progress while it lasts.
_SLICE_SECONDS = 1.0


class GatewayClient:
    """``with GatewayClient("http://127.0.0.1:8000") as client: client.wait(client.submit("upper", {...}).id)``.

    Raises GatewayUnreachable when nobody answers, and Refused with the gateway's own sentence. One client is for one
    thread; a process that was forked gets connections of its own. `url_from` is where the address was found, for
    the error when nobody answers there.
    """

    def __init__(self, url: str, *, patience_seconds: float = 10.0, url_from: str = "") -> None:
        self._transport = Transport(url, patience_seconds=patience_seconds, url_from=url_from)

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

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
        return self._do(calls.submit(outgoing((algorithm, payload), task_id, expires_seconds), wait_seconds))

    def submit_lines(self, lines: Sequence[bytes]) -> list[Refused | TaskState]:
        """Queues up to 1,000 messages, each JSON on one line: a refusal, or the state of the task, for each, in order.

        A state other than `queued` tells that the task was known before. Sending the same again makes no task twice.
        """
        return self._do(calls.submit_lines(lines))

    def submit_batch(self, messages: Sequence[dict[str, Any]]) -> list[Refused | None]:
        """The same for up to 1,000 messages as they are: a refusal or None for each."""
        answers = self.submit_lines([outgoing(message).body for message in messages])
        return [answer if isinstance(answer, Refused) else None for answer in answers]

    def get(self, task_id: str, *, wait_seconds: float = 0) -> TaskView:
        """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
        return self._do(calls.get(task_id, wait_seconds))

    def get_many(self, task_ids: Sequence[str]) -> dict[str, TaskView]:
        """Up to 100 tasks as they are now, by their ids; those that nobody knows are missing."""
        return self._do(calls.get_many(task_ids))

    def wait(
        self, task_id: str, timeout_seconds: float, *, on_view: Callable[[TaskView], None] = lambda _view: None
    ) -> TaskView:
        """The task when it has ended, or as it is when the time is over. `on_view` sees it about each second."""
        view = self._do(calls.watch(task_id, timeout_seconds, slice_seconds=_SLICE_SECONDS), on_view)
        assert view is not None, "one that nobody knows is refused"
        return view

    def wait_for_part(
        self, task_ids: Sequence[str], end: float, on_view: Callable[[TaskView | None], None]
    ) -> dict[str, TaskView]:
        """Up to 100 tasks: all when they have ended, else as they are at `end` (monotonic).

        Those that nobody knows are missing. `on_view` sees one that has not ended about each second.
        """
        return self._do(calls.wait_for_part(task_ids, end, slice_seconds=_SLICE_SECONDS), on_view)

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task; the answer tells whether it is cancelled or its runner is being asked. Refused: it ended."""
        return self._do(calls.cancel(task_id))

    def tasks(
        self,
        *,
        algorithm: str | None = None,
        states: Iterable[TaskState] = (),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = 100,
    ) -> Iterator[TaskSummaryView]:
        """The newest tasks first, asked for as they are taken. `limit` None: to the end."""
        query = calls.tasks_query(algorithm, states, created_from, created_before)
        return steps.perform(calls.tasks(query, limit), self._step)

    def algorithms(self) -> list[dict[str, Any]]:
        """What can be asked for, as ``GET /algorithms`` tells it."""
        found: list[dict[str, Any]] = self.algorithms_answer()["algorithms"]
        return found

    def algorithms_answer(self) -> dict[str, Any]:
        """The same, and whether these are `complete`."""
        return self._do(calls.algorithms())

    def dead_letters(
        self, wanted: DeadLetterFilter | None = None, *, with_settled: bool = False, limit: int | None = 100
    ) -> Iterator[DeadLetterView]:
        """The newest dead letters first; `with_settled`: those that were replayed or discarded, too."""
        return steps.perform(calls.dead_letters(wanted, limit, with_settled=with_settled), self._step)

    def dead_letter(self, dead_id: int) -> DeadLetterDetail:
        """One of them, with its history, its traceback and the message as it came."""
        return self._do(calls.dead_letter(dead_id))

    def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id. Refused: it cannot be, or was already."""
        return self._do(calls.replay(dead_id))

    def discard(self, dead_id: int) -> DeadLetterView:
        """Notes that nothing more shall become of it. Refused: it was replayed or discarded already."""
        return self._do(calls.discard(dead_id))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Replays these dead letters, or all open ones that are wanted, as the answers are taken, part by part."""
        return steps.perform(calls.settle_many(calls.REPLAY_MANY, wanted), self._step)

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """The same for discarding."""
        return steps.perform(calls.settle_many(calls.DISCARD_MANY, wanted), self._step)

    def _do(self, call: steps.Call[T], on_found: Callable[[Any], None] = lambda _: None) -> T:
        return steps.outcome_of(call, self._step, on_found)

    def _step(self, step: steps.Step) -> Any:
        if isinstance(step, steps.Ask):
            return self._transport.ask(step)
        assert isinstance(step, steps.Pause), "this client knows no broker"
        time.sleep(step.seconds)
        return None
