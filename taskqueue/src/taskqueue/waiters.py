"""Waiting for tasks to end, within one process. Lives on the event loop."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from taskqueue.tasks import TaskRow


class EndEvent(asyncio.Event):
    """Is set when a task has ended."""

    #: the ended task, if whoever ended it has read it for its waiters
    row: TaskRow | None = None


class Waiters:
    """Any number of waiters for any number of ids."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[EndEvent, int]] = {}

    @contextmanager
    def waiting(self, task_id: str) -> Iterator[EndEvent]:
        """An event that is set when the task ends from now on."""
        event, count = self._events.get(task_id, (EndEvent(), 0))
        self._events[task_id] = (event, count + 1)
        try:
            yield event
        finally:
            self._leave(task_id, event)

    def ids(self) -> Collection[str]:
        """The ids that are waited for."""
        return self._events.keys()

    def ended(self, ids: Iterable[str], rows: Mapping[str, TaskRow] | None = None) -> None:
        """Wakes the waiters of these ids."""
        if not self._events:
            return
        for task_id in ids:
            event, _ = self._events.pop(task_id, (None, 0))
            if event is not None:
                event.row = rows.get(task_id) if rows else None
                event.set()

    def _leave(self, task_id: str, event: EndEvent) -> None:
        current, count = self._events.get(task_id, (None, 0))
        if current is not event:
            return
        if count == 1:
            del self._events[task_id]
        else:
            self._events[task_id] = (event, count - 1)
