"""A small synchronous client of the gateway: one method for each of its calls."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from producer.dead_filter import DeadLetterFilter, as_text
from producer.errors import GatewayUnreachable, Refused
from producer.pages import listed, read, settled
from producer.transport import Query, Transport, refusal
from runnerlib.contract import (
    DeadLetterDetail,
    DeadLetterListView,
    DeadLettersDone,
    DeadLetterView,
    TaskListView,
    TaskState,
    TaskSummaryView,
    TaskView,
    is_task_id,
    new_task_id,
)

#: One wait; short enough to show progress while it lasts.
_SLICE_SECONDS = 1.0


class GatewayClient:
    """``with GatewayClient("http://127.0.0.1:8000") as client: client.wait(client.submit("upper", {...}).id)``.

    Raises GatewayUnreachable when nobody answers, and Refused with the gateway's own sentence. One client is for one
    thread.
    """

    def __init__(self, url: str, *, patience_seconds: float = 10.0) -> None:
        self._transport = Transport(url, patience_seconds=patience_seconds)

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
        message: dict[str, Any] = {"algorithm": algorithm, "payload": payload, "id": task_id or new_task_id()}
        if expires_seconds is not None:
            message["expires_seconds"] = expires_seconds
        return read(TaskView, self._transport.ask("POST", "/tasks", message, wait_seconds=wait_seconds))

    def submit_batch(self, messages: Sequence[dict[str, Any]]) -> list[Refused | None]:
        """Queues up to 1,000 messages, each with its id: a refusal or None for each, in order.

        Sending the same again after an error makes no task twice.
        """
        return _refusals(self._transport.ask("POST", "/tasks/batch", list(messages)), len(messages))

    def submit_lines(self, lines: Sequence[bytes]) -> list[Refused | TaskState]:
        """The same for messages that are JSON already, each on one line: a refusal, or the state of the task.

        A state other than `queued` tells that the task was known before.
        """
        entries = self._transport.ask("POST", "/tasks/batch", b"\n".join(lines))
        refusals = _refusals(entries, len(lines))
        return [
            TaskState(entry["state"]) if refused is None else refused
            for entry, refused in zip(entries, refusals, strict=True)
        ]

    def get(self, task_id: str, *, wait_seconds: float = 0) -> TaskView:
        """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
        return read(TaskView, self._transport.ask("GET", _path(task_id), wait_seconds=wait_seconds))

    def get_many(self, task_ids: Sequence[str]) -> dict[str, TaskView]:
        """Up to 100 tasks as they are now, by their ids; those that nobody knows are missing."""
        found: dict[str, TaskView] = {}
        left = [task_id for task_id in task_ids if is_task_id(task_id)]
        while left:
            answer = read(_Found, self._transport.ask("POST", "/tasks/lookup", {"ids": left}))
            found |= {view.id: view for view in answer.tasks}
            left = answer.left_out
        return found

    def wait(
        self, task_id: str, timeout_seconds: float, *, on_view: Callable[[TaskView], None] | None = None
    ) -> TaskView:
        """The task when it has ended, or as it is when the time is over. `on_view` sees it about each second."""
        end = time.monotonic() + timeout_seconds
        view = self.get(task_id)
        while not view.state.is_terminal and (left := end - time.monotonic()) > 0:
            if on_view is not None:
                on_view(view)
            view = self.get(task_id, wait_seconds=min(left, _SLICE_SECONDS))
        return view

    def cancel(self, task_id: str) -> TaskView:
        """Cancels a task; the answer tells whether it is cancelled or its runner is being asked. Refused: it ended."""
        return read(TaskView, self._transport.ask("DELETE", _path(task_id)))

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
        query: Query = {"state": [TaskState(state).value for state in states]}
        wanted = {
            "algorithm": algorithm,
            "created_from": as_text(created_from),
            "created_before": as_text(created_before),
        }
        query |= {name: value for name, value in wanted.items() if value is not None}
        return listed(self._transport, "/tasks", query, limit, _tasks_of)

    def algorithms(self) -> list[dict[str, Any]]:
        """What can be asked for, as ``GET /algorithms`` tells it."""
        found: list[dict[str, Any]] = self.algorithms_answer()["algorithms"]
        return found

    def algorithms_answer(self) -> dict[str, Any]:
        """The same, and whether these are `complete`."""
        found: dict[str, Any] = self._transport.ask("GET", "/algorithms")
        return found

    def dead_letters(
        self, wanted: DeadLetterFilter | None = None, *, with_settled: bool = False, limit: int | None = 100
    ) -> Iterator[DeadLetterView]:
        """The newest dead letters first; `with_settled`: those that were replayed or discarded, too."""
        query: Query = (wanted or DeadLetterFilter()).query() | {"all": str(with_settled).lower()}
        return listed(self._transport, "/dead", query, limit, _dead_letters_of)

    def dead_letter(self, dead_id: int) -> DeadLetterDetail:
        """One of them, with its history, its traceback and the message as it came."""
        return read(DeadLetterDetail, self._transport.ask("GET", f"/dead/{dead_id:d}"))

    def replay(self, dead_id: int) -> TaskView:
        """Puts a dead letter's task back into the queue, under its own id. Refused: it cannot be, or was already."""
        return read(TaskView, self._transport.ask("POST", f"/dead/{dead_id:d}/replay"))

    def discard(self, dead_id: int) -> DeadLetterView:
        """Notes that nothing more shall become of it. Refused: it was replayed or discarded already."""
        return read(DeadLetterView, self._transport.ask("POST", f"/dead/{dead_id:d}/discard"))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Replays these dead letters, or all open ones that are wanted, as the answers are taken, part by part."""
        return settled(self._transport, "/dead/replay", wanted)

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """The same for discarding."""
        return settled(self._transport, "/dead/discard", wanted)


class _Found(BaseModel):
    """The answer about many tasks; what had no room in it is asked for again."""

    tasks: list[TaskView]
    left_out: list[str]


def _refusals(entries: Any, count: int) -> list[Refused | None]:
    if not isinstance(entries, list) or len(entries) != count:
        raise GatewayUnreachable("the gateway answered with something that is not a batch; check GATEWAY_URL")
    return [refusal(entry["problem"]) if "problem" in entry else None for entry in entries]


def _tasks_of(content: Any) -> tuple[list[TaskSummaryView], str | None]:
    page = read(TaskListView, content)
    return page.tasks, page.next


def _dead_letters_of(content: Any) -> tuple[list[DeadLetterView], str | None]:
    page = read(DeadLetterListView, content)
    return page.dead_letters, page.next


def _path(task_id: str) -> str:
    if not is_task_id(task_id) or task_id in (".", ".."):
        raise Refused(422, "invalid_id", "a task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return f"/tasks/{task_id}"
