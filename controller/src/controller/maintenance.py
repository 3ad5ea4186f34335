"""What is done at intervals: runs in flight are watched, abandoned tasks failed, old finished ones deleted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack

from controller.admission import unknown_algorithm
from controller.commit_gate import CommitGate
from controller.completer import Completer
from controller.directory import RunnerDirectory
from controller.errors import RunnerError
from controller.outcomes import Cancel, Fail
from controller.runner_client import RunnerClient
from controller.runs import InFlight, Run
from controller.settings import ControllerSettings
from controller.triage import EXPIRED
from runnerlib.contract import RunnerLevel
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger
from taskqueue.clock import GuardedWall
from taskqueue.errors import TaskQueueError
from taskqueue.protocols import Sweeper, TaskStore
from taskqueue.tasks import Delivery

log = get_logger(__name__)

#: A run gets a placement after this long, so that short tasks cost one write, at their end.
PLACE_AFTER_SECONDS = 1.0
FOLLOW_EVERY_SECONDS = 0.25
MARKS_EVERY_SECONDS = 0.5
#: DELETE is sent again when the run has not ended after this long.
CANCEL_AGAIN_SECONDS = 5.0
#: A runner asks a run to stop and kills it after so long, unless its operator chose otherwise.
RUNNER_GRACE_SECONDS = 5.0
SWEEP_EVERY_SECONDS = 1.0
SWEEP_LIMIT = 500
#: What was noted of waiting tasks is written again after this long, and other controllers' old notes are dropped.
NOTE_AGAIN_SECONDS = 20.0
PURGE_EVERY_SECONDS = 3600.0
PURGE_LIMIT = 1000
#: A wall clock that jumped is believed after this long: what it makes expire, and what it makes old.
SWEEP_AFTER_JUMP_SECONDS = 600.0
PURGE_AFTER_JUMP_SECONDS = 86_400.0
_SECONDS_A_DAY = 86_400.0
#: No task has waited since before that, so a sweep with it finds expired ones alone.
_LONG_AGO = 0.0


class RunMonitor:
    """Follows all runs in flight together, so that there is one write and one query for all of them.

    A run whose write failed is written at the next interval.
    """

    def __init__(
        self,
        store: TaskStore,
        in_flight: InFlight,
        client: RunnerClient,
        completer: Completer,
        *,
        margin_seconds: float,
    ) -> None:
        """`margin_seconds`: how much longer than its grace a runner may take to cancel."""
        self._store = store
        self._in_flight = in_flight
        self._client = client
        self._completer = completer
        self._runner_may_take_seconds = RUNNER_GRACE_SECONDS + margin_seconds

    def start(self, stack: AsyncExitStack) -> None:
        """Follows runs until the stack is left."""
        runs = every(FOLLOW_EVERY_SECONDS, "following runs", self.place, self.report_progress)
        marks = every(MARKS_EVERY_SECONDS, "following cancel marks", self.read_cancel_marks, self.send_cancels)
        # A loop of its own: committing may wait for a broker under alarm.
        unheeded = every(MARKS_EVERY_SECONDS, "ending cancelled tasks", self.end_cancelled)
        background(stack, runs, "placements and progress")
        background(stack, marks, "cancel marks")
        background(stack, unheeded, "cancels that runners do not heed")

    async def place(self) -> None:
        """Writes which runner process has a run, once it has run for a second or reports progress."""
        now = time.monotonic()
        moved = [
            (run, place)
            for run in self._in_flight
            if (run.sent_at is None or now - run.sent_at >= PLACE_AFTER_SECONDS or run.progress is not None)
            and (place := run.current_placement) is not None
            and place != run.placement
        ]
        if moved:
            await self._store.place([(run.delivery, place) for run, place in moved])
            for run, place in moved:
                run.placement = place

    async def report_progress(self) -> None:
        # only of placed ones: a broker's tasks have no row before
        updates = [
            (run, run.progress)
            for run in self._in_flight
            if run.progress is not None and run.progress != run.reported and run.placement is not None
        ]
        if updates:
            await self._store.report_progress(
                [(run.id, run.delivery.attempt, progress.fraction, progress.message) for run, progress in updates]
            )
            for run, progress in updates:
                run.reported = progress

    async def read_cancel_marks(self) -> None:
        runs = [run for run in self._in_flight if not run.cancel_requested]
        if not runs:
            return
        marked = await self._store.cancel_requested([run.id for run in runs])
        for run in runs:
            if run.id in marked:
                run.cancel_requested = True
                log.info("task is to be cancelled", task_id=run.id, attempt=run.delivery.attempt)

    async def send_cancels(self) -> None:
        """Asks runners to cancel, again and again."""
        now = time.monotonic()
        due = [
            run
            for run in self._in_flight
            if run.cancel_requested
            and run.runner is not None
            and run.runner.level is RunnerLevel.FULL
            and run.sent_at is not None
            and (run.cancel_sent_at is None or now - run.cancel_sent_at >= CANCEL_AGAIN_SECONDS)
        ]
        await asyncio.gather(*(self._cancel(run, now) for run in due))

    async def _cancel(self, run: Run, now: float) -> None:
        assert run.runner is not None
        run.cancel_sent_at = now
        try:
            await self._client.cancel(run.runner, run.id)
        except RunnerError as error:
            log.warning("runner cannot be asked to cancel", task_id=run.id, runner=run.runner.id, reason=str(error))

    async def end_cancelled(self) -> None:
        """The store's cancel wins: a runner that has not ended the run by now is not waited for."""
        now = time.monotonic()
        over: list[Run] = []
        for run in self._in_flight:
            if not run.cancel_requested or run.is_committing:
                continue
            run.cancel_seen_at = now if run.cancel_seen_at is None else run.cancel_seen_at
            if now - run.cancel_seen_at >= self._runner_may_take_seconds:
                over.append(run)
        for run in over:
            runner = None if run.runner is None else run.runner.id
            log.warning("task is cancelled without its runner's word", task_id=run.id, runner=runner)
        if over:
            await self._completer.complete([(run, Cancel()) for run in over])


class Maintenance:
    """Fails tasks that no controller will take, and deletes old finished ones."""

    def __init__(
        self,
        sweeper: Sweeper,
        store: TaskStore,
        gate: CommitGate,
        directory: RunnerDirectory,
        completer: Completer,
        settings: ControllerSettings,
        pending_reasons: Callable[[], Mapping[str, str]],
        wall: GuardedWall,
    ) -> None:
        """`pending_reasons` returns the algorithms whose tasks wait although runners offer them, and why."""
        self._sweeper = sweeper
        self._store = store
        self._gate = gate
        self._directory = directory
        self._completer = completer
        self._pending_reasons = pending_reasons
        self._noted: dict[str, str] = {}
        self._noted_at = float("-inf")
        self._unknown_grace_seconds = settings.unknown_algorithm_grace_seconds
        self._retention_seconds = settings.retention_days * _SECONDS_A_DAY
        self._audit_retention_seconds = settings.audit_retention_days * _SECONDS_A_DAY
        self._wall = wall

    def start(self, stack: AsyncExitStack) -> None:
        """Works until the stack is left: at first it purges, and then each hour."""
        background(stack, every(SWEEP_EVERY_SECONDS, "sweeping", self.sweep, self.note_pending_reasons), "sweep")
        background(stack, every(PURGE_EVERY_SECONDS, "purging", self.purge, self.purge_audit, at_once=True), "purge")

    async def sweep(self) -> None:
        """Fails tasks that expired while they waited, and those whose algorithm is certainly unknown.

        A task whose outcome could not be committed comes again when its lease is over.
        """
        while await self.sweep_some() == SWEEP_LIMIT:
            pass

    async def sweep_some(self) -> int:
        if not self._gate.is_open or not self._wall.is_sure(SWEEP_AFTER_JUMP_SECONDS):
            return 0
        now = self._wall()
        known = self._directory.algorithms()
        unknown_before = now - self._unknown_grace_seconds if self._directory.is_sure else _LONG_AGO
        # through the gate, so that an unavailable store is noticed while nothing else is asked of it
        deliveries = await self._gate.retry_until_available(
            "sweeping", lambda: self._sweeper.sweep(known.keys(), unknown_before, SWEEP_LIMIT)
        )
        if deliveries:
            await self._completer.complete([(Run(each), _failure(each, known, now)) for each in deliveries])
        return len(deliveries)

    async def note_pending_reasons(self) -> None:
        """Writes down why tasks wait that runners could take, for the gateways."""
        now, reasons = self._wall(), dict(self._pending_reasons())
        if not self._gate.is_open or (reasons == self._noted and abs(now - self._noted_at) < NOTE_AGAIN_SECONDS):
            return
        await self._store.note_waiting(reasons, [name for name in self._noted if name not in reasons])
        self._noted, self._noted_at = reasons, now

    async def purge(self) -> None:
        """Deletes old finished tasks; no task that has not ended is touched."""
        while await self.purge_some() == PURGE_LIMIT:
            pass

    async def purge_some(self) -> int:
        if not self._wall.is_sure(PURGE_AFTER_JUMP_SECONDS):
            log.warning("the wall clock was set; old finished tasks are kept for a day, so that it can be set right")
            return 0
        count = await self._store.purge(self._wall() - self._retention_seconds, PURGE_LIMIT)
        if count:
            log.info("old finished tasks dropped", count=count)
        return count

    async def purge_audit(self) -> None:
        """Deletes old entries of the audit; none while the wall clock is in doubt."""
        before = self._wall() - self._audit_retention_seconds
        while self._wall.is_sure(PURGE_AFTER_JUMP_SECONDS):
            if await self._store.tokens.purge_audit(before, PURGE_LIMIT) < PURGE_LIMIT:
                return


async def every(seconds: float, what: str, *steps: Callable[[], Awaitable[None]], at_once: bool = False) -> None:
    """For ever: takes the steps, which may fail, at this interval."""
    if not at_once:
        await asyncio.sleep(seconds)
    while True:
        try:
            for step in steps:
                await step()
        except TaskQueueError as error:
            log.warning(f"{what} waits for the store or the queue", reason=str(error))
        except Exception:
            log.exception(f"{what} failed; it is tried again")
        await asyncio.sleep(seconds)


def _failure(delivery: Delivery, known: Collection[str], now: float) -> Fail:
    """Why a sweep found it. The store's clock was read a moment later than `now`."""
    if delivery.algorithm in known or (delivery.expires_at is not None and delivery.expires_at <= now):
        return EXPIRED
    return unknown_algorithm(delivery.algorithm, known)
