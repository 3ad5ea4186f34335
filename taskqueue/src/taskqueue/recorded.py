"""A broker's queue with a store that has a row for each task as soon as it is sent. Gateways publish through it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from taskqueue.protocols import Feed, Ledger, TaskQueue
from taskqueue.replays import MAX_REPLAYS, in_portions
from taskqueue.tasks import DeadAnswer, Delivery, Identity, NewTask, Published, Reply, publish_results
from taskqueue.tokens import EVERYTHING, AuditNote, Reach


class RecordedQueue:
    """See `taskqueue.protocols.TaskQueue`; the caller opens and closes `queue` and `ledger`.

    A task is sent first and its row is written second. When this process dies in between, the task runs all the same
    and gets its row from the controller; a row without a task would be waited for in vain.
    """

    def __init__(self, queue: TaskQueue, ledger: Ledger) -> None:
        self._queue = queue
        self._ledger = ledger
        #: by id: done when the call that sends it is over
        self._sending: dict[str, asyncio.Future[None]] = {}

    async def publish(self, tasks: Sequence[NewTask], *, durable: bool = True) -> list[Published]:
        """Sends what the store does not know yet. Raises QueueUnavailable or StoreUnavailable.

        After either, some tasks may have been sent: the same again, with the same ids, makes each of them one task.
        Of two calls with the same id, the second waits for the first: one message is sent, not two.
        """
        async with self._exclusively({task.id for task in tasks}):
            return await self._publish(tasks)

    async def _publish(self, tasks: Sequence[NewTask]) -> list[Published]:
        rows = await self._ledger.lookup(list(dict.fromkeys(task.id for task in tasks)))
        known: dict[str, Identity] = {task_id: (row.digest, row.submitted_by) for task_id, row in rows.items()}
        unknown: list[NewTask] = []
        #: cancelled before they came: they only get their content
        tombstones: list[NewTask] = []
        for task in tasks:
            before = known.get(task.id)
            if before in (None, ("", task.submitted_by)):
                known[task.id] = task.identity
                (unknown if before is None else tombstones).append(task)
        # One that waits in the store is in its queue as soon as it is admitted.
        sent = [self._ledger.sealed(task) for task in unknown if not task.waits_in_store]
        if sent:
            await self._queue.publish(sent)
        if unknown or tombstones:
            admitted = [*unknown, *tombstones]
            outcomes = await self._ledger.admit(admitted)
            # DUPLICATE: its controller, or another sender of the same, was faster. CONFLICT: another task was.
            for task, outcome in zip(admitted, outcomes, strict=True):
                if outcome is Published.CONFLICT:
                    known[task.id] = "", None
        return publish_results(tasks, known, {task.id for task in unknown})

    @asynccontextmanager
    async def _exclusively(self, ids: set[str]) -> AsyncIterator[None]:
        """Holds all of these ids at once, so that no two calls wait for each other."""
        while held := self._sending.keys() & ids:
            await asyncio.wait([self._sending[task_id] for task_id in held])
        over = asyncio.get_running_loop().create_future()
        self._sending |= dict.fromkeys(ids, over)
        try:
            yield
        finally:
            for task_id in ids:
                del self._sending[task_id]
            over.set_result(None)

    async def replay(
        self, dead_ids: Sequence[int], *, reach: Reach = EVERYTHING, note: AuditNote | None = None
    ) -> list[DeadAnswer]:
        """See `taskqueue.protocols.Replayer`.

        The row first, so that a controller that is handed the message finds it waiting; the dead letter last, so that
        one whose message may not have gone out stays open. Replaying it again sends the same attempt once more.
        """
        return await in_portions(dead_ids, MAX_REPLAYS, lambda portion: self._replay(portion, reach, note))

    async def _replay(self, dead_ids: Sequence[int], reach: Reach, note: AuditNote | None) -> dict[int, DeadAnswer]:
        revived = dict(zip(dead_ids, await self._ledger.revive(dead_ids, reach=reach, note=note), strict=True))
        tasks = {dead_id: each.task for dead_id, each in revived.items() if each.task is not None}
        sent = [self._ledger.sealed(task) for task in tasks.values() if not task.waits_in_store]
        if sent:
            await self._queue.publish(sent)
        if tasks:
            await self._ledger.mark_replayed(list(tasks))
        return {dead_id: each.answer for dead_id, each in revived.items()}

    async def flush(self) -> None:
        await self._queue.flush()

    async def feed(self, algorithm: str) -> Feed:
        return await self._queue.feed(algorithm)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._queue.ack(deliveries)

    async def retry(self, deliveries: Sequence[Delivery], delay_seconds: Sequence[float]) -> None:
        await self._queue.retry(deliveries, delay_seconds)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._queue.release(deliveries)

    async def reply(self, replies: Sequence[Reply]) -> None:
        await self._queue.reply(replies)
