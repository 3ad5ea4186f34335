"""The worker processes of one process group, kept alive, and the runs that wait for them."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace

from runnerlib.adapter.model import Adapter, Algorithm, ProcessGroup
from runnerlib.execution import endings
from runnerlib.execution.call import Call
from runnerlib.execution.measures import Measures
from runnerlib.execution.setup import Callbacks, ProcessSetup
from runnerlib.execution.slot import Slot
from runnerlib.execution.work_queue import WorkQueue
from runnerlib.execution.worker_process import StartFailed, WorkerProcess, start_process
from runnerlib.leftovers import TemporaryFolders
from runnerlib.run_table import Run
from runnerlib.service.health import Health
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Pauses between attempts to load what cannot be loaded.
FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0
#: A process that is replaced or stopped may tear down for so long.
TEAR_DOWN_SECONDS = 5.0
#: Waiting payloads of one group; more are refused as busy.
MAX_WAITING_BYTES = 64 * 1024 * 1024
#: Deadlines of waiting runs are looked at no more often.
_SWEEP_SECONDS = 0.1


class Group:
    """See :class:`runnerlib.execution.slot.Owner` for what its slots ask of it."""

    def __init__(
        self,
        group: ProcessGroup,
        adapter: Adapter,
        setup: ProcessSetup,
        callbacks: Callbacks,
        health: Health,
        measures: Measures,
        cancel_grace_seconds: float,
        folders: TemporaryFolders,
    ) -> None:
        self.group = group
        self._folders = folders
        self.cancel_grace_seconds = cancel_grace_seconds
        self._algorithms: Mapping[str, Algorithm] = {name: adapter.algorithms[name] for name in group.algorithms}
        self._setup = replace(
            setup,
            algorithms=group.algorithms,
            is_async=group.is_async,
            watch_rss=group.max_rss_mb is not None,
        )
        self.finish = callbacks.finish
        self._callbacks = callbacks
        self._health = health
        self._measures = measures
        self.queue = WorkQueue(self._algorithms, group.slots)
        self.slots = [Slot(self, group.slots)] if group.is_async else [Slot(self, 1) for _ in range(group.slots)]
        self._workers: dict[int, WorkerProcess] = {}
        self._unready = dict.fromkeys(range(len(self.slots)), "loading")
        #: slots whose first process has neither loaded nor failed to
        self._undecided = set(range(len(self.slots)))
        self._spares: dict[int, asyncio.Task[WorkerProcess]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._open_batches = 0
        self._waiting_bytes = 0
        self._draining = False
        self._stopping = False
        self._sweep: asyncio.TimerHandle | None = None
        self._tear_down_seconds = TEAR_DOWN_SECONDS
        self._call_ended = asyncio.Event()
        self._tell_health()

    # from the HTTP side

    @property
    def has_room(self) -> bool:
        """One batch for each slot beyond those that run."""
        return self._open_batches < 2 * self.group.slots and self._waiting_bytes < MAX_WAITING_BYTES

    @property
    def unready_reason(self) -> str:
        """Why nothing can run here now; empty when something can."""
        reasons = list(self._unready.values())
        return reasons[0] if len(reasons) == len(self.slots) else ""

    @property
    def is_decided(self) -> bool:
        """Whether every slot has loaded, or failed to, at least once."""
        return not self._undecided

    def add(self, runs: list[Run]) -> None:
        """Queues one batch and gives it to the slots that are free."""
        if not runs:
            return
        self._open_batches += 1
        size = sum([len(run.payload) for run in runs])
        self._waiting_bytes += size
        left = len(runs)

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._open_batches -= 1
                self._waiting_bytes -= size

        for run in runs:
            run.watchers.append(one_less)
        self.queue.add(runs)
        self._kick()
        if any(run.deadline_at is not None for run in runs):
            self._expire_waiting()

    def cancel(self, run: Run) -> None:
        if not any(slot.cancel(run) for slot in self.slots):
            self.finish(run, endings.CANCELLED)

    def stop_run(self, run: Run) -> None:
        """Stops a run whose outcome is recorded already."""
        for slot in self.slots:
            if slot.stop_run(run):
                return

    # from the slots

    def algorithm(self, name: str) -> Algorithm:
        return self._algorithms[name]

    def again(self, runs: list[Run], alone: bool) -> None:
        """Runs that were taken and cost nobody an attempt."""
        for run in runs:
            run.started_at = None
            run.progress = None
            if run.cancel_requested:
                self.finish(run, endings.CANCELLED)
        runs = [run for run in runs if run.outcome is None]
        if self._draining:
            self._release(runs)
        elif alone:
            self.queue.add_alone(runs)
        else:
            self.queue.add_again(runs)

    def call_started(self, call: Call) -> None:
        self._measures.call(call.runs[0].algorithm, len(call.runs))
        self._measures.busy(self.group.name, sum(slot.busy for slot in self.slots))
        if self.group.max_tasks_per_process == 1 and not self.group.is_async:
            self._start_spare()

    def call_ended(self) -> None:
        self._measures.busy(self.group.name, sum(slot.busy for slot in self.slots))
        self._call_ended.set()

    # the life of the processes

    async def keep(self, index: int) -> None:
        """Keeps slot `index` served by a process, for ever."""
        slot = self.slots[index]
        self_test, backoff = True, FIRST_BACKOFF_SECONDS
        while not self._stopping:
            try:
                worker = await self._next_worker(slot, self_test)
            except StartFailed as error:
                self._not_loaded(index, str(error), backoff)
                await asyncio.sleep(backoff)
                backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff)
                continue
            self_test = False
            self._workers[index] = worker
            self._unready.pop(index, None)
            self._undecided.discard(index)
            self._tell_health()
            try:
                reason = await slot.serve(worker)
            finally:
                self._workers.pop(index, None)
                self._leave(worker)
            if self._stopping:
                return
            self._measures.restart(self.group.name, reason)
            log.info("a worker process is replaced", group=self.group.name, pid=worker.pid, reason=reason)
            if reason == "died" and slot.served == 0:
                # It died of what it loaded, not of a task.
                await asyncio.sleep(backoff)
                backoff = min(MAX_BACKOFF_SECONDS, 2 * backoff)
            else:
                backoff = FIRST_BACKOFF_SECONDS

    async def drain(self, seconds: float) -> None:
        """Gives up what waits, lets what runs end for so long, then kills it. Nothing of this counts."""
        self._draining = True
        self._release(self.queue.clear())
        ends_at = time.monotonic() + seconds
        while any(slot.busy for slot in self.slots) and (left := ends_at - time.monotonic()) > 0:
            self._call_ended.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._call_ended.wait(), left)
        for slot in self.slots:
            interrupted = slot.runs()
            if interrupted:
                self._release(interrupted)
                slot.kill()

    async def stop(self, tear_down_seconds: float) -> None:
        """Ends the processes; :meth:`keep` returns."""
        self._stopping = True
        self._tear_down_seconds = tear_down_seconds
        if self._sweep is not None:
            self._sweep.cancel()
        spares = list(self._spares.values())
        for spare in spares:
            spare.cancel()
        for worker in list(self._workers.values()):
            self._leave(worker)
        waiting = {*self._leaving, *spares}
        if waiting:
            await asyncio.wait(waiting)

    async def _next_worker(self, slot: Slot, self_test: bool) -> WorkerProcess:
        if self._spares:
            _, spare = self._spares.popitem()
            # Whichever slot started it: from here on its frames belong to this one.
            worker = await spare
            if not worker.exited.done():
                worker.on_frames(slot.on_frames)
                return worker
        return await start_process(asdict(replace(self._setup, self_test=self_test)), slot.on_frames, self._folders)

    def _start_spare(self) -> None:
        """A process that serves one task only is replaced at its start: the next task need not wait for the load."""
        if len(self._spares) < len(self.slots) and not self._stopping:
            start = start_process(asdict(self._setup), _ignore, self._folders)
            spare = asyncio.get_running_loop().create_task(start)
            self._spares[id(spare)] = spare

    def _leave(self, worker: WorkerProcess) -> None:
        """Stops a process beside what goes on here."""
        if not worker.exited.done():
            task = asyncio.get_running_loop().create_task(worker.stop(self._tear_down_seconds))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _not_loaded(self, index: int, reason: str, backoff: float) -> None:
        is_news = self._unready.get(index) != reason
        self._unready[index] = reason
        self._undecided.discard(index)
        self._tell_health()
        # What stays the same is said once; readiness goes on saying it.
        say = log.error if is_news else log.debug
        say("a worker process cannot start", group=self.group.name, reason=reason, retry_seconds=backoff)
        if self.unready_reason:
            # Nobody knows when it will work again: others may take what waits.
            self._release(self.queue.clear())

    def _tell_health(self) -> None:
        reason = next(iter(self._unready.values()), "")
        self._health.set(f"worker processes of {self.group.name}", not reason, reason)
        self._callbacks.ready_changed()

    def _kick(self) -> None:
        for slot in self.slots:
            slot.kick()

    def _release(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._callbacks.release(run)

    def _expire_waiting(self) -> None:
        """Fails what waits beyond its deadline: whoever asks need not wait for its turn."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        now = time.monotonic()
        waiting = [run for run in self.queue.waiting() if run.deadline_at is not None]
        for run in waiting:
            if run.deadline_at is not None and run.deadline_at <= now:
                self.finish(run, endings.expired())
        deadlines = [run.deadline_at for run in waiting if run.outcome is None and run.deadline_at is not None]
        if deadlines and not self._stopping:
            wait = max(_SWEEP_SECONDS, min(deadlines) - now)
            self._sweep = asyncio.get_running_loop().call_later(wait, self._expire_waiting)


def _ignore(_frames: object) -> None:
    return None
