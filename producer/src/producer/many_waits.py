"""Waits for many tasks by few questions."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from producer.client import GatewayClient
from producer.errors import Refused
from runnerlib.contract import TaskView

#: Tasks in one question; their results come with the answer.
MOST_AT_ONCE = 100
#: Between two questions that are answered at once: what stands before the gateway keeps the wish to wait from it.
_PAUSE_SECONDS = 0.2
T = TypeVar("T")


def wait_for_part(
    gateway: GatewayClient,
    task_ids: Sequence[str],
    end: float,
    *,
    slice_seconds: float,
    unseen_too: bool = False,
    show: Callable[[TaskView | None], None] = lambda _view: None,
) -> dict[str, TaskView]:
    """Up to 100 tasks: all when they have ended, else as they are at `end` (monotonic).

    Those that nobody knows are missing; with `unseen_too` they are waited for. `show` sees one that has not ended,
    again and again. The last is waited for first: mostly, all have ended then.
    """
    found: dict[str, TaskView] = {}
    left = list(dict.fromkeys(task_ids))
    while True:
        asked_at = time.monotonic()
        now = gateway.get_many(left)
        found |= now
        left = [task_id for task_id in left if _is_open(now.get(task_id), unseen_too)]
        if not left or time.monotonic() >= end:
            return found
        show(found.get(left[-1]))
        _wait(gateway, left[-1], max(0.0, min(slice_seconds, end - time.monotonic())))
        pause = min(_PAUSE_SECONDS - (time.monotonic() - asked_at), end - time.monotonic())
        time.sleep(max(0.0, pause))


def parts(items: Iterable[T], size: int = MOST_AT_ONCE) -> Iterator[list[T]]:
    """The items in lists of so many."""
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _is_open(view: TaskView | None, unseen_too: bool) -> bool:
    return unseen_too if view is None else not view.state.is_terminal


def _wait(gateway: GatewayClient, task_id: str, seconds: float) -> None:
    try:
        gateway.get(task_id, wait_seconds=seconds)
    except Refused as error:
        if error.status != 404:
            raise
