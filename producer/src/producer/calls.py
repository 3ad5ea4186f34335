"""What a client asks of a gateway and makes of the answers, without input or output: each call is written once.

A call is a generator. It yields steps that somebody else does: Ask and get the answer's JSON, Pause, Publish to the
broker; and Found, what it has for its caller on the way. It returns its outcome. `producer.steps` does them.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from producer.dead_filter import DeadLetterFilter, as_text
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
from producer.json_text import BadJson, dumps
from producer.models import (
    DeadLetterDetail,
    DeadLettersDone,
    DeadLetterView,
    TaskState,
    TaskSummaryView,
    TaskView,
    from_json,
    is_task_id,
)
from producer.outgoing import Given, Outgoing, outgoing
from producer.steps import Ask, Call, Found, Pause, Publish, Query

#: Tasks in one question about many; their results come with the answer.
MOST_AT_ONCE = 100
#: Entries in one page or one part; the gateway takes and gives no more.
MOST_IN_PAGE = 1000
#: One request of a wait; the gateway holds none longer than a minute.
_SLICE_SECONDS = 20.0
#: Between two questions that are answered at once: the gateway has not seen the task yet, or what stands before the
#: gateway keeps the wish to wait from it.
_PAUSE_SECONDS = 0.2
#: Tasks in one request or one publish: as many, and as many bytes together.
_PART_TASKS = 1000
_PART_BYTES = 8 * 1024 * 1024

T = TypeVar("T")
E = TypeVar("E")


# one task


def submit(task: Outgoing, wait_seconds: float = 0) -> Call[TaskView]:
    """Queues a task; the answer comes when it is durable, or with `wait_seconds` when it has ended or after that."""
    return read(TaskView, (yield Ask("POST", "/tasks", task.body, wait_seconds=wait_seconds)))


def send(task: Outgoing, *, to_broker: bool) -> Call[None]:
    """The same by either way."""
    if not to_broker:
        yield from submit(task)
        return
    [refused] = yield Publish([task])
    if refused is not None:
        raise refused


def get(task_id: str, wait_seconds: float = 0) -> Call[TaskView]:
    """The task as it is now, or with `wait_seconds` when it has ended or after that long."""
    return read(TaskView, (yield Ask("GET", _path(task_id), wait_seconds=wait_seconds)))


def cancel(task_id: str) -> Call[TaskView]:
    return read(TaskView, (yield Ask("DELETE", _path(task_id))))


def watch(
    task_id: str, timeout_seconds: float, *, slice_seconds: float = _SLICE_SECONDS, unseen_too: bool = False
) -> Call[TaskView | None]:
    """The task when it has ended, or as it is when the time is over; finds it as it is about each `slice_seconds`.

    With `unseen_too` one that nobody knows is waited for; it is None.
    """
    end = time.monotonic() + timeout_seconds
    while True:
        asked_at = time.monotonic()
        view = yield from _look(task_id, max(0.0, min(end - asked_at, slice_seconds)), unseen_too)
        if (view is not None and view.state.is_terminal) or time.monotonic() >= end:
            return view
        if view is not None:
            yield Found(view)
        yield _pause_since(asked_at, end)


def wait(task_id: str, timeout_seconds: float, *, unseen_too: bool) -> Call[TaskView]:
    """The task when it has ended, however it ended. Raises NotFinished."""
    view = yield from watch(task_id, timeout_seconds, unseen_too=unseen_too)
    if view is None or not view.state.is_terminal:
        raise _not_finished(task_id, view, timeout_seconds)
    return view


def result(task_id: str, timeout_seconds: float, *, unseen_too: bool) -> Call[Any]:
    """What the task's function returned. Raises TaskFailed and NotFinished."""
    view = yield from wait(task_id, timeout_seconds, unseen_too=unseen_too)
    if view.state is TaskState.SUCCEEDED:
        return view.result
    if view.error is not None:
        raise TaskFailed(f"task {task_id} failed ({view.error.code}): {view.error.message}", view)
    raise TaskFailed(f"task {task_id} was {view.state.value}", view)


# many tasks


def submit_lines(lines: Sequence[bytes]) -> Call[list[Refused | TaskState]]:
    """Queues up to 1,000 messages, each JSON on one line: a refusal, or the state of the task, for each, in order.

    A state other than `queued` tells that the task was known before. Sending the same again makes no task twice.
    """
    entries = yield Ask("POST", "/tasks/batch", b"\n".join(lines), is_lines=True)
    if not isinstance(entries, list) or len(entries) != len(lines):
        raise GatewayUnreachable("the gateway answered with something that is not a batch; check its address")
    return [refusal(entry["problem"]) if "problem" in entry else TaskState(entry["state"]) for entry in entries]


def submit_many(tasks: Iterable[Given], expires_seconds: float | None, *, to_broker: bool) -> Call[list[str]]:
    """The ids, in order. Raises SomeRefused, and NotAllSent when it breaks off."""
    ids: list[str] = []
    accepted: set[int] = set()
    refused: dict[int, Refused] = {}
    for part in _parts(_checked(tasks, expires_seconds, ids, refused)):
        try:
            answers = yield from _send([*part.values()], to_broker)
        except (GatewayUnreachable, BrokerUnreachable, Refused) as error:
            raise NotAllSent(error, ids, accepted, set(part), refused) from error
        for position, answer in zip(part, answers, strict=True):
            if isinstance(answer, Refused):
                refused[position] = answer
            else:
                accepted.add(position)
    if refused:
        raise SomeRefused(ids, refused)
    return ids


def get_many(task_ids: Sequence[str]) -> Call[dict[str, TaskView]]:
    """Up to 100 tasks as they are now, by their ids; those that nobody knows are missing."""
    found: dict[str, TaskView] = {}
    left = [task_id for task_id in task_ids if is_task_id(task_id)]
    while left:
        answer = read(_Tasks, (yield Ask("POST", "/tasks/lookup", as_body({"ids": left}))))
        found |= {view.id: view for view in answer.tasks}
        left = answer.left_out
    return found


def wait_for_part(
    task_ids: Sequence[str], end: float, *, slice_seconds: float = _SLICE_SECONDS, unseen_too: bool = False
) -> Call[dict[str, TaskView]]:
    """Up to 100 tasks: all when they have ended, else as they are at `end` (monotonic).

    Those that nobody knows are missing; with `unseen_too` they are waited for. Finds one that has not ended (None:
    not seen yet), again and again. The last is waited for first: mostly, all have ended then.
    """
    found: dict[str, TaskView] = {}
    left = list(dict.fromkeys(task_ids))
    while True:
        asked_at = time.monotonic()
        now = yield from get_many(left)
        found |= now
        left = [task_id for task_id in left if _is_open(now.get(task_id), unseen_too)]
        if not left or time.monotonic() >= end:
            return found
        yield Found(found.get(left[-1]))
        yield from _look(left[-1], max(0.0, min(slice_seconds, end - time.monotonic())), unseen_too=True)
        yield _pause_since(asked_at, end)


def wait_many(task_ids: Sequence[str], timeout_seconds: float, *, unseen_too: bool) -> Call[list[TaskView]]:
    """All of them when all have ended, in order. Raises NotFinished for the first that has not in time."""
    end = time.monotonic() + timeout_seconds
    views: list[TaskView] = []
    for start in range(0, len(task_ids), MOST_AT_ONCE):
        part = task_ids[start : start + MOST_AT_ONCE]
        found = yield from wait_for_part(part, end, unseen_too=unseen_too)
        for task_id in part:
            view = found.get(task_id)
            if view is None and not unseen_too:
                raise Refused(404, "unknown_task", f"There is no task {task_id!r}.")
            if view is None or not view.state.is_terminal:
                raise _not_finished(task_id, view, timeout_seconds)
            views.append(view)
    return views


# lists


def tasks(query: Query, limit: int | None) -> Call[list[TaskSummaryView]]:
    """The newest tasks first; each is found as its page comes. `limit` None: to the end."""
    return (yield from _listed("/tasks", query, limit, "tasks", TaskSummaryView))


def tasks_query(
    algorithm: str | None, states: Iterable[TaskState | str], created_from: Any = None, created_before: Any = None
) -> Query:
    wanted = {"algorithm": algorithm, "created_from": as_text(created_from), "created_before": as_text(created_before)}
    query: Query = {"state": [TaskState(state).value for state in states]}
    return query | {name: value for name, value in wanted.items() if value is not None}


def dead_letters(
    wanted: DeadLetterFilter | None, limit: int | None, *, with_settled: bool = False
) -> Call[list[DeadLetterView]]:
    query: Query = (wanted or DeadLetterFilter()).query() | {"all": str(with_settled).lower()}
    return (yield from _listed("/dead", query, limit, "dead_letters", DeadLetterView))


def dead_letter(dead_id: int) -> Call[DeadLetterDetail]:
    return read(DeadLetterDetail, (yield Ask("GET", f"/dead/{dead_id:d}")))


def algorithms() -> Call[dict[str, Any]]:
    answer: dict[str, Any] = yield Ask("GET", "/algorithms")
    return answer


# what becomes of dead letters


def replay(dead_id: int) -> Call[TaskView]:
    return read(TaskView, (yield Ask("POST", f"/dead/{dead_id:d}/replay")))


def discard(dead_id: int) -> Call[DeadLetterView]:
    return read(DeadLetterView, (yield Ask("POST", f"/dead/{dead_id:d}/discard")))


def settle_many(path: str, wanted: Sequence[int] | DeadLetterFilter) -> Call[DeadLettersDone]:
    """Replays or discards these dead letters, or all open ones that are wanted; finds what was done, part by part."""
    done: list[DeadLettersDone] = []
    for ask in _settling(path, wanted, done):
        done.append(read(DeadLettersDone, (yield ask)))
        yield Found(done[-1])
    return DeadLettersDone(done=sum(one.done for one in done), skipped=[each for one in done for each in one.skipped])


REPLAY_MANY, DISCARD_MANY = "/dead/replay", "/dead/discard"


def _settling(path: str, wanted: Sequence[int] | DeadLetterFilter, done: list[DeadLettersDone]) -> Iterator[Ask]:
    if not isinstance(wanted, DeadLetterFilter):
        for start in range(0, len(wanted), MOST_IN_PAGE):
            yield Ask("POST", path, as_body({"ids": list(wanted[start : start + MOST_IN_PAGE])}))
        return
    cursor = None
    while not done or cursor is not None:
        yield Ask("POST", path, as_body({"filter": wanted.body(), "limit": MOST_IN_PAGE, "cursor": cursor}))
        cursor = done[-1].next


def read(model: type[T], content: Any) -> T:
    """The answer in its shape. Raises GatewayUnreachable when it has another."""
    try:
        return from_json(model, content)
    except (ValueError, TypeError):
        raise GatewayUnreachable(
            f"the gateway answered with something else than a {model.__name__.lstrip('_')}; "
            "check its address and its version"
        ) from None


def as_body(value: Any) -> bytes:
    """Raises Refused for what cannot be sent."""
    try:
        return dumps(value)
    except BadJson as error:
        raise Refused(400, "malformed", f"the payload cannot be sent as JSON: {error}") from None


@dataclass(frozen=True, kw_only=True)
class _Tasks:
    """The answer about many tasks; what had no room in it is asked for again."""

    tasks: list[TaskView]
    left_out: list[str]


def _listed(path: str, query: Query, limit: int | None, name: str, model: type[E]) -> Call[list[E]]:
    """Up to `limit` entries (None: all), asked for as they are taken. A short page may have a next one."""
    query, left, entries = {**query}, limit, []
    while left is None or left > 0:
        query["limit"] = str(MOST_IN_PAGE if left is None else min(left, MOST_IN_PAGE))
        page = yield Ask("GET", path, query=query)
        if not isinstance(page, dict) or not isinstance(page.get(name), list):
            raise GatewayUnreachable("the gateway answered with something that is not a list; check its address")
        for content in page[name]:
            entries.append(read(model, content))
            yield Found(entries[-1])
        if page.get("next") is None:
            break
        query["cursor"] = str(page["next"])
        left = None if left is None else left - len(page[name])
    return entries


def _send(tasks: list[Outgoing], to_broker: bool) -> Call[Sequence[Any]]:
    if to_broker:
        answers: list[Refused | None] = yield Publish(tasks)
        return answers
    return (yield from submit_lines([task.body for task in tasks]))


def _look(task_id: str, wait_seconds: float, unseen_too: bool) -> Call[TaskView | None]:
    """None: nobody has seen it yet. What went straight to the broker has no row before it ran."""
    try:
        return (yield from get(task_id, wait_seconds))
    except Refused as error:
        if error.status == 404 and unseen_too:
            return None
        raise


def _is_open(view: TaskView | None, unseen_too: bool) -> bool:
    return unseen_too if view is None else not view.state.is_terminal


def _pause_since(asked_at: float, end: float) -> Pause:
    now = time.monotonic()
    return Pause(max(0.0, min(_PAUSE_SECONDS - (now - asked_at), end - now)))


def _path(task_id: str) -> str:
    if not is_task_id(task_id) or task_id in (".", ".."):
        raise Refused(422, "invalid_id", "a task id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return f"/tasks/{task_id}"


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
        if part and (len(part) == _PART_TASKS or size + len(task.body) > _PART_BYTES):
            yield part
            part, size = {}, 0
        part[position] = task
        size += len(task.body)
    if part:
        yield part


def _not_finished(task_id: str, view: TaskView | None, waited_seconds: float) -> NotFinished:
    if view is None:
        return NotFinished(
            f"nobody has seen task {task_id} after {waited_seconds:g} s; it waits, or was not sent", view
        )
    return NotFinished(f"task {task_id} is {view.state.value} after {waited_seconds:g} s; wait for it again", view)
