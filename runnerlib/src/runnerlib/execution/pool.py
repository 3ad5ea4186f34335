"""The worker processes of a runner: one group for each set of algorithms that share processes, kept alive."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, replace

from runnerlib.adapter.model import Adapter, Algorithm, ProcessGroup
from runnerlib.execution import outcomes
from runnerlib.execution.metrics import RunMetrics
from runnerlib.execution.slot import Slot
from runnerlib.execution.work_queue import Call, WorkQueue
from runnerlib.execution.worker_process import StartFailed, WorkerProcess, start_process
from runnerlib.fetching.addresses import FetchRules
from runnerlib.leftovers import TemporaryFolders
from runnerlib.run_registry import Outcome, Run, pop_ended
from runnerlib.service.backoff import Backoff
from runnerlib.service.component import Component
from runnerlib.service.health import Health
from runnerlib.service.lifecycle import background
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


@dataclass(frozen=True)
class ProcessSetup:
    """What a worker process is sent at its start."""

    adapter: str
    #: where the serving process finds modules
    import_path: tuple[str, ...]
    overrides: Mapping[str, str]
    device: str
    service: str
    log_level: str
    log_format: str
    fetch_rules: FetchRules
    algorithms: tuple[str, ...] = ()
    is_async: bool = False
    watch_rss: bool = False
    self_test: bool = False


@dataclass(frozen=True)
class PoolContext:
    """What all groups share. `finish` and `release` record what becomes of a run; `ready_changed` is called when a
    process has loaded, or cannot.
    """

    finish: Callable[[Run, Outcome], None]
    release: Callable[[Run], None]
    ready_changed: Callable[[], None]
    health: Health
    metrics: RunMetrics
    cancel_grace_seconds: float


class Pool(Component):
    """Entering starts the processes, which become ready later; leaving ends them."""

    def __init__(self, adapter: Adapter, setup: ProcessSetup, context: PoolContext) -> None:
        self._folders = TemporaryFolders()
        self._groups = [Group(spec, adapter, setup, context, self._folders) for spec in adapter.process_groups]
        self._by_algorithm = {name: group for group in self._groups for name in group.spec.algorithms}
        for group in self._groups:
            context.metrics.slots(group.spec.name, group.spec.slots)
        self._stop_by: float | None = None

    async def _start(self, stack: AsyncExitStack) -> None:
        await asyncio.to_thread(self._folders.open)
        stack.push_async_callback(asyncio.to_thread, self._folders.close)
        for group in self._groups:
            for index in range(len(group.slots)):
                background(stack, group.supervise(index), f"worker process {index} of {group.spec.name}")
        stack.push_async_callback(self._stop)

    async def _stop(self) -> None:
        seconds = TEAR_DOWN_SECONDS if self._stop_by is None else max(0.0, self._stop_by - time.monotonic())
        await asyncio.gather(*(group.stop(min(seconds, TEAR_DOWN_SECONDS)) for group in self._groups))

    def group_of(self, algorithm: str) -> "Group":
        return self._by_algorithm[algorithm]

    def working(self) -> list[str]:
        """The algorithms that can run now; none before every process has loaded, or failed to, once."""
        if not all(group.is_decided for group in self._groups):
            return []
        return [name for name, group in self._by_algorithm.items() if not group.unready_reason]

    def stop_by(self, monotonic: float) -> None:
        """When processes that are still tearing down are killed."""
        self._stop_by = monotonic

    async def drain(self, seconds: float) -> None:
        """Gives up what waits, lets what runs end for so long, then kills it. No attempt is counted."""
        await asyncio.gather(*(group.drain(seconds) for group in self._groups))


class Group:
    """The worker processes of one process group, and the runs that wait for them.

    See :class:`runnerlib.execution.slot.Owner` for what its slots ask of it.
    """

    def __init__(
        self,
        spec: ProcessGroup,
        adapter: Adapter,
        setup: ProcessSetup,
        context: PoolContext,
        folders: TemporaryFolders,
    ) -> None:
        self.spec = spec
        self.cancel_grace_seconds = context.cancel_grace_seconds
        self.finish = context.finish
        self._algorithms: Mapping[str, Algorithm] = {name: adapter.algorithms[name] for name in spec.algorithms}
        watch_rss = spec.max_rss_mb is not None
        self._setup = replace(setup, algorithms=spec.algorithms, is_async=spec.is_async, watch_rss=watch_rss)
        self._context = context
        self._metrics = context.metrics
        self._folders = folders
        self.queue = WorkQueue(self._algorithms, spec.slots)
        self.slots = [Slot(self, spec.slots)] if spec.is_async else [Slot(self, 1) for _ in range(spec.slots)]
        self._workers: dict[int, WorkerProcess] = {}
        self._unready = dict.fromkeys(range(len(self.slots)), "loading")
        #: slots whose first process has neither loaded nor failed to
        self._undecided = set(self._unready)
        self._spares: dict[int, asyncio.Task[WorkerProcess]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        #: runs of each batch that have not ended, and the bytes that it had
        self._open_batches: list[tuple[list[Run], int]] = []
        self._draining = self._stopping = False
        self._sweep: asyncio.TimerHandle | None = None
        self._tear_down_seconds = TEAR_DOWN_SECONDS
        self._call_ended = asyncio.Event()
        self._report_health()

    # called by the run manager

    @property
    def has_room(self) -> bool:
        """One batch for each slot beyond those that run."""
        self._close_batches()
        waiting_bytes = sum(size for _, size in self._open_batches)
        return len(self._open_batches) < 2 * self.spec.slots and waiting_bytes < MAX_WAITING_BYTES

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
        """Queues one batch and gives it to the slots that are free; ask :attr:`has_room` first."""
        if not runs:
            return
        self._open_batches.append((list(runs), sum([len(run.payload) for run in runs])))
        self.queue.add(runs)
        for slot in self.slots:
            slot.schedule()
        if any(run.deadline_at is not None for run in runs):
            self._expire_waiting()

    def cancel(self, run: Run) -> None:
        """Asks a run to stop and kills it after the grace; one that waits ends at once."""
        run.cancel_requested = True
        if not any(slot.cancel(run) for slot in self.slots):
            self.finish(run, outcomes.CANCELLED)

    def stop_run(self, run: Run) -> None:
        """Stops a run whose outcome is recorded already."""
        any(slot.stop_run(run) for slot in self.slots)

    # called by the slots

    def algorithm(self, name: str) -> Algorithm:
        return self._algorithms[name]

    def requeue(self, runs: list[Run], isolated: bool) -> None:
        """Takes back unfinished runs; no attempt is counted. `isolated`: each is to run alone in its process."""
        for run in runs:
            run.started_at = None
            run.progress = None
            if run.cancel_requested:
                self.finish(run, outcomes.CANCELLED)
        runs = [run for run in runs if run.outcome is None]
        if self._draining:
            self._release(runs)
        elif isolated:
            self.queue.add_isolated(runs)
        else:
            self.queue.requeue(runs)

    def call_started(self, call: Call) -> None:
        self._metrics.call(call.runs[0].algorithm, len(call.runs))
        self._metrics.busy(self.spec.name, sum(slot.busy for slot in self.slots))
        if self.spec.max_tasks_per_process == 1 and not self.spec.is_async:
            self._start_spare()

    def call_ended(self) -> None:
        self._close_batches()
        self._metrics.busy(self.spec.name, sum(slot.busy for slot in self.slots))
        self._call_ended.set()

    # the life of the processes

    async def supervise(self, index: int) -> None:
        """Keeps slot `index` served by a process until :meth:`stop`."""
        slot = self.slots[index]
        self_test, backoff = True, Backoff(FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)
        while not self._stopping:
            try:
                worker = await self._next_worker(slot, self_test)
            except StartFailed as error:
                seconds = backoff.next_seconds()
                self._start_failed(index, str(error), seconds)
                await asyncio.sleep(seconds)
                continue
            self_test = False
            self._workers[index] = worker
            self._unready.pop(index, None)
            self._undecided.discard(index)
            self._report_health()
            try:
                reason = await slot.serve(worker)
            finally:
                self._workers.pop(index, None)
                self._stop_worker(worker)
            if self._stopping:
                return
            self._metrics.restart(self.spec.name, reason)
            log.info("a worker process is replaced", group=self.spec.name, pid=worker.pid, reason=reason)
            if reason == "died" and slot.served == 0:
                # It died of what it loaded, not of a task.
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()

    async def drain(self, seconds: float) -> None:
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
        """Ends the processes; :meth:`supervise` returns."""
        self._stopping = True
        self._tear_down_seconds = tear_down_seconds
        if self._sweep is not None:
            self._sweep.cancel()
        spares = list(self._spares.values())
        for spare in spares:
            spare.cancel()
        for worker in list(self._workers.values()):
            self._stop_worker(worker)
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
            start = start_process(asdict(self._setup), lambda _: None, self._folders)
            spare = asyncio.get_running_loop().create_task(start)
            self._spares[id(spare)] = spare

    def _stop_worker(self, worker: WorkerProcess) -> None:
        """In a task of its own: the slot does not wait for it."""
        if not worker.exited.done():
            task = asyncio.get_running_loop().create_task(worker.stop(self._tear_down_seconds))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _start_failed(self, index: int, reason: str, retry_seconds: float) -> None:
        is_news = self._unready.get(index) != reason
        self._unready[index] = reason
        self._undecided.discard(index)
        self._report_health()
        # The same reason is logged once; readiness keeps showing it.
        write = log.error if is_news else log.debug
        write("a worker process cannot start", group=self.spec.name, reason=reason, retry_seconds=retry_seconds)
        if self.unready_reason:
            # It may not work again for long: other runners can take what waits.
            self._release(self.queue.clear())

    def _report_health(self) -> None:
        reason = next(iter(self._unready.values()), "")
        self._context.health.set(f"worker processes of {self.spec.name}", not reason, reason)
        self._context.ready_changed()

    def _release(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._context.release(run)

    def _close_batches(self) -> None:
        """Forgets the batches whose runs have all ended."""
        self._open_batches = [batch for batch in self._open_batches if pop_ended(batch[0])]

    def _expire_waiting(self) -> None:
        """Fails waiting runs whose deadline has passed, so that their senders need not wait for their turn."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        now = time.monotonic()
        waiting = [run for run in self.queue.waiting() if run.deadline_at is not None]
        for run in waiting:
            if run.deadline_at is not None and run.deadline_at <= now:
                self.finish(run, outcomes.expired())
        deadlines = [run.deadline_at for run in waiting if run.outcome is None and run.deadline_at is not None]
        if deadlines and not self._stopping:
            wait = max(_SWEEP_SECONDS, min(deadlines) - now)
            self._sweep = asyncio.get_running_loop().call_later(wait, self._expire_waiting)
