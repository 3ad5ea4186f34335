"""Looks after the runs in flight: where they are, how far they are, and whether somebody wants them cancelled."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from controller.completer import Completer
from controller.errors import RunnerError
from controller.outcomes import Cancel
from controller.runner_client import RunnerClient
from controller.runs import InFlight, Run
from runnerlib.contract import RunnerLevel
from runnerlib.service.logs import get_logger
from taskqueue.errors import StoreUnavailable
from taskqueue.protocols import TaskStore

log = get_logger(__name__)

#: A run gets a placement after this long, so that short tasks cost one write, at their end.
PLACE_AFTER_SECONDS = 1.0
TEND_EVERY_SECONDS = 0.25
MARKS_EVERY_SECONDS = 0.5
#: DELETE is sent again when the run has not ended after this long.
CANCEL_AGAIN_SECONDS = 5.0
#: A runner asks a run to stop and kills it after so long, unless its operator chose otherwise.
RUNNER_GRACE_SECONDS = 5.0


class RunMonitor:
    """Loops for all lanes together, so that there is one write and one query for all runs."""

    def __init__(
        self,
        store: TaskStore,
        in_flight: InFlight,
        client: RunnerClient,
        completer: Completer,
        *,
        margin_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`margin_seconds`: how much longer than its grace a runner may take to cancel."""
        self._store = store
        self._in_flight = in_flight
        self._client = client
        self._completer = completer
        self._cancel_seconds = RUNNER_GRACE_SECONDS + margin_seconds
        self._clock = clock

    async def follow_runs(self) -> None:
        """For ever: writes placements and progress. A run whose write failed is written at the next turn."""
        await _for_ever(TEND_EVERY_SECONDS, "following runs", self.place, self.report_progress)

    async def follow_cancels(self) -> None:
        """For ever: reads cancel marks and asks runners to cancel."""
        await _for_ever(MARKS_EVERY_SECONDS, "following cancel marks", self.read_marks, self.send_cancels)

    async def follow_overdue_cancels(self) -> None:
        """For ever: ends what its runner did not. By itself: committing may wait for a broker in need."""
        await _for_ever(MARKS_EVERY_SECONDS, "ending cancelled tasks", self.end_cancelled)

    async def place(self) -> None:
        now = self._clock()
        moved: list[Run] = []
        for run in self._in_flight:
            if run.sent_at is not None and now - run.sent_at < PLACE_AFTER_SECONDS and run.progress is None:
                continue
            place = run.current_placement
            if place is not None and place != run.placement:
                moved.append(run)
        places = [(run.delivery, place) for run in moved if (place := run.current_placement) is not None]
        if not places:
            return
        await self._store.place(places)
        for run, (_, place) in zip(moved, places, strict=True):
            run.placement = place

    async def report_progress(self) -> None:
        # only of placed ones: a broker's tasks have no row before
        updates = [
            (run, run.progress)
            for run in self._in_flight
            if run.progress is not None and run.progress != run.reported and run.placement is not None
        ]
        if not updates:
            return
        await self._store.report_progress(
            [(run.id, run.delivery.attempt, progress.fraction, progress.message) for run, progress in updates]
        )
        for run, progress in updates:
            run.reported = progress

    async def read_marks(self) -> None:
        runs = [run for run in self._in_flight if not run.cancel_requested]
        if not runs:
            return
        marked = await self._store.cancel_requested([run.id for run in runs])
        for run in runs:
            if run.id in marked:
                run.cancel_requested = True
                log.info("task is to be cancelled", task_id=run.id, attempt=run.delivery.attempt)

    async def send_cancels(self) -> None:
        now = self._clock()
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

    async def end_cancelled(self) -> None:
        """The store's cancel wins: a runner that has not ended the run by now is not waited for."""
        now = self._clock()
        over: list[Run] = []
        for run in self._in_flight:
            if not run.cancel_requested or run.is_decided:
                continue
            run.cancel_seen_at = now if run.cancel_seen_at is None else run.cancel_seen_at
            if now - run.cancel_seen_at >= self._cancel_seconds:
                over.append(run)
        for run in over:
            runner = None if run.runner is None else run.runner.id
            log.warning("task is cancelled without its runner's word", task_id=run.id, runner=runner)
        if over:
            await self._completer.complete([(run, Cancel()) for run in over])

    async def _cancel(self, run: Run, now: float) -> None:
        assert run.runner is not None
        run.cancel_sent_at = now
        try:
            await self._client.cancel(run.runner.host, run.id)
        except RunnerError as error:
            log.warning("runner cannot be asked to cancel", task_id=run.id, runner=run.runner.id, reason=str(error))


async def _for_ever(pause_seconds: float, what: str, *steps: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(pause_seconds)
        try:
            for step in steps:
                await step()
        except StoreUnavailable as error:
            log.warning(f"{what} waits for the store", reason=str(error))
        except Exception:
            log.exception(f"{what} failed; runs go on, and it is tried again")
