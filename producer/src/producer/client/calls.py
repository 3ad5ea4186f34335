"""What clients ask of a gateway and how they read its answers, as generators of steps (see `producer.client.steps`).

The clients' methods of the same names document the calls.
With `by_broker` tasks go straight to the broker. The gateway then knows a task only after it has run, so waiting
includes tasks that it does not know.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from producer.client.steps import (
    Call,
    Emit,
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

REPLAY_MANY, DISCARD_MANY = "/dead/replay", "/dead/discard"

T = TypeVar("T")


# one task


def submit(task: TaskMessage, wait_seconds: float = 0) -> Call[TaskView]:
    return _read(TaskView, (yield Request("POST", "/tasks", task.body, wait_seconds=wait_seconds)))


def send(given: TaskInput, task_id: str | None, expires_seconds: float | None, *, by_broker: bool) -> Call[str]:
    task = task_message(given, task_id, expires_seconds)
    if by_broker:
        [refused] = yield Publish([task])
        if refused is not None:
            raise refused
    else:
        yield from submit(task)
    return task.id


def get(task_id: str, wait_seconds: float = 0) -> Call[TaskView]:
    return _read(TaskView, (yield Request("GET", _path(task_id), wait_seconds=wait_seconds)))


def cancel(task_id: str) -> Call[TaskView]:
    return _read(TaskView, (yield Request("DELETE", _path(task_id))))


def watch(
    task_id: str, timeout_seconds: float, *, poll_seconds: float = _LONG_POLL_SECONDS, by_broker: bool = False
) -> Call[TaskView | None]:
    """The task when it has ended, or as it is after `timeout_seconds`; None if the gateway does not know it.

    Emits the task about every `poll_seconds` until then.
    """
    end = time.monotonic() + timeout_seconds
    while True:
        asked_at = time.monotonic()
        view = yield from _lookup(task_id, max(0.0, min(end - asked_at, poll_seconds)), by_broker)
        if (view is not None and view.state.is_terminal) or time.monotonic() >= end:
            return view
        if view is not None:
            yield Emit(view)
        yield _rest_of_poll(asked_at, end)


def wait(task_id: str, timeout_seconds: float, *, by_broker: bool) -> Call[TaskView]:
    view = yield from watch(task_id, timeout_seconds, by_broker=by_broker)
    return _ended(task_id, view, timeout_seconds)


def result(task_id: str, timeout_seconds: float, *, by_broker: bool) -> Call[Any]:
    view = yield from wait(task_id, timeout_seconds, by_broker=by_broker)
    if view.state is TaskState.SUCCEEDED:
        return view.result
    if view.error is not None:
        raise TaskFailed(f"task {task_id} failed ({view.error.code}): {view.error.message}", view)
    raise TaskFailed(f"task {task_id} was {view.state.value}", view)


# many tasks


def submit_lines(lines: Sequence[bytes]) -> Call[list[Refused | TaskState]]:
    entries = yield Request("POST", "/tasks/batch", b"\n".join(lines), is_lines=True)
    if not isinstance(entries, list) or len(entries) != len(lines):
        raise GatewayUnreachable("the gateway answered with something that is not a batch; check its address")
    return [refusal(entry["problem"]) if "problem" in entry else TaskState(entry["state"]) for entry in entries]


def submit_many(tasks: Iterable[TaskInput], expires_seconds: float | None, *, by_broker: bool) -> Call[list[str]]:
    ids: list[str] = []
    accepted: set[int] = set()
    refused: dict[int, Refused] = {}

    def messages() -> Iterator[tuple[int, TaskMessage]]:
        for position, given in enumerate(tasks):
            try:
                task = task_message(given, expires_seconds=expires_seconds)
            except Refused as error:
                ids.append("")
                refused[position] = error
            else:
                ids.append(task.id)
                yield position, task

    for batch in batches(messages(), lambda numbered: len(numbered[1].body)):
        positions = [position for position, _ in batch]
        sent = [task for _, task in batch]
        try:
            answers: Sequence[Any]
            if by_broker:
                answers = yield Publish(sent)
            else:
                answers = yield from submit_lines([task.body for task in sent])
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


def get_many(task_ids: Sequence[str]) -> Call[dict[str, TaskView]]:
    found: dict[str, TaskView] = {}
    left = [task_id for task_id in task_ids if is_task_id(task_id)]
    while left:
        answer = _read(_LookupAnswer, (yield Request("POST", "/tasks/lookup", as_body({"ids": left}))))
        found |= {view.id: view for view in answer.tasks}
        left = answer.left_out
    return found


def wait_for_part(
    task_ids: Sequence[str], end: float, *, poll_seconds: float = _LONG_POLL_SECONDS, by_broker: bool = False
) -> Call[dict[str, TaskView]]:
    """Up to 100 tasks, by id: all when they have ended, else as they are at `end` (monotonic).

    Without those that the gateway does not know; with `by_broker` these are waited for. Emits a task that has not
    ended (None: not known yet) again and again. Waits for the last task first: usually all have ended then.
    """
    found: dict[str, TaskView] = {}
    left = list(dict.fromkeys(task_ids))
    while True:
        asked_at = time.monotonic()
        now = yield from get_many(left)
        found |= now
        left = [task_id for task_id in left if _is_open(now.get(task_id), by_broker)]
        if not left or time.monotonic() >= end:
            return found
        yield Emit(found.get(left[-1]))
        yield from _lookup(left[-1], max(0.0, min(poll_seconds, end - time.monotonic())), by_broker=True)
        yield _rest_of_poll(asked_at, end)


def wait_many(task_ids: Sequence[str], timeout_seconds: float, *, by_broker: bool) -> Call[list[TaskView]]:
    end = time.monotonic() + timeout_seconds
    views: list[TaskView] = []
    for start in range(0, len(task_ids), LOOKUP_SIZE):
        part = task_ids[start : start + LOOKUP_SIZE]
        found = yield from wait_for_part(part, end, by_broker=by_broker)
        for task_id in part:
            if task_id not in found and not by_broker:
                raise Refused(404, "unknown_task", f"There is no task {task_id!r}.")
            views.append(_ended(task_id, found.get(task_id), timeout_seconds))
    return views


# lists


def tasks(
    algorithm: str | None,
    states: Iterable[TaskState | str],
    limit: int | None,
    created_from: Any = None,
    created_before: Any = None,
) -> Call[list[TaskSummaryView]]:
    """The newest tasks first; emits each as its page comes. `limit` None: all."""
    chosen = {
        "algorithm": algorithm,
        "created_from": time_text(created_from),
        "created_before": time_text(created_before),
    }
    query: Query = {"state": [TaskState(state).value for state in states]}
    query |= {name: value for name, value in chosen.items() if value is not None}
    return (yield from _pages("/tasks", query, limit, "tasks", TaskSummaryView))


def dead_letters(
    chosen: DeadLetterFilter | None, limit: int | None, *, with_settled: bool = False
) -> Call[list[DeadLetterView]]:
    query: Query = (chosen or DeadLetterFilter()).query() | {"all": str(with_settled).lower()}
    return (yield from _pages("/dead", query, limit, "dead_letters", DeadLetterView))


def dead_letter(dead_id: int) -> Call[DeadLetterDetail]:
    return _read(DeadLetterDetail, (yield Request("GET", f"/dead/{dead_id:d}")))


def algorithms() -> Call[dict[str, Any]]:
    answer: dict[str, Any] = yield Request("GET", "/algorithms")
    return answer


# replaying and discarding dead letters


def replay(dead_id: int) -> Call[TaskView]:
    return _read(TaskView, (yield Request("POST", f"/dead/{dead_id:d}/replay")))


def discard(dead_id: int) -> Call[DeadLetterView]:
    return _read(DeadLetterView, (yield Request("POST", f"/dead/{dead_id:d}/discard")))


def settle_many(path: str, chosen: Sequence[int] | DeadLetterFilter) -> Call[DeadLettersDone]:
    """Replays or discards these dead letters, or all open ones that the filter chooses; emits the answer to each
    request."""
    answers: list[DeadLettersDone] = []
    bodies: list[dict[str, Any]]
    if isinstance(chosen, DeadLetterFilter):
        bodies = [{"filter": chosen.body(), "limit": PAGE_SIZE, "cursor": None}]
    else:
        bodies = [{"ids": list(chosen[start : start + PAGE_SIZE])} for start in range(0, len(chosen), PAGE_SIZE)]
    while bodies:
        body = bodies.pop(0)
        answers.append(_read(DeadLettersDone, (yield Request("POST", path, as_body(body)))))
        yield Emit(answers[-1])
        if "filter" in body and answers[-1].next is not None:
            bodies.append(body | {"cursor": answers[-1].next})
    skipped = [each for answer in answers for each in answer.skipped]
    return DeadLettersDone(done=sum(answer.done for answer in answers), skipped=skipped)


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


def _lookup(task_id: str, wait_seconds: float, by_broker: bool) -> Call[TaskView | None]:
    """The task, or None if it went to the broker and has no row yet."""
    try:
        return (yield from get(task_id, wait_seconds))
    except Refused as error:
        if error.status == 404 and by_broker:
            return None
        raise


def _is_open(view: TaskView | None, by_broker: bool) -> bool:
    return by_broker if view is None else not view.state.is_terminal


def _rest_of_poll(asked_at: float, end: float) -> Sleep:
    now = time.monotonic()
    return Sleep(max(0.0, min(_POLL_SECONDS - (now - asked_at), end - now)))


def _ended(task_id: str, view: TaskView | None, waited_seconds: float) -> TaskView:
    if view is None:
        raise NotFinished(f"nobody has seen task {task_id} after {waited_seconds:g} s; it waits, or was not sent", view)
    if not view.state.is_terminal:
        raise NotFinished(f"task {task_id} is {view.state.value} after {waited_seconds:g} s; wait for it again", view)
    return view


def _path(task_id: str) -> str:
    if not is_task_id(task_id) or task_id in (".", ".."):
        raise Refused(422, "invalid_id", "a task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return f"/tasks/{task_id}"
