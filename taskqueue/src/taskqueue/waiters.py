"""Waiting for tasks to end, within one process. Lives on the event loop."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Waiters:
    """Any number of waiters for any number of ids."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[asyncio.Event, int]] = {}

    @contextmanager
    def waiting(self, task_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the task ends from now on."""
        event, count = self._events.get(task_id, (asyncio.Event(), 0))
        self._events[task_id] = (event, count + 1)
        try:
            yield event
        finally:
            self._leave(task_id, event)

    def ids(self) -> list[str]:
        """The ids that are waited for."""
        return list(self._events)

    def ended(self, ids: Iterable[str]) -> None:
        """Wakes the waiters of these ids."""
        if not self._events:
            return
        for task_id in ids:
            entry = self._events.pop(task_id, None)
            if entry is not None:
                entry[0].set()

    def _leave(self, task_id: str, event: asyncio.Event) -> None:
        current, count = self._events.get(task_id, (None, 0))
        if current is not event:
            return
        if count == 1:
            del self._events[task_id]
        else:
            self._events[task_id] = (event, count - 1)
