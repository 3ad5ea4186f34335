"""One worker process after another, and the calls that are in the present one."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from runnerlib.adapter.model import Algorithm, ProcessGroup
from runnerlib.contract import EntryState, RunError
from runnerlib.execution import endings
from runnerlib.execution.call import Call
from runnerlib.execution.endings import Death
from runnerlib.execution.work_queue import WorkQueue
from runnerlib.execution.worker_process import Frame, WorkerProcess
from runnerlib.frames import encode
from runnerlib.run_table import Outcome, Run
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: A call of this many runs answers in so many frames that reading them one by one would cost more than the runs.
_MANY = 8
_STATES = {state.value: state for state in EntryState}


class Owner(Protocol):
    """What a slot needs of its group."""

    group: ProcessGroup
    queue: WorkQueue
    cancel_grace_seconds: float
    finish: Callable[[Run, Outcome], None]

    def algorithm(self, name: str) -> Algorithm: ...
    def again(self, runs: list[Run], alone: bool) -> None: ...
    def call_started(self, call: Call) -> None: ...
    def call_ended(self) -> None: ...


class Slot:
    """`capacity` calls at once in one process: 1 for ``def`` handlers."""

    def __init__(self, owner: Owner, capacity: int) -> None:
        self._owner = owner
        self._capacity = capacity
        self._worker: WorkerProcess | None = None
        self._calls: dict[int, Call] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._next_call = 0
        self._served = 0
        self._retiring: asyncio.Future[str] | None = None
        self._recycle_reason = ""
        #: calls that the process is being killed for
        self._guilty: set[int] = set()
        self._killed = False
        #: the only call in the process is a suspect, run by itself
        self._alone = False

    @property
    def busy(self) -> int:
        return len(self._calls)

    @property
    def served(self) -> int:
        """Tasks that the present process has been given."""
        return self._served

    def runs(self) -> list[Run]:
        """What is in the process and has not ended."""
        return [run for call in self._calls.values() for run in call.unfinished]

    async def serve(self, worker: WorkerProcess) -> str:
        """Gives calls to `worker` until it dies or has served its time; the answer says why."""
        self._worker, self._served, self._killed, self._recycle_reason = worker, 0, False, ""
        self._retiring = asyncio.get_running_loop().create_future()
        try:
            self.kick()
            either: list[asyncio.Future[Any]] = [worker.exited, self._retiring]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._worker = None
        if not worker.exited.done():
            return self._retiring.result()
        self._bury(worker.exited.result())
        return "killed" if self._killed else "died"

    def kick(self) -> None:
        """Takes what waits, as far as there is room."""
        worker = self._worker
        while (
            worker is not None
            and not worker.exited.done()
            and not self._killed
            and not self._recycle_reason
            and len(self._calls) < self._capacity
        ):
            suspect = self._owner.queue.has_alone
            if self._alone or (suspect and self._calls):
                # A suspect is the only one in its process, so that a death tells who it was.
                return
            runs = [self._owner.queue.take_alone()] if suspect else self._take()
            if not runs:
                return
            self._alone = suspect
            self._start(worker, runs)

    def _take(self) -> list[Run]:
        at_most = None if (limit := self._owner.group.max_tasks_per_process) is None else max(1, limit - self._served)
        now = time.monotonic()
        while taken := self._owner.queue.take(self._capacity > 1, at_most):
            for run in taken:
                if run.deadline_at is not None and run.deadline_at <= now:
                    self._owner.finish(run, endings.expired())
            if in_time := [run for run in taken if run.outcome is None]:
                return in_time
        return []

    def _start(self, worker: WorkerProcess, runs: list[Run]) -> None:
        now = time.monotonic()
        self._next_call += 1
        call = Call(self._next_call, self._owner.algorithm(runs[0].algorithm), runs, now)
        self._calls[call.number] = call
        self._served += len(runs)
        limit = self._owner.group.max_tasks_per_process
        if limit is not None and self._served >= limit:
            self._recycle_reason = "max_tasks_per_process"
        if len(self._calls) == 1:
            worker.begins()
        worker.coalesce(self._capacity > 1 or len(runs) >= _MANY)
        worker.send(call.frame(now))
        self._watch(call, now)
        self._owner.call_started(call)

    def on_frames(self, frames: list[Frame]) -> None:
        now = time.monotonic()
        for header, body in frames:
            call = self._calls.get(header.get("call", 0))
            if call is None:
                continue
            kind = header["kind"]
            if kind == "outcome":
                self._outcome(call, header["at"], _STATES[header["state"]], header["seconds"], body, now)
            elif kind == "done":
                self._done(call, header["rss"])
            elif kind == "progress":
                run = call.runs[header["at"]]
                if run.outcome is None:
                    run.progress = (header["fraction"], header["message"])
            elif kind == "batch_failed":
                self._batch_failed(call, RunError.model_validate_json(body))
            elif kind == "interrupted":
                self._interrupted(call)

    def _outcome(self, call: Call, at: int, state: EntryState, seconds: float, body: bytes, now: float) -> None:
        run = call.runs[at]
        call.advance(at, now)
        if (following := call.current) is not None and following.deadline_at is not None:
            self._timers[call.number].cancel()  # set for the run before, which may have had more time
            self._watch(call, now)
        if run.outcome is not None:
            return
        if state is EntryState.SUCCEEDED:
            self._owner.queue.pace.note(run.algorithm, seconds)
            self._owner.finish(run, Outcome(state, body, None, seconds))
        elif state is EntryState.FAILED:
            self._owner.finish(run, Outcome(state, None, RunError.model_validate_json(body), seconds))
        else:
            self._owner.finish(run, Outcome(state, None, None, seconds))

    def _batch_failed(self, call: Call, error: RunError) -> None:
        log.warning(
            "a batched call failed as a whole; its members run again one by one",
            algorithm=call.runs[0].algorithm,
            size=len(call.runs),
            error=error.message,
        )
        self._owner.again(call.unfinished, alone=True)

    def _interrupted(self, call: Call) -> None:
        """Another handler of the process may have cancelled it, or one that left a task behind; else it did itself."""
        if self._is_sole(call):
            for run in call.unfinished:
                self._owner.finish(run, endings.cancelled_itself())
            return
        log.warning(
            "a call was cancelled by a handler; it runs again by itself, in a fresh process",
            algorithm=call.runs[0].algorithm,
            size=len(call.runs),
        )
        self._recycle_reason = self._recycle_reason or "interrupted"
        self._owner.again(call.unfinished, alone=True)

    def _is_sole(self, call: Call) -> bool:
        """Whether the process was never given anything else, so that only this call can be to blame."""
        return self._served == len(call.runs)

    def _done(self, call: Call, rss_bytes: int) -> None:
        self._forget(call)
        limit_mb = self._owner.group.max_rss_mb
        if limit_mb is not None and rss_bytes > limit_mb * 1024 * 1024 and not self._recycle_reason:
            self._recycle_reason = "max_rss_mb"
        if self._recycle_reason and not self._calls and self._retiring is not None and not self._retiring.done():
            self._retiring.set_result(self._recycle_reason)
        self._owner.call_ended()
        self.kick()

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        self._alone = False
        self._guilty.discard(call.number)
        timer = self._timers.pop(call.number, None)
        if timer is not None:
            timer.cancel()

    # time limits, cancels

    def _watch(self, call: Call, now: float) -> None:
        wait = max(0.0, call.next_check_at() - now)
        self._timers[call.number] = asyncio.get_running_loop().call_later(wait, self._check, call)

    def _check(self, call: Call) -> None:
        now = time.monotonic()
        for run, outcome in call.overdue(now):
            log.warning("a run took too long", algorithm=run.algorithm, task_id=run.id, attempt=run.attempt)
            self._owner.finish(run, outcome)
            self.stop_run(run)
        if call.is_batch and call.is_too_long(now) and call.unfinished:
            log.warning("a batched call took too long", algorithm=call.runs[0].algorithm, size=len(call.runs))
            self._end(call)
        elif call.number in self._calls and call.number not in self._guilty:
            self._watch(call, now)

    def cancel(self, run: Run) -> bool:
        """Asks the run to stop, kills it after the grace; False when it is not here."""
        place = self._find(run)
        if place is None:
            return False
        call, at = place
        if call.is_batch or call.current is not run:
            self._owner.finish(run, endings.CANCELLED)
            self.stop_run(run)
        else:
            self._tell_cancelled(call, at)
            loop = asyncio.get_running_loop()
            loop.call_later(self._owner.cancel_grace_seconds, self._cancel_hard, call, run)
        return True

    def _cancel_hard(self, call: Call, run: Run) -> None:
        if run.outcome is None and call.number in self._calls and call.current is run:
            self._owner.finish(run, endings.CANCELLED)
            self._kill(call)

    def stop_run(self, run: Run) -> bool:
        """Stops a run that has its outcome already; neighbours that are still wanted go on. False: not here."""
        place = self._find(run)
        if place is None:
            return False
        call, at = place
        if not call.is_batch and call.current is not run:
            self._tell_cancelled(call, at)
        elif not call.is_batch or not call.unfinished:
            self._end(call)
        return True

    def _end(self, call: Call) -> None:
        """Ends a call that is on: by a kill where it is alone in its process, else by asking first."""
        if call.number in self._guilty:
            return
        self._guilty.add(call.number)
        if self._capacity == 1:
            self._kill(call)
        else:
            self._tell_cancelled(call, 0)
            asyncio.get_running_loop().call_later(self._owner.cancel_grace_seconds, self._kill, call)

    def _tell_cancelled(self, call: Call, at: int) -> None:
        if self._worker is not None:
            self._worker.send(encode({"kind": "cancel", "call": call.number, "at": at}))

    def _kill(self, call: Call) -> None:
        if call.number in self._calls and self._worker is not None:
            self._guilty.add(call.number)
            self._killed = True
            self._worker.kill()

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

    # deaths

    def _bury(self, death: Death) -> None:
        """Decides what a death costs: the run that was on when it is known, else nobody, but then each runs alone."""
        calls = list(self._calls.values())
        # A coroutine that has ended may have left a task behind, and that ended the process.
        is_certain = len(calls) == 1 and (self._capacity == 1 or self._is_sole(calls[0]))
        if calls and not self._killed and not is_certain:
            log.warning(
                f"a worker process {endings.how_it_ended(death)}; what it ran runs again, each by itself",
                runs=sum(len(call.unfinished) for call in calls),
            )
        for call in reversed(calls):
            was_guilty = call.number in self._guilty
            self._forget(call)
            left = call.unfinished
            current = call.current
            if not self._killed and is_certain and current is not None and current.outcome is None:
                log.error(
                    f"a worker process {endings.how_it_ended(death)}",
                    algorithm=current.algorithm,
                    task_id=current.id,
                    attempt=current.attempt,
                )
                self._owner.finish(current, endings.lost(death, time.monotonic() - call.since))
                self._owner.again([run for run in left if run is not current], alone=False)
            else:
                suspect = not self._killed or (was_guilty and call.is_batch)
                self._owner.again(left, alone=suspect)
            self._owner.call_ended()
        self._guilty.clear()
