"""The gateway's work on tasks: admit, publish, wait, cancel. No HTTP in here."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from producer.gateway.submission import Admission, Known, Refused, conflict
from producer.gateway.telemetry import GatewayMetrics
from runnerlib.contract import TaskState
from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import CancelAnswer, NewTask, Page, Published, TaskFilter, TaskRow, TaskSummary

P = ParamSpec("P")
T = TypeVar("T")

#: Bodies beyond this are read and checked in a thread, so that they don't hold up the loop,
_THREAD_ABOVE_BYTES = 32 * 1024
#: so many at once: all threads share one interpreter with the loop, and more would hold it up together.
_MOST_THREADS = 2


@dataclass(frozen=True, slots=True)
class Queued:
    """A task that is durable in the queue. `at` is when, in seconds since the epoch."""

    task: NewTask
    at: float


@dataclass(frozen=True, slots=True)
class Cancelling:
    """What `cancel` did, and the task after it."""

    answer: CancelAnswer
    row: TaskRow | None


class Desk:
    """One for each gateway. Every method may raise QueueUnavailable or StoreUnavailable."""

    def __init__(
        self, queue: TaskQueue, store: TaskStore, known: Known, admission: Admission, metrics: GatewayMetrics
    ) -> None:
        self._queue = queue
        self._store = store
        self._known = known
        self._admission = admission
        self._metrics = metrics
        self._threads = asyncio.Semaphore(_MOST_THREADS)

    async def submit(self, body: bytes, spare_id: str | None) -> Queued | TaskRow | Refused:
        """Queues one message. A TaskRow when the same task is known already."""
        return await self._submit(len(body), lambda now: self._admission.one(body, now, spare_id))

    async def submit_payload(
        self, algorithm: str, body: bytes, spare_id: str | None, expires_seconds: float | None
    ) -> Queued | TaskRow | Refused:
        """The same for a payload that came alone."""
        return await self._submit(
            len(body), lambda now: self._admission.payload(algorithm, body, now, spare_id, expires_seconds)
        )

    async def _submit(self, size: int, admit: Callable[[float], NewTask | Refused]) -> Queued | TaskRow | Refused:
        now = time.time()
        admitted = await self._in_thread(admit, now) if size > _THREAD_ABOVE_BYTES else admit(now)
        if isinstance(admitted, Refused):
            self._count(admitted.algorithm, admitted.code.value)
            return admitted
        [published] = await self._publish([admitted])
        if published is Published.CONFLICT:
            return conflict(admitted)
        try:
            # Times are the store's, here as in every later answer.
            return await self._store.get(admitted.id) or Queued(admitted, now)
        except StoreUnavailable:
            if published is Published.DUPLICATE:
                raise
            return Queued(admitted, now)  # it is durable, whatever has become of the store since

    async def submit_many(self, body: bytes, *, in_lines: bool) -> list[Refused | tuple[str, TaskState]] | Refused:
        """Queues a batch by one publish: (id, state) or a refusal for each message, in order."""
        admit = self._admission.lines if in_lines else self._admission.array
        admitted = await self._in_thread(admit, body, time.time())
        if isinstance(admitted, Refused):
            self._count(None, admitted.code.value)
            return admitted
        for entry in admitted:
            if isinstance(entry, Refused):
                self._count(entry.algorithm, entry.code.value)
        settled = iter(await self._settle([entry for entry in admitted if isinstance(entry, NewTask)]))
        return [entry if isinstance(entry, Refused) else next(settled) for entry in admitted]

    async def look(self, task_id: str, wait_seconds: float) -> TaskRow | None:
        """The task; with `wait_seconds` as soon as it has ended, or after that long."""
        if wait_seconds <= 0:
            return await self._store.get(task_id)
        with self._metrics.waits.track_inprogress():
            return await self._store.wait_finished(task_id, wait_seconds)

    async def look_many(self, task_ids: Sequence[str]) -> dict[str, TaskRow]:
        """Those of the tasks that are known."""
        return await self._store.lookup(task_ids) if task_ids else {}

    async def page(self, wanted: TaskFilter, limit: int, before: int | None) -> Page[TaskSummary]:
        """Part of the list of tasks, newest first."""
        return await self._store.list_tasks(wanted, limit=limit, before=before)

    async def cancel(self, task_id: str) -> Cancelling:
        answer = await self._store.cancel(task_id)
        return Cancelling(answer, await self._store.get(task_id))

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        async with self._threads:
            return await asyncio.to_thread(work, *arguments, **named)

    async def _publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        published = await self._queue.publish(tasks)
        for task, outcome in zip(tasks, published, strict=True):
            self._count(task.algorithm, "id_conflict" if outcome is Published.CONFLICT else outcome.value)
        return published

    async def _settle(self, tasks: list[NewTask]) -> list[Refused | tuple[str, TaskState]]:
        outcomes = await self._publish(tasks) if tasks else []
        known = [task.id for task, outcome in zip(tasks, outcomes, strict=True) if outcome is Published.DUPLICATE]
        rows = await self._store.lookup(known) if known else {}
        return [
            conflict(task)
            if outcome is Published.CONFLICT
            else (task.id, rows[task.id].state if task.id in rows else TaskState.QUEUED)
            for task, outcome in zip(tasks, outcomes, strict=True)
        ]

    def _count(self, algorithm: str | None, outcome: str) -> None:
        catalogue = self._known.catalogue
        is_known = catalogue is not None and algorithm in catalogue.algorithms
        self._metrics.submitted(algorithm, outcome, is_known)
