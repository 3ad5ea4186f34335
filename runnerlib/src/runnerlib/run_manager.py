"""What happens to a request for a run: started, attached to or refused, then waited for and answered."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from pydantic_core import to_json

from runnerlib.adapter.model import Algorithm
from runnerlib.contract import EntryState, FailureCode, RunError, StrictJsonError, near_names, strict_json
from runnerlib.errors import Refusal
from runnerlib.execution.metrics import RunMetrics
from runnerlib.execution.pool import Pool
from runnerlib.run_registry import START, Outcome, Run, RunRegistry, SubmitStatus, pop_ended
from runnerlib.service.body_budget import parsed

#: How often kept outcomes are looked through, also when nothing happens.
SWEEP_SECONDS = 5.0

#: A look-up here is faster than Enum's `value`.
_LABELS = {state: state.value for state in EntryState}
#: Task ids and states are plain ASCII without quotes: they need no escaping.
_STATES = {state: state.value.encode() for state in EntryState}


class RunManager:
    """The only owner of the run registry; used by the routes and by the worker processes' pool."""

    def __init__(self, algorithms: Mapping[str, Algorithm], registry: RunRegistry, metrics: RunMetrics) -> None:
        self._algorithms = algorithms
        self._registry = registry
        self._metrics = metrics
        self._pool: Pool | None = None
        self._is_draining = False

    def connect(self, pool: Pool) -> None:
        self._pool = pool

    # called by the routes

    def algorithm(self, name: str) -> Algorithm:
        """Raises Refusal, with near names."""
        found = self._algorithms.get(name)
        if found is None:
            near = near_names(name, self._algorithms)
            did_you_mean = f"; did you mean {' or '.join(near)}?" if near else f"; it has {', '.join(self._algorithms)}"
            raise Refusal("unknown_algorithm", f"this runner has no algorithm {name[:80]!r}{did_you_mean}")
        return found

    async def submit(self, name: str, id: str, attempt: int, deadline_seconds: float | None, body: bytes) -> Run:
        """Starts one run, or attaches to it. Raises Refusal."""
        algorithm = self.algorithm(name)
        payload, shared_key = await parsed(body, partial(_read_payload, algorithm))
        if self._registry.would_start(id, attempt):
            self._refuse_when_full(name)
        status, run, replaced = self._registry.submit(id, attempt, name, payload, _deadline_at(deadline_seconds))
        if status is SubmitStatus.STALE:
            raise Refusal("stale_attempt", f"a later attempt than {attempt} of task {id} is known here")
        if run is None:
            raise Refusal("id_conflict", _conflict(id, attempt))
        if status is START:
            run.shared_key = shared_key
            self._start(name, [run], [replaced])
        return run

    async def batch(self, algorithm: Algorithm, items: list[dict[str, Any]], wait_seconds: float | None) -> bytes:
        """``POST /batch/{algorithm}``: the answer's bytes. Raises Refusal; nothing has been started then.

        Parameters:
            items: each with ``id`` and ``attempt``, ``deadline`` in seconds left, and ``payload`` if it may start a run
        """
        if any("payload" in item and self._registry.would_start(item["id"], item["attempt"]) for item in items):
            self._refuse_when_full(algorithm.name)
        found = self._submit_all(algorithm, items)
        runs = [one for one in found if isinstance(one, Run)]
        await wait_until_ended(runs, wait_seconds)
        self._registry.delivered(runs)
        return b"[" + b",".join([_entry(one, True) if isinstance(one, Run) else one for one in found]) + b"]"

    def entry(self, run: Run, *, with_traceback: bool = True) -> bytes:
        """What is known of a run, as a BatchEntry; an outcome counts as delivered."""
        self._registry.delivered([run])
        return _entry(run, with_traceback)

    def delivered(self, run: Run) -> None:
        self._registry.delivered([run])

    def find(self, id: str) -> Run:
        run = self._registry.find(id)
        if run is None:
            raise Refusal("unknown_task", f"this process has no run of task {id[:128]}")
        return run

    def cancel(self, id: str) -> Run:
        """Asks the latest attempt to stop. Raises Refusal."""
        run = self.find(id)
        if run.outcome is not None:
            raise Refusal("already_finished", f"task {id} has ended already: {run.outcome.state.value}")
        if not run.cancel_requested:
            self._running_pool().group_of(run.algorithm).cancel(run)
        return run

    # called by the pool

    def finish(self, run: Run, outcome: Outcome) -> None:
        """Records an outcome; the first one of a run stays."""
        if self._registry.finish(run, outcome):
            label = _LABELS[outcome.state] if outcome.error is None else outcome.error.code
            self._metrics.outcome(run.algorithm, label, outcome.seconds)

    def release(self, run: Run) -> None:
        self._registry.release(run)

    # stopping

    def start_draining(self) -> None:
        """From now on nothing new starts; known runs can still be asked for."""
        self._is_draining = True

    @property
    def undelivered(self) -> int:
        return self._registry.undelivered

    async def sweep(self) -> None:
        """Drops kept outcomes in time, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._registry.sweep()

    def _submit_all(self, algorithm: Algorithm, items: list[dict[str, Any]]) -> list[Run | bytes]:
        """For each item its run, or an entry that says why there is none.

        What can fail comes first: once the first run is registered, nothing may keep the last from being started.
        """
        # Bytes again: strict reading from JSON differs from strict reading of Python values.
        payloads = [
            (to_json(item["payload"]), algorithm.shared_key(item["payload"])) if "payload" in item else None
            for item in items
        ]
        found: list[Run | bytes] = []
        started: list[Run] = []
        replaced: list[Run | None] = []
        for item, given in zip(items, payloads, strict=True):
            id, attempt = item["id"], item["attempt"]
            if given is None:
                found.append(self._attach(algorithm.name, id, attempt))
                continue
            payload, shared_key = given
            deadline_at = _deadline_at(item.get("deadline"))
            status, run, old = self._registry.submit(id, attempt, algorithm.name, payload, deadline_at)
            if run is None:
                found.append(_refused_entry(id, attempt, status))
                continue
            if status is START:
                run.shared_key = shared_key
                started.append(run)
                replaced.append(old)
            found.append(run)
        self._start(algorithm.name, started, replaced)
        return found

    def _attach(self, name: str, id: str, attempt: int) -> Run | bytes:
        run = self._registry.find(id, attempt)
        if run is not None and run.algorithm == name:
            return run
        stale = self._registry.is_stale(id, attempt)
        return _bare_entry(id, attempt, EntryState.STALE_ATTEMPT if stale else EntryState.UNKNOWN)

    def _start(self, name: str, runs: list[Run], replaced: list[Run | None]) -> None:
        pool = self._running_pool()
        # One batch may name a task twice: only its highest attempt is to run.
        pool.group_of(name).add([run for run in runs if run.outcome is None])
        for old in replaced:
            if old is not None:
                pool.group_of(old.algorithm).stop_run(old)

    def _refuse_when_full(self, name: str) -> None:
        if self._is_draining:
            raise Refusal("draining", "this runner is stopping; send it to another one")
        group = self._running_pool().group_of(name)
        if reason := group.unready_reason:
            raise Refusal("not_ready", f"the worker processes of {name} cannot work now: {reason}")
        if not group.has_room:
            raise Refusal("busy", "every slot has a batch waiting; ask again")

    def _running_pool(self) -> Pool:
        if self._pool is None:
            raise Refusal("not_ready", "this runner is starting; ask again")
        return self._pool


def _read_payload(algorithm: Algorithm, body: bytes) -> tuple[bytes, Any]:
    """The payload as JSON, and its shared key. Raises Refusal."""
    try:
        value = strict_json.loads(body, max_values=strict_json.MAX_VALUES)
    except StrictJsonError as error:
        raise Refusal("malformed", f"the body is {error}") from None
    return to_json(value), algorithm.shared_key(value)


async def wait_until_ended(runs: Iterable[Run], seconds: float | None) -> None:
    """Returns when all have ended, or after so many seconds."""
    loop = asyncio.get_running_loop()
    ends_at = None if seconds is None else loop.time() + seconds
    unfinished = list(runs)
    while pop_ended(unfinished):
        last = unfinished[-1]
        ended: asyncio.Future[None] = loop.create_future()
        watcher = partial(ended.set_result, None)
        last.watchers += (watcher,)
        try:
            await asyncio.wait([ended], timeout=None if ends_at is None else max(0.0, ends_at - loop.time()))
        finally:
            # A run of hours is polled thousands of times: it must not keep a watcher for each.
            last.watchers = tuple(one for one in last.watchers if one is not watcher)
        if last.outcome is None:
            return


def _entry(run: Run, with_traceback: bool) -> bytes:
    """A BatchEntry, put together from a result that is JSON already."""
    outcome = run.outcome
    if outcome is not None and outcome.result is not None and outcome.seconds is not None:
        # Nearly all are of this kind.
        return b'{"id":"%s","attempt":%d,"state":"succeeded","result":%s,"seconds":%.6f}' % (
            run.id.encode(),
            run.attempt,
            outcome.result,
            outcome.seconds,
        )
    parts = [_bare_entry(run.id, run.attempt, run.state)[:-1]]
    if outcome is None:
        if run.progress is not None:
            fraction, message = run.progress
            parts += [b',"progress":', to_json({"fraction": fraction, "message": message})]
    else:
        if outcome.result is not None:
            parts += [b',"result":', outcome.result]
        elif outcome.error is not None:
            parts += [b',"error":', _error(outcome.error, with_traceback)]
        if outcome.seconds is not None:
            parts.append(b',"seconds":%.6f' % outcome.seconds)
    parts.append(b"}")
    return b"".join(parts)


def _bare_entry(id: str, attempt: int, state: EntryState) -> bytes:
    return b'{"id":"%s","attempt":%d,"state":"%s"}' % (id.encode(), attempt, _STATES[state])


def _refused_entry(id: str, attempt: int, status: SubmitStatus) -> bytes:
    if status is SubmitStatus.STALE:
        return _bare_entry(id, attempt, EntryState.STALE_ATTEMPT)
    error = RunError(code=FailureCode.ID_CONFLICT.value, message=_conflict(id, attempt))
    return _bare_entry(id, attempt, EntryState.FAILED)[:-1] + b',"error":' + _error(error, False) + b"}"


def _error(error: RunError, with_traceback: bool) -> bytes:
    left_out = set() if with_traceback else {"traceback"}
    return error.model_dump_json(exclude=left_out, exclude_none=True).encode()


def _conflict(id: str, attempt: int) -> str:
    return f"task {id}, attempt {attempt} is known here with another payload; use another id"


def _deadline_at(seconds_left: float | None) -> float | None:
    return None if seconds_left is None else time.monotonic() + seconds_left
