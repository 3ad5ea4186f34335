"""What clients ask of a gateway and how they read its answers, as generators of steps (see `producer.client.steps`).

Each call is written once, with the parameters and the docstring that the clients' methods have.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from producer.client.steps import (
    Call,
    Emit,
    Fields,
    Publish,
    Query,
    Request,
    Sleep,
    TaskInput,
    TaskMessage,
    as_body,
    task_message,
)
from producer.errors import (
    BrokerUnreachable,
    GatewayUnreachable,
    NotAllSent,
    NotFinished,
    Refused,
    SomeRefused,
    TaskFailed,
    refusal,
)
from producer.models import (
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLettersDone,
    DeadLetterView,
    TaskState,
    TaskSummaryView,
    TaskView,
    from_json,
    is_algorithm,
    is_task_id,
    time_text,
)

#: Tasks in one lookup; their results come with the answer.
LOOKUP_SIZE = 100
#: Entries in one page of a list, or dead letters in one request; the gateway's own limit.
PAGE_SIZE = 1000
#: Longest wait of one request; the gateway holds none longer than a minute.
_LONG_POLL_SECONDS = 20.0
#: Shortest time between two lookups of a wait. An answer comes at once when the gateway has not seen the task yet, or
#: when a proxy drops the header that asks it to wait.
_POLL_SECONDS = 0.2
#: Bounds of one request or publish with many tasks. The gateway takes 16 MiB; half of that keeps both sides' memory
#: small.
_BATCH_TASKS = 1000
_BATCH_BYTES = 8 * 1024 * 1024

T = TypeVar("T")


class Calls:
    """The calls of all clients.

    With `by_broker` tasks go straight to the broker. The gateway then knows a task only after it has run, so waiting
    includes tasks that it does not know.
    """

    def __init__(self, *, by_broker: bool = False) -> None:
        self._by_broker = by_broker

    # one task

    def submit(
        self,
        algorithm: str,
        payload: Any,
        *,
        task_id: str | None = None,
        expires_seconds: float | None = None,
        delay_seconds: float | None = None,
        group: str | None = None,
    ) -> Call[str]:
        """Queues a task and returns its id, once the task is durable.

        With a `task_id` of your own it can be sent again after any error and is still one task. A task that has not
        started `expires_seconds` later fails as `expired`; its first attempt starts no earlier than `delay_seconds`
        later, up to 7 days. `group` says whom it is for: the groups of an algorithm take turns.
        """
        fields = {"expires_seconds": expires_seconds, "delay_seconds": delay_seconds, "group": group}
        task = task_message((algorithm, payload), task_id, fields)
        if self._by_broker:
            [refused] = yield Publish([task])
            if refused is not None:
                raise refused
        else:
            yield from _submit(task)
        return task.id

    def submit_view(
        self,
        algorithm: str,
        payload: Any,
        *,
        task_id: str | None = None,
        expires_seconds: float | None = None,
        delay_seconds: float | None = None,
        group: str | None = None,
        wait_seconds: float = 0,
    ) -> Call[TaskView]:
        """Queues a task; returns when it is durable, or with `wait_seconds` when it has ended or after that long.

        The id is chosen here when none is given, so that sending it again after a lost connection makes one task.
        """
        fields = {"expires_seconds": expires_seconds, "delay_seconds": delay_seconds, "group": group}
        return (yield from _submit(task_message((algorithm, payload), task_id, fields), wait_seconds))

    def get(self, task_id: str, *, wait_seconds: float = 0) -> Call[TaskView]:
        """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
        return _read(TaskView, (yield Request("GET", _path(task_id), wait_seconds=wait_seconds)))

    def cancel(self, task_id: str) -> Call[TaskView]:
        """Cancels a task: it is `cancelled` now, or its runner is being asked. Raises Refused if it had ended."""
        return _read(TaskView, (yield Request("DELETE", _path(task_id))))

    def watch(
        self, task_id: str, timeout_seconds: float, *, poll_seconds: float = _LONG_POLL_SECONDS
    ) -> Call[TaskView | None]:
        """The task when it has ended, or as it is after `timeout_seconds`; None if the gateway does not know it.

        Emits the task about every `poll_seconds` until then.
        """
        end = time.monotonic() + timeout_seconds
        while True:
            asked_at = time.monotonic()
            view = yield from self._lookup(task_id, max(0.0, min(end - asked_at, poll_seconds)), self._by_broker)
            if (view is not None and view.state.is_terminal) or time.monotonic() >= end:
                return view
            if view is not None:
                yield Emit(view)
            yield _rest_of_poll(asked_at, end)

    def wait(self, task_id: str, timeout_seconds: float = 60.0) -> Call[TaskView]:
        """The task when it has ended, whatever its state. Raises NotFinished, a TimeoutError, when the time is over.

        A client with `queue_url` also waits for a task that the gateway has not seen yet.
        """
        return _ended(task_id, (yield from self.watch(task_id, timeout_seconds)), timeout_seconds)

    def result(self, task_id: str, timeout_seconds: float = 60.0) -> Call[Any]:
        """What the task's function returned. Raises TaskFailed when it ended otherwise, NotFinished as `wait` does."""
        view = yield from self.wait(task_id, timeout_seconds)
        if view.state is TaskState.SUCCEEDED:
            return view.result
        if view.error is not None:
            raise TaskFailed(f"task {task_id} failed ({view.error.code}): {view.error.message}", view)
        raise TaskFailed(f"task {task_id} was {view.state.value}", view)

    # many tasks

    def submit_lines(self, lines: Sequence[bytes]) -> Call[list[Refused | TaskState]]:
        """Queues up to 1,000 messages, each JSON on one line: a refusal, or the state of the task, for each, in order.

        A state other than `queued` means that the task was sent before. Sending the same again makes no task twice.
        """
        entries = yield Request("POST", "/tasks/batch", b"\n".join(lines), is_lines=True)
        if not isinstance(entries, list) or len(entries) != len(lines):
            raise GatewayUnreachable("the gateway answered with something that is not a batch; check its address")
        return [refusal(entry["problem"]) if "problem" in entry else TaskState(entry["state"]) for entry in entries]

    def submit_many(
        self,
        tasks: Iterable[TaskInput],
        *,
        expires_seconds: float | None = None,
        delay_seconds: float | None = None,
        group: str | None = None,
    ) -> Call[list[str]]:
        """Queues tasks, ``("upper", {"text": "a"})`` or messages ``{"algorithm", "payload", "id", …}``, in parts.

        `expires_seconds`, `delay_seconds` and `group` are for those that have none of their own. Returns their ids, in
        order. Raises SomeRefused at the end when some were refused, the others are queued then; and NotAllSent when
        sending breaks off, which says what was queued until then.
        """
        ids: list[str] = []
        accepted: set[int] = set()
        refused: dict[int, Refused] = {}
        fields = {"expires_seconds": expires_seconds, "delay_seconds": delay_seconds, "group": group}
        messages = _messages(tasks, fields, ids, refused)
        for batch in batches(messages, lambda numbered: len(numbered[1].body)):
            positions, sent = zip(*batch, strict=True)
            try:
                answers: Sequence[Any]
                if self._by_broker:
                    answers = yield Publish(list(sent))
                else:
                    answers = yield from self.submit_lines([task.body for task in sent])
            except (GatewayUnreachable, BrokerUnreachable, Refused) as error:
                raise NotAllSent(error, ids, accepted, set(positions), refused) from error
            for position, answer in zip(positions, answers, strict=True):
                if isinstance(answer, Refused):
                    refused[position] = answer
                else:
                    accepted.add(position)
        if refused:
            raise SomeRefused(ids, refused)
        return ids

    def get_many(self, task_ids: Sequence[str]) -> Call[dict[str, TaskView]]:
        """Up to 100 tasks as they are now, by their ids; without those that the gateway does not know."""
        found: dict[str, TaskView] = {}
        left = [task_id for task_id in task_ids if is_task_id(task_id)]
        while left:
            answer = _read(_LookupAnswer, (yield Request("POST", "/tasks/lookup", as_body({"ids": left}))))
            found |= {view.id: view for view in answer.tasks}
            left = answer.left_out
        return found

    def wait_for_part(
        self, task_ids: Sequence[str], end: float, *, poll_seconds: float = _LONG_POLL_SECONDS
    ) -> Call[dict[str, TaskView]]:
        """Up to 100 tasks, by id: all when they have ended, else as they are at `end` (monotonic).

        Without those that the gateway does not know; with `by_broker` these are waited for. Emits a task that has not
        ended (None: not known yet) again and again. Waits for the last task first: usually all have ended then.
        """
        found: dict[str, TaskView] = {}
        left = list(dict.fromkeys(task_ids))
        while True:
            asked_at = time.monotonic()
            now = yield from self.get_many(left)
            found |= now
            left = [task_id for task_id in left if self._is_open(now.get(task_id))]
            if not left or time.monotonic() >= end:
                return found
            yield Emit(found.get(left[-1]))
            yield from self._lookup(left[-1], max(0.0, min(poll_seconds, end - time.monotonic())), may_be_unknown=True)
            yield _rest_of_poll(asked_at, end)

    def wait_many(self, task_ids: Sequence[str], timeout_seconds: float = 60.0) -> Call[list[TaskView]]:
        """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
        end = time.monotonic() + timeout_seconds
        views: list[TaskView] = []
        for start in range(0, len(task_ids), LOOKUP_SIZE):
            part = task_ids[start : start + LOOKUP_SIZE]
            found = yield from self.wait_for_part(part, end)
            for task_id in part:
                if task_id not in found and not self._by_broker:
                    raise Refused(404, "unknown_task", f"There is no task {task_id!r}.")
                views.append(_ended(task_id, found.get(task_id), timeout_seconds))
        return views

    # lists

    def tasks(
        self,
        *,
        algorithm: str | None = None,
        states: Iterable[TaskState] = (),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = 100,
    ) -> Call[list[TaskSummaryView]]:
        """The newest tasks first, without their results. `limit` None: all."""
        chosen = {
            "algorithm": algorithm,
            "created_from": time_text(created_from),
            "created_before": time_text(created_before),
        }
        query: Query = {"state": [TaskState(state).value for state in states]}
        query |= {name: value for name, value in chosen.items() if value is not None}
        return (yield from _pages("/tasks", query, limit, "tasks", TaskSummaryView))

    def dead_letters(
        self, wanted: DeadLetterFilter | None = None, *, with_settled: bool = False, limit: int | None = 100
    ) -> Call[list[DeadLetterView]]:
        """Failed tasks that wait for a decision, the newest first; `limit` None: all.

        With `with_settled` also those that were replayed or discarded.
        """
        query: Query = (wanted or DeadLetterFilter()).query() | {"all": str(with_settled).lower()}
        return (yield from _pages("/dead", query, limit, "dead_letters", DeadLetterView))

    def dead_letter(self, dead_id: int) -> Call[DeadLetterDetail]:
        """A dead letter with its history, its traceback and the message as it came."""
        return _read(DeadLetterDetail, (yield Request("GET", f"/dead/{dead_id:d}")))

    def algorithms_answer(self) -> Call[dict[str, Any]]:
        """The `algorithms` that can be used, as ``GET /algorithms`` lists them, and whether the list is `complete`."""
        answer: dict[str, Any] = yield Request("GET", "/algorithms")
        return answer

    def pause(self, algorithm: str) -> Call[dict[str, Any]]:
        """Lets no more tasks of the algorithm start; those that run end."""
        answer: dict[str, Any] = yield Request("POST", f"{_algorithm_path(algorithm)}/pause")
        return answer

    def resume(self, algorithm: str) -> Call[dict[str, Any]]:
        """Lets the tasks of a paused algorithm start again."""
        answer: dict[str, Any] = yield Request("POST", f"{_algorithm_path(algorithm)}/resume")
        return answer

    # replaying and discarding dead letters

    def replay(self, dead_id: int) -> Call[TaskView]:
        """Puts a dead letter's task back into the queue, under its own id.

        Raises Refused if that is impossible, or was done already.
        """
        return _read(TaskView, (yield Request("POST", f"/dead/{dead_id:d}/replay")))

    def discard(self, dead_id: int) -> Call[DeadLetterView]:
        """Closes a dead letter without running its task again. Raises Refused if it was replayed or discarded."""
        return _read(DeadLetterView, (yield Request("POST", f"/dead/{dead_id:d}/discard")))

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Call[DeadLettersDone]:
        """Replays these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return (yield from _settle_many("/dead/replay", wanted))

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Call[DeadLettersDone]:
        """Discards these dead letters, or all open ones that match: how many, and which were skipped and why."""
        return (yield from _settle_many("/dead/discard", wanted))

    def _lookup(self, task_id: str, wait_seconds: float, may_be_unknown: bool) -> Call[TaskView | None]:
        try:
            return (yield from self.get(task_id, wait_seconds=wait_seconds))
        except Refused as error:
            if error.status == 404 and may_be_unknown:
                return None
            raise

    def _is_open(self, view: TaskView | None) -> bool:
        return self._by_broker if view is None else not view.state.is_terminal


def _submit(task: TaskMessage, wait_seconds: float = 0) -> Call[TaskView]:
    return _read(TaskView, (yield Request("POST", "/tasks", task.body, wait_seconds=wait_seconds)))


def _messages(
    tasks: Iterable[TaskInput], fields: Fields, ids: list[str], refused: dict[int, Refused]
) -> Iterator[tuple[int, TaskMessage]]:
    """The tasks that can be sent, with their positions. Appends each one's id to `ids` (empty if it has none)."""
    for position, given in enumerate(tasks):
        try:
            task = task_message(given, fields=fields)
        except Refused as error:
            ids.append("")
            refused[position] = error
        else:
            ids.append(task.id)
            yield position, task


def batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Groups messages into requests of bounded number and size, in order; one that is larger goes alone."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (len(batch) == _BATCH_TASKS or size + size_of(item) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch


def _settle_many(path: str, wanted: Sequence[int] | DeadLetterFilter) -> Call[DeadLettersDone]:
    """Emits the answer to each request."""
    bodies: list[dict[str, Any]]
    if isinstance(wanted, DeadLetterFilter):
        bodies = [{"filter": wanted.body(), "limit": PAGE_SIZE, "cursor": None}]
    else:
        bodies = [{"ids": list(wanted[start : start + PAGE_SIZE])} for start in range(0, len(wanted), PAGE_SIZE)]
    done, skipped = 0, []
    while bodies:
        body = bodies.pop(0)
        answer = _read(DeadLettersDone, (yield Request("POST", path, as_body(body))))
        yield Emit(answer)
        done += answer.done
        skipped += answer.skipped
        if "filter" in body and answer.next is not None:
            bodies.append(body | {"cursor": answer.next})
    return DeadLettersDone(done=done, skipped=skipped)


@dataclass(frozen=True, kw_only=True)
class _LookupAnswer:
    """The answer to a lookup; tasks that did not fit into it are `left_out`, to be asked for again."""

    tasks: list[TaskView]
    left_out: list[str]


def _read(model: type[T], content: Any) -> T:
    try:
        return from_json(model, content)
    except (ValueError, TypeError):
        raise GatewayUnreachable(
            f"the gateway answered with something else than a {model.__name__.lstrip('_')}; "
            "check its address and its version"
        ) from None


def _pages(path: str, query: Query, limit: int | None, name: str, model: type[T]) -> Call[list[T]]:
    """Up to `limit` entries (None: all); emits each. A page may be short and still have a next one."""
    query, left, entries = {**query}, limit, []
    while left is None or left > 0:
        query["limit"] = str(PAGE_SIZE if left is None else min(left, PAGE_SIZE))
        page = yield Request("GET", path, query=query)
        if not isinstance(page, dict) or not isinstance(page.get(name), list):
            raise GatewayUnreachable("the gateway answered with something that is not a list; check its address")
        for content in page[name]:
            entries.append(_read(model, content))
            yield Emit(entries[-1])
        if page.get("next") is None:
            break
        query["cursor"] = str(page["next"])
        left = None if left is None else left - len(page[name])
    return entries


def _rest_of_poll(asked_at: float, end: float) -> Sleep:
    now = time.monotonic()
    return Sleep(max(0.0, min(_POLL_SECONDS - (now - asked_at), end - now)))


def _ended(task_id: str, view: TaskView | None, waited_seconds: float) -> TaskView:
    if view is None:
        raise NotFinished(f"nobody has seen task {task_id} after {waited_seconds:g} s; it waits, or was not sent", view)
    if not view.state.is_terminal:
        raise NotFinished(f"task {task_id} is {view.state.value} after {waited_seconds:g} s; wait for it again", view)
    return view


def _algorithm_path(algorithm: str) -> str:
    if not is_algorithm(algorithm):
        raise Refused(404, "unknown_algorithm", "an algorithm's name has lower-case letters, digits and _ only")
    return f"/algorithms/{algorithm}"


def _path(task_id: str) -> str:
    if not is_task_id(task_id) or task_id in (".", ".."):
        raise Refused(422, "invalid_id", "a task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return f"/tasks/{task_id}"
