"""One slot: one worker process after another, and the calls that are in the present one."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from runnerlib.adapter.model import Algorithm, ProcessGroup
from runnerlib.contract import EntryState, RunError
from runnerlib.execution import outcomes
from runnerlib.execution.outcomes import Death, Fate, fate_of
from runnerlib.execution.work_queue import Call, WorkQueue
from runnerlib.execution.worker_process import WorkerProcess
from runnerlib.frames import (
    BATCH_FAILED,
    CANCEL,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    PROGRESS,
    SUCCEEDED,
    Frame,
    encode,
)
from runnerlib.run_registry import Outcome, Run
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: A call of this many runs answers in so many frames that reading them one by one would cost more than the runs.
_MANY = 8
#: Named once: on some versions of Python, Enum makes each look-up slow.
_SUCCEEDED, _FAILED, _CANCELLED = EntryState.SUCCEEDED, EntryState.FAILED, EntryState.CANCELLED


class Owner(Protocol):
    """What a slot needs of its group."""

    spec: ProcessGroup
    queue: WorkQueue
    cancel_grace_seconds: float
    finish: Callable[[Run, Outcome], None]

    def algorithm(self, name: str) -> Algorithm: ...
    def requeue(self, runs: list[Run], isolated: bool) -> None: ...
    def call_started(self, call: Call) -> None: ...
    def call_ended(self) -> None: ...


class Slot:
    """`capacity`: calls at the same time in one process; 1 for ``def`` handlers, which cannot be interrupted.

    How a run is ended from outside (`cancel`, or `stop_run` when its time is over), and who ends with it:

    ===========================================  ==========================================================
    it waits behind the current run of its call  it gets its outcome, and the process is told to skip it
    the current run, ``def``                     cancel: asked, killed after the grace; too long: killed
    the current run, ``async def``               asked, then the process is killed after the grace
    a member of a batch                          it gets its outcome; the call goes on for the others, and is
                                                 killed when the last has one, or the batch's time is over
    ===========================================  ==========================================================

    A kill ends the process. What else was in it runs again, uncounted: `outcomes.fate_of`.
    """

    def __init__(self, owner: Owner, capacity: int) -> None:
        self._owner = owner
        self._capacity = capacity
        self._worker: WorkerProcess | None = None
        self._calls: dict[int, Call] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._next_call = 0
        #: tasks that the present process was given
        self.served = 0
        self._retiring: asyncio.Future[str] | None = None
        self._recycle_reason = ""
        #: calls that are being ended: asked to stop, or the process is killed for them
        self._ending: set[int] = set()
        self._killed = False
        #: the only call in the process is an isolated run
        self._is_isolating = False

    @property
    def busy(self) -> int:
        return len(self._calls)

    def runs(self) -> list[Run]:
        """What is in the process and has not ended."""
        return [run for call in self._calls.values() for run in call.unfinished]

    async def serve(self, worker: WorkerProcess) -> str:
        """Gives calls to `worker` until it dies or is to be replaced; returns the reason."""
        self._worker, self.served, self._killed, self._recycle_reason = worker, 0, False, ""
        self._retiring = asyncio.get_running_loop().create_future()
        try:
            self.schedule()
            either: list[asyncio.Future[Any]] = [worker.exited, self._retiring]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._worker = None
        if not worker.exited.done():
            return self._retiring.result()
        self._on_exit(worker.exited.result())
        return "killed" if self._killed else "died"

    def schedule(self) -> None:
        """Takes what waits, as far as there is room."""
        worker = self._worker
        while (
            worker is not None
            and not worker.exited.done()
            and not self._killed
            and not self._recycle_reason
            and len(self._calls) < self._capacity
        ):
            isolated = self._owner.queue.has_isolated
            if self._is_isolating or (isolated and self._calls):
                # It must be the only one in its process, so that a death shows which run caused it.
                return
            runs = [self._owner.queue.take_isolated()] if isolated else self._take()
            if not runs:
                return
            self._is_isolating = isolated
            self._start(worker, runs)

    def _take(self) -> list[Run]:
        at_most = None if (limit := self._owner.spec.max_tasks_per_process) is None else max(1, limit - self.served)
        now = time.monotonic()
        while taken := self._owner.queue.take(self._capacity > 1, at_most):
            for run in taken:
                if run.deadline_at is not None and run.deadline_at <= now:
                    self._owner.finish(run, outcomes.expired())
            if in_time := [run for run in taken if run.outcome is None]:
                return in_time
        return []

    def _start(self, worker: WorkerProcess, runs: list[Run]) -> None:
        now = time.monotonic()
        self._next_call += 1
        call = Call(self._next_call, self._owner.algorithm(runs[0].algorithm), runs, now)
        self._calls[call.number] = call
        self.served += len(runs)
        limit = self._owner.spec.max_tasks_per_process
        if limit is not None and self.served >= limit:
            self._recycle_reason = "max_tasks_per_process"
        if len(self._calls) == 1:
            worker.recount_memory_kills()
        worker.coalesce(self._capacity > 1 or len(runs) >= _MANY)
        worker.send(call.frame(now))
        self._watch(call, now)
        self._owner.call_started(call)

    # what the process answers

    def on_frames(self, frames: list[Frame]) -> None:
        now = time.monotonic()
        for kind, number, at, value, body in frames:
            call = self._calls.get(number)
            if call is None:
                continue
            if kind == SUCCEEDED:
                self._on_outcome(call, at, Outcome(_SUCCEEDED, body, None, value), now)
            elif kind == FAILED:
                error = RunError.model_validate_json(body)
                self._on_outcome(call, at, Outcome(_FAILED, None, error, value), now)
            elif kind == CANCELLED:
                self._on_outcome(call, at, Outcome(_CANCELLED, None, None, value), now)
            elif kind == DONE:
                self._on_done(call, value)
            elif kind == PROGRESS:
                run = call.runs[at]
                if run.outcome is None:
                    run.progress = (value, body.decode())
            elif kind == BATCH_FAILED:
                self._on_batch_failed(call, RunError.model_validate_json(body))
            elif kind == INTERRUPTED:
                self._on_interrupted(call)

    def _on_outcome(self, call: Call, at: int, outcome: Outcome, now: float) -> None:
        run = call.runs[at]
        following = call.advance(at, now)
        if following is not None and following.deadline_at is not None:
            self._timers[call.number].cancel()  # set for the run before, which may have had more time
            self._watch(call, now)
        if run.outcome is not None:
            return
        if outcome.state is _SUCCEEDED and outcome.seconds is not None:
            self._owner.queue.latency.observe(run.algorithm, outcome.seconds)
        self._owner.finish(run, outcome)

    def _on_batch_failed(self, call: Call, error: RunError) -> None:
        log.warning(
            "a batched call failed as a whole; its members run again one by one",
            algorithm=call.runs[0].algorithm,
            size=len(call.runs),
            error=error.message,
        )
        self._owner.requeue(call.unfinished, isolated=True)

    def _on_interrupted(self, call: Call) -> None:
        """Another handler of the process may have cancelled it, or a task that one left behind; else it did itself."""
        if self._is_sole(call):
            for run in call.unfinished:
                self._owner.finish(run, outcomes.cancelled_itself())
            return
        log.warning(
            "a call was cancelled by a handler; it runs again by itself, in a fresh process",
            algorithm=call.runs[0].algorithm,
            size=len(call.runs),
        )
        self._recycle_reason = self._recycle_reason or "interrupted"
        self._owner.requeue(call.unfinished, isolated=True)

    def _is_sole(self, call: Call) -> bool:
        """Whether the process was never given anything else, so that only this call can be to blame."""
        return self.served == len(call.runs)

    def _on_done(self, call: Call, rss_bytes: float) -> None:
        self._forget(call)
        limit_mb = self._owner.spec.max_rss_mb
        if limit_mb is not None and rss_bytes > limit_mb * 1024 * 1024 and not self._recycle_reason:
            self._recycle_reason = "max_rss_mb"
        if self._recycle_reason and not self._calls and self._retiring is not None and not self._retiring.done():
            self._retiring.set_result(self._recycle_reason)
        self._owner.call_ended()
        self.schedule()

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        self._is_isolating = False
        self._ending.discard(call.number)
        timer = self._timers.pop(call.number, None)
        if timer is not None:
            timer.cancel()

    def _on_exit(self, death: Death) -> None:
        """Applies :func:`fate_of` to each call that was in the process."""
        calls = list(self._calls.values())
        # A coroutine that has ended may have left a task behind, which then ended the process.
        is_certain = len(calls) == 1 and (self._capacity == 1 or self._is_sole(calls[0]))
        if calls and not self._killed and not is_certain:
            log.warning(
                f"a worker process {outcomes.how_it_ended(death)}; what it ran runs again, each by itself",
                runs=sum(len(call.unfinished) for call in calls),
            )
        for call in reversed(calls):
            culprit = call.current if is_certain else None
            fate = fate_of(
                killed=self._killed,
                killed_for_batch=call.uses_batch_handler and call.number in self._ending,
                has_culprit=culprit is not None and culprit.outcome is None,
            )
            self._forget(call)
            if fate is Fate.LOST and culprit is not None:
                log.error(
                    f"a worker process {outcomes.how_it_ended(death)}",
                    algorithm=culprit.algorithm,
                    task_id=culprit.id,
                    attempt=culprit.attempt,
                )
                self._owner.finish(culprit, outcomes.lost(death, time.monotonic() - call.since))
            self._owner.requeue(call.unfinished, isolated=fate is Fate.ISOLATED)
            self._owner.call_ended()
        self._ending.clear()

    # time limits, cancellation

    def _watch(self, call: Call, now: float) -> None:
        wait = max(0.0, call.next_check_at() - now)
        self._timers[call.number] = asyncio.get_running_loop().call_later(wait, self._check, call)

    def _check(self, call: Call) -> None:
        now = time.monotonic()
        for run, outcome in call.overdue(now):
            log.warning("a run took too long", algorithm=run.algorithm, task_id=run.id, attempt=run.attempt)
            self._owner.finish(run, outcome)
            self.stop_run(run)
        if call.uses_batch_handler and call.is_too_long(now) and call.unfinished:
            log.warning("a batched call took too long", algorithm=call.runs[0].algorithm, size=len(call.runs))
            self._end(call)
        elif call.number in self._calls and call.number not in self._ending:
            self._watch(call, now)

    def cancel(self, run: Run) -> bool:
        """Asks the run to stop and kills it after the grace. Returns False if it is not here."""
        place = self._find(run)
        if place is None:
            return False
        call, at = place
        if call.uses_batch_handler or call.current is not run:
            self._owner.finish(run, outcomes.CANCELLED)
            self.stop_run(run)
        else:
            self._send_cancel(call, at)
            loop = asyncio.get_running_loop()
            loop.call_later(self._owner.cancel_grace_seconds, self._cancel_hard, call, run)
        return True

    def _cancel_hard(self, call: Call, run: Run) -> None:
        if run.outcome is None and call.number in self._calls and call.current is run:
            self._owner.finish(run, outcomes.CANCELLED)
            self._kill_for(call)

    def stop_run(self, run: Run) -> bool:
        """Stops a run that has its outcome already; other runs of its call go on. Returns False if it is not here."""
        place = self._find(run)
        if place is None:
            return False
        call, at = place
        if not call.uses_batch_handler and call.current is not run:
            self._send_cancel(call, at)
        elif not call.uses_batch_handler or not call.unfinished:
            self._end(call)
        return True

    def _end(self, call: Call) -> None:
        """Ends a call in progress: by a kill when it is the only one in its process, else by asking first."""
        if call.number in self._ending:
            return
        self._ending.add(call.number)
        if self._capacity == 1:
            self._kill_for(call)
        else:
            self._send_cancel(call, 0)
            asyncio.get_running_loop().call_later(self._owner.cancel_grace_seconds, self._kill_for, call)

    def _send_cancel(self, call: Call, at: int) -> None:
        if self._worker is not None:
            self._worker.send(encode(CANCEL, call.number, at))

    def _kill_for(self, call: Call) -> None:
        if call.number in self._calls:
            self._ending.add(call.number)
            self.kill()

    def kill(self) -> None:
        """Ends the process whatever it does; what it ran is not charged."""
        if self._worker is not None:
            self._killed = True
            self._worker.kill()

    def _find(self, run: Run) -> tuple[Call, int] | None:
        for call in self._calls.values():
            for at, one in enumerate(call.runs):
                if one is run:
                    return call, at
        return None
