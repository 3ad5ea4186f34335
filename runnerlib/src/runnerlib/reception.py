"""Between the doors and the processes: what is accepted, attached to, refused, waited for."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from runnerlib import answers
from runnerlib.adapter.model import Algorithm
from runnerlib.batch_body import read_items
from runnerlib.contract import EntryState, FailureCode, StrictJsonError, near_names, strict_json
from runnerlib.execution.metrics import RunMetrics
from runnerlib.execution.pool import Pool
from runnerlib.refusals import (
    AlreadyFinished,
    Busy,
    Draining,
    IdConflict,
    Malformed,
    NotReady,
    StaleAttempt,
    UnknownAlgorithm,
    UnknownTask,
)
from runnerlib.run_table import Outcome, Run, RunTable, Verdict
from runnerlib.waiter import Waiter

#: Kept outcomes are looked through this often, also when nothing happens.
SWEEP_SECONDS = 5.0

_SUCCEEDED = EntryState.SUCCEEDED.value


class Reception:
    """The one owner of the run table."""

    def __init__(self, algorithms: Mapping[str, Algorithm], table: RunTable, measures: RunMetrics) -> None:
        self._algorithms = algorithms
        self._table = table
        self._measures = measures
        self._pool: Pool | None = None
        self._is_draining = False

    def connect(self, pool: Pool) -> None:
        self._pool = pool

    # the doors

    def algorithm(self, name: str) -> Algorithm:
        """Raises UnknownAlgorithm with near names."""
        found = self._algorithms.get(name)
        if found is None:
            near = near_names(name, self._algorithms)
            did_you_mean = f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(self._algorithms)}"
            raise UnknownAlgorithm(f"this runner has no algorithm {name[:80]!r}{did_you_mean}")
        return found

    def submit(self, name: str, id: str, attempt: int, deadline_seconds: float | None, body: bytes) -> Run:
        """One run: started, or attached to. Raises a Refusal."""
        algorithm = self.algorithm(name)
        try:
            value = strict_json.loads(body)
        except StrictJsonError as error:
            raise Malformed(f"the body is {error}") from None
        payload, shared_key = to_json(value), algorithm.shared_key(value)
        if self._table.would_start(id, attempt):
            self._refuse_when_full(name)
        admission = self._table.submit(id, attempt, name, payload, _deadline_at(deadline_seconds))
        if admission.verdict is Verdict.STALE:
            raise StaleAttempt(f"a later attempt than {attempt} of task {id} is known here")
        run = admission.run
        if run is None:
            raise IdConflict(f"task {id}, attempt {attempt} is known here with another payload; use another id")
        if admission.verdict is Verdict.START:
            run.shared_key = shared_key
            self._start(name, [run], [admission.replaced])
        return run

    async def batch(self, name: str, body: bytes, wait_seconds: float) -> bytes:
        """``POST /batch/{algorithm}``: the answer's bytes. Raises a Refusal, and has started nothing then."""
        algorithm = self.algorithm(name)
        items = read_items(body)
        has_payloads = any("payload" in item for item in items)
        if has_payloads and any(
            "payload" in item and self._table.would_start(item["id"], item["attempt"]) for item in items
        ):
            self._refuse_when_full(name)
        found = self._admit(algorithm, items)
        runs = [one for one in found if isinstance(one, Run)]
        await Waiter(runs).wait(wait_seconds)
        return answers.batch([self.tell(one) if isinstance(one, Run) else one for one in found])

    def tell(self, run: Run, *, with_traceback: bool = True) -> bytes:
        """What is known of a run, as an entry; an outcome counts as delivered."""
        if run.outcome is not None:
            self._table.delivered(run)
        return answers.entry(run, with_traceback=with_traceback)

    def delivered(self, run: Run) -> None:
        self._table.delivered(run)

    def find(self, id: str) -> Run:
        run = self._table.find(id)
        if run is None:
            raise UnknownTask(f"this process has no run of task {id[:128]}")
        return run

    def cancel(self, id: str) -> Run:
        """Asks the latest attempt to stop. Raises UnknownTask, AlreadyFinished."""
        run = self.find(id)
        if run.outcome is not None:
            raise AlreadyFinished(f"task {id} has ended already: {run.outcome.state.value}")
        if not run.cancel_requested:
            self._running_pool().group_of(run.algorithm).cancel(run)
        return run

    # the processes' side

    def finish(self, run: Run, outcome: Outcome) -> None:
        """Where every outcome is recorded; the first one stays."""
        if self._table.finish(run, outcome):
            if outcome.result is not None:
                label = _SUCCEEDED
            else:
                label = outcome.error.code if outcome.error is not None else outcome.state.value
            self._measures.outcome(run.algorithm, label, outcome.seconds)

    def release(self, run: Run) -> None:
        self._table.release(run)

    # stopping

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def start_draining(self) -> None:
        """From now on nothing new starts; what is known can be asked for."""
        self._is_draining = True

    @property
    def undelivered(self) -> int:
        return self._table.undelivered

    async def sweep(self) -> None:
        """Drops kept outcomes in time, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._table.sweep()

    def _admit(self, algorithm: Algorithm, items: list[dict[str, Any]]) -> list[Run | bytes]:
        """For each item its run, or an entry that says why there is none.

        What can fail comes first: once the first run is in the table, nothing may keep the last from being started.
        """
        # Bytes again: strict reading from JSON is another thing than strict reading of Python values.
        payloads = [
            (to_json(item["payload"]), algorithm.shared_key(item["payload"])) if "payload" in item else None
            for item in items
        ]
        found: list[Run | bytes] = []
        started: list[Run] = []
        replaced: list[Run | None] = []
        submit = self._table.submit
        for item, given in zip(items, payloads, strict=True):
            id, attempt = item["id"], item["attempt"]
            if given is None:
                found.append(self._attach(algorithm.name, id, attempt))
                continue
            payload, shared_key = given
            admission = submit(id, attempt, algorithm.name, payload, _deadline_at(item.get("deadline")))
            run = admission.run
            if run is None:
                found.append(_not_admitted(id, attempt, admission.verdict))
                continue
            if admission.verdict is Verdict.START:
                run.shared_key = shared_key
                started.append(run)
                if admission.replaced is not None:
                    replaced.append(admission.replaced)
            found.append(run)
        self._start(algorithm.name, started, replaced)
        return found

    def _attach(self, name: str, id: str, attempt: int) -> Run | bytes:
        run = self._table.find(id, attempt)
        if run is not None and run.algorithm == name:
            return run
        stale = self._table.is_stale(id, attempt)
        return answers.bare(id, attempt, EntryState.STALE_ATTEMPT if stale else EntryState.UNKNOWN)

    def _start(self, name: str, runs: list[Run], replaced: list[Run | None]) -> None:
        group = self._running_pool().group_of(name)
        # One batch may name a task twice: only its highest attempt is to run.
        group.add([run for run in runs if run.outcome is None])
        for old in replaced:
            if old is not None:
                self._running_pool().group_of(old.algorithm).stop_run(old)

    def _refuse_when_full(self, name: str) -> None:
        if self._is_draining:
            raise Draining("this runner is stopping; send it to another one")
        group = self._running_pool().group_of(name)
        if group.unready_reason:
            raise NotReady(f"the worker processes of {name} cannot work now: {group.unready_reason}")
        if not group.has_room:
            raise Busy("every slot has a batch waiting; ask again")

    def _running_pool(self) -> Pool:
        if self._pool is None:
            raise NotReady("this runner is starting; ask again")
        return self._pool


def _not_admitted(id: str, attempt: int, verdict: Verdict) -> bytes:
    if verdict is Verdict.STALE:
        return answers.bare(id, attempt, EntryState.STALE_ATTEMPT)
    message = f"task {id}, attempt {attempt} is known here with another payload; use another id"
    return answers.refused(id, attempt, FailureCode.ID_CONFLICT, message)


def _deadline_at(seconds_left: float | None) -> float | None:
    return None if seconds_left is None else time.monotonic() + seconds_left
