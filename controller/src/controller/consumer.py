"""What happens to the tasks of one algorithm: taken as runners have room, triaged, sent in batches, followed.

A turn of `AlgorithmConsumer` is the way of a task through this process. Pure modules beside it decide: `batching` (how
many, to which runner), `triage` (what to do with what was handed out), `outcomes` (what follows from an answer).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from controller import batching
from controller.call import CallContext, RunnerCall, attach
from controller.commit_gate import CommitGate
from controller.errors import RunnerError
from controller.runner_answers import Answer
from controller.runs import InFlight, Run
from controller.throttle import Throttle
from controller.triage import ISOLATE_AFTER_DELIVERIES, AskAll, Attach, Join, Start, Step, before_start, triage
from controller.unknown_fields import UnknownFieldWarnings
from runnerlib.contract import EntryState, RunnerLevel, RunnerView
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueClosed
from taskqueue.pauses import PauseWatch
from taskqueue.protocols import Feed, TaskQueue
from taskqueue.tasks import Delivery, Placement, TaskRow

log = get_logger(__name__)

#: A consumer takes a turn at least this often, even if it was not woken: a safety net.
LOOK_AROUND_SECONDS = 5.0
#: The time doubles up to this while it has nothing to do: there may be thousands of consumers.
LONGEST_LOOK_AROUND_SECONDS = 60.0
#: How often tasks that wait here for a runner are checked: they may expire or be cancelled meanwhile.
LOOK_AT_READY_SECONDS = 1.0
#: How long a consumer pauses after something went wrong in it.
PAUSE_AFTER_FAILURE_SECONDS = 1.0
#: What a runner says of a run that it has. Of others it may say anything.
_HAS = frozenset({EntryState.WAITING, EntryState.RUNNING, EntryState.SUCCEEDED, EntryState.FAILED})


@dataclass(frozen=True, slots=True)
class ConsumerDependencies:
    """What every consumer needs."""

    queue: TaskQueue
    gate: CommitGate
    in_flight: InFlight
    unknown_fields: UnknownFieldWarnings
    calls: CallContext
    pauses: PauseWatch


class AlgorithmConsumer:
    """Everything of one algorithm in this process. A failure here concerns no other algorithm."""

    def __init__(self, algorithm: str, dependencies: ConsumerDependencies) -> None:
        self.algorithm = algorithm
        #: why it does not work at the moment; empty when it does
        self.trouble = ""
        self._feed: Feed | None = None
        self._queue = dependencies.queue
        self._gate = dependencies.gate
        self._in_flight = dependencies.in_flight
        self._unknown_fields = dependencies.unknown_fields
        self._pauses = dependencies.pauses
        self._context = dependencies.calls
        self._directory = dependencies.calls.directory
        self._completer = dependencies.calls.completer
        self._latency = batching.LatencyEstimate()
        self._throttle = Throttle(self._context.clock)
        #: runs that wait for a runner
        self._ready: deque[Run] = deque()
        #: call → its runs, and the runner when one is known
        self._calls: dict[asyncio.Task[None], tuple[list[Run], str | None]] = {}
        self._taking: asyncio.Task[list[Delivery]] | None = None
        self._wake = asyncio.Event()
        self._is_sorting = False
        self._stopping = False
        #: what the feed was last told
        self._prefetch: tuple[int, int, int | None] | None = None
        self._checked_at = self._context.clock()
        self._look_around = LOOK_AROUND_SECONDS

    async def run(self) -> None:
        """Until `stop`. A failure is logged, the waiting tasks are released, and the consumer starts again."""
        while not self._stopping:
            try:
                await self._consume()
            except QueueClosed:
                log.info("the queue is closed; the consumer ends", algorithm=self.algorithm)
                return
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                log.exception(
                    "consumer failed; its waiting tasks are released and it starts again", algorithm=self.algorithm
                )
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)

    async def _consume(self) -> None:
        feed = self._feed = await self._queue.feed(self.algorithm)
        self._prefetch = None
        try:
            while not self._stopping:
                await self._turn(feed)
        finally:
            self._feed = None
            await self._end(feed)

    async def _turn(self, feed: Feed) -> None:
        self._wake.clear()
        await self._set_prefetch(feed)
        if self._ready:
            await self._hand_back()
        self._launch()
        if self._ready:
            await self._end_unstartable()
        self._take(feed)
        await self._pause()
        self.trouble = ""
        # What came while it stops is given back with the rest: no call of a stopped consumer begins.
        if self._taking is not None and self._taking.done() and not self._stopping:
            taking, self._taking = self._taking, None
            await self._sort_taken(taking.result())

    async def _set_prefetch(self, feed: Feed) -> None:
        runners, limits = self._directory.known(self.algorithm), self._directory.limits(self.algorithm)
        live = {runner.id for runner in runners}
        stranded = sum(len(runs) for runs, runner_id in self._calls.values() if runner_id not in live)
        size = self._latency.batch_size(limits)
        calls_at_once = self._latency.calls_at_once(limits)
        if self._latency.is_short:
            # As many again, whose outcomes are being committed.
            calls_at_once *= 2
        count = batching.prefetch(size, calls_at_once, len(runners), stranded)
        if self._directory.is_unreachable(self.algorithm):
            # One task at a time finds out whether a runner can be reached again; none during a quarantine.
            count = 1 if self._directory.loads(self.algorithm) else 0
        if self._is_held:
            count = 0
        if limits.most_running is not None:
            # of short ones as many again, as above
            count = min(count, limits.most_running * (2 if self._latency.is_short else 1))
        # Whoever has a turn waits for what was taken before: no more than can start.
        in_turn = min(count, batching.prefetch(size, limits.slots, len(runners), stranded))
        if (count, in_turn, limits.group_slots) != self._prefetch:
            self._prefetch = count, in_turn, limits.group_slots
            await feed.set_prefetch(count, in_turn=in_turn, group_slots=limits.group_slots)

    async def _hand_back(self) -> None:
        """What no runner will take soon waits in the queue, where another controller may take it."""
        if not self._directory.known(self.algorithm):
            await self._release_ready("no runner offers the algorithm any more")
        elif self._directory.is_unreachable(self.algorithm) and not self._directory.loads(self.algorithm):
            await self._release_ready("no runner of the algorithm can be reached")
        elif self._is_held:
            await self._release_ready("the algorithm is paused")

    @property
    def _is_held(self) -> bool:
        """Whether nothing of it may start. Before the store has told what is paused, everything may be."""
        return not self._pauses.is_known or self.algorithm in self._pauses.paused

    def _launch(self) -> None:
        """Sends what waits, as far as there is room, to the least loaded runners first."""
        while self._ready and not self._stopping and not self._is_held:
            room = self._room()
            runner = self._directory.runner(room.next_runner) if room.next_runner is not None else None
            limits = self._directory.limits(self.algorithm)
            free = self._throttle.free(limits, self._count_running)
            if runner is None or free == 0:
                return
            runs = self._next_batch(runner, room.free_slots, free)
            self._throttle.sent(limits, len(runs))
            self._call(runner, runs)

    def _count_running(self) -> int:
        return len(self.runs)

    def _next_batch(self, runner: RunnerView, free_slots: int, most: int | None) -> list[Run]:
        """`most`: how many the author's limits let start now; None: any number."""
        cap = self._latency.batch_size(self._directory.limits(self.algorithm))
        size = 1 if runner.level is RunnerLevel.PLAIN else batching.share(len(self._ready), free_slots, cap)
        size = size if most is None else min(size, most)
        runs = [self._ready.popleft()]
        size_bytes = len(runs[0].delivery.payload) + batching.ITEM_BYTES
        while self._ready and len(runs) < size and not runs[0].isolated and not self._ready[0].isolated:
            size_bytes += len(self._ready[0].delivery.payload) + batching.ITEM_BYTES
            if size_bytes > batching.MAX_BATCH_BYTES:
                break
            runs.append(self._ready.popleft())
        return runs

    async def _end_unstartable(self) -> None:
        """Ends what waits here for busy runners and must not start any more."""
        if self._context.clock() - self._checked_at < LOOK_AT_READY_SECONDS:
            return
        self._checked_at, now = self._context.clock(), self._context.wall()
        over = [
            (run, reason)
            for run in self._ready
            if (reason := before_start(run.delivery, cancelled=run.cancel_requested, now=now)) is not None
        ]
        if over:
            left_out = {run.key for run, _ in over}
            self._ready = deque(run for run in self._ready if run.key not in left_out)
            await self._completer.complete(over)

    def _take(self, feed: Feed) -> None:
        """Asks the queue for what there is room for now; waits in the background."""
        if self._taking is not None or not self._gate.is_open or self._stopping or self._is_held:
            return
        calls = self._room().calls
        if self._latency.is_short and not feed.has_groups:
            # One more is looked up meanwhile, so that the next runner that has room need not wait for the store.
            calls += 1
        most = calls * self._latency.batch_size(self._directory.limits(self.algorithm))
        if self._directory.is_unreachable(self.algorithm):
            most = min(1, most)
        most = min(batching.MOST_OUT, most) - len(self._ready)
        if most > 0:
            self._taking = asyncio.create_task(feed.take(most), name=f"take {self.algorithm}")

    def _room(self) -> batching.Room:
        limits = self._directory.limits(self.algorithm)
        in_turn = self._feed is not None and self._feed.has_groups
        at_once = limits.slots if in_turn else self._latency.calls_at_once(limits)
        return batching.room(self._directory.loads(self.algorithm), limits, at_once)

    async def _pause(self) -> None:
        """Until tasks are here, or something changed."""
        events: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
        if not self._gate.is_open:
            events.append(asyncio.ensure_future(self._gate.wait_open()))
        waits = events if self._taking is None else [*events, self._taking]
        limits = self._directory.limits(self.algorithm)
        times = [self._directory.next_free_in_seconds(self.algorithm), self._throttle.next_in_seconds(limits)]
        seconds = min((each for each in times if each is not None), default=None)
        longest = LOOK_AT_READY_SECONDS if self._ready else self._look_around
        timeout = longest if seconds is None else min(seconds + 0.001, longest)
        try:
            done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
        is_quiet = not done and self.is_idle and self._gate.is_open
        self._look_around = min(LONGEST_LOOK_AROUND_SECONDS, self._look_around * 2) if is_quiet else LOOK_AROUND_SECONDS

    async def _sort_taken(self, deliveries: Sequence[Delivery]) -> None:
        """Looks up what is unusual, with one query; then each task becomes ready, is found again, or ends."""
        self._context.metrics.taken.labels(self.algorithm).inc(len(deliveries))
        self._is_sorting = True
        try:
            await self._in_flight.wait_for_earlier_attempts(deliveries)
            triaged = self._triage(deliveries, await self._look_up(deliveries))
            over = [(run, step) for run, step in triaged if not isinstance(step, Start | Attach | AskAll | Join)]
            if over:
                await self._completer.complete(over)
        except Exception:
            runs = [self._in_flight.find(delivery) or Run(delivery) for delivery in deliveries]
            await self._completer.release(runs, "they could not be looked up")
            raise
        finally:
            self._is_sorting = False
        self._ready.extend([run for run, step in triaged if isinstance(step, Start)])
        # What was handed out before takes no room: it runs already, or is looked for.
        handed_out = [(run, step) for run, step in triaged if isinstance(step, Attach | AskAll)]
        if handed_out:
            self._resume(handed_out)

    async def _look_up(self, deliveries: Sequence[Delivery]) -> dict[str, TaskRow]:
        """The rows of the tasks that must not simply be started.

        If a run ends while the store is asked, its task is asked for again: the row may be older than that outcome,
        and a second message of the task would start it once more.
        """
        with self._in_flight.noting_removed() as removed:
            rows = await self._completer.rows_that_forbid_start(deliveries)
            while again := [delivery.id for delivery in deliveries if delivery.id in removed]:
                removed.clear()
                rows |= await self._completer.lookup(again)
        return rows

    def _triage(self, deliveries: Sequence[Delivery], rows: dict[str, TaskRow]) -> list[tuple[Run, Step]]:
        """New runs and what comes next for each; a delivery of a run that is in flight here joins it."""
        triaged: list[tuple[Run, Step]] = []
        now = self._context.wall()
        for delivery in deliveries:
            row = rows.get(delivery.id)
            step = triage(delivery, row, self._in_flight.find(delivery), now)
            if isinstance(step, Join):
                step.run.repeated.append(delivery)
                log.info("task handed out again while it is in flight", task_id=delivery.id, attempt=delivery.attempt)
                continue
            run = Run(
                delivery,
                history=() if row is None else row.history,
                isolated=delivery.delivery_count >= ISOLATE_AFTER_DELIVERIES,
                cancel_requested=row is not None and row.cancel_requested,
            )
            if isinstance(step, Attach):
                run.placement, run.boot = step.placement, step.placement.boot
            if isinstance(step, Start | Attach | AskAll):
                self._in_flight.add(run)
            if isinstance(step, Start) and delivery.unknown_fields:
                self._unknown_fields.warn(delivery.id, delivery.unknown_fields)
            triaged.append((run, step))
        return triaged

    def _resume(self, handed_out: Sequence[tuple[Run, Attach | AskAll]]) -> None:
        placed: dict[tuple[str, str], tuple[Placement, list[Run]]] = {}
        for run, step in handed_out:
            if isinstance(step, Attach):
                place = (step.placement.runner, step.placement.boot)
                placed.setdefault(place, (step.placement, []))[1].append(run)
        for placement, runs in placed.values():
            log.info("attaching to runs", runner=placement.runner, task_ids=[run.id for run in runs][:20])
            work = attach(self._context, self._latency, self.algorithm, placement, runs)
            self._spawn(work, runs, placement.runner, self._occupy(placement.runner))
        ask = [run for run, step in handed_out if isinstance(step, AskAll)]
        if ask:
            self._spawn(self._find(ask), ask, None, self._wake.set)

    async def _find(self, runs: Sequence[Run]) -> list[Run]:
        """Asks the runners for runs that were handed out before, and follows them. Returns those that none has."""
        runners = [each for each in self._directory.may_have_runs(self.algorithm) if each.level is RunnerLevel.FULL]
        answers = await asyncio.gather(*(self._ask(runner, runs) for runner in runners))
        missing = list(runs)
        for runner, answer in zip(runners, answers, strict=True):
            found = [run for run in missing if (entry := answer.entries.get(run.key)) and entry.state in _HAS]
            for run in found:
                run.runner, run.boot = runner, answer.boot or runner.boot
            if found:
                missing = [run for run in missing if run.runner is not runner]
                self._call(runner, found, attach=True)
        return missing

    async def _ask(self, runner: RunnerView, runs: Sequence[Run]) -> Answer:
        items, limits = self._context.items(runs, with_payload=False), self._directory.limits(self.algorithm)
        try:
            return await self._context.client.batch(
                runner, self.algorithm, items, wait_seconds=0, result_bytes=limits.result_bytes
            )
        except RunnerError as error:
            log.warning("runner cannot be asked for runs that it may have", runner=runner.id, reason=str(error))
            return Answer({}, None)

    def _call(self, runner: RunnerView, runs: list[Run], *, attach: bool = False) -> None:
        """The runner's slot is free for the next call while this one's outcomes are committed."""
        answered = self._occupy(runner.id)
        call = RunnerCall(
            self._context, self._latency, self.algorithm, runner, runs, attach=attach, on_answered=answered
        )
        self._spawn(call.run(), runs, runner.id, answered)

    def _occupy(self, runner_id: str) -> Callable[[], None]:
        ended = self._directory.call_started(self.algorithm, runner_id)

        def answered() -> None:
            ended()
            self._wake.set()

        return answered

    def _spawn(
        self,
        work: Coroutine[Any, Any, list[Run]],
        runs: list[Run],
        runner_id: str | None,
        answered: Callable[[], None],
    ) -> None:
        call = asyncio.create_task(self._follow(work, runs), name=f"call {self.algorithm}")
        self._calls[call] = (runs, runner_id)

        def ended(_: asyncio.Task[None]) -> None:
            del self._calls[call]
            answered()

        call.add_done_callback(ended)

    async def _follow(self, work: Coroutine[Any, Any, list[Run]], runs: list[Run]) -> None:
        """The outermost level of a call: whatever fails in it, its tasks are handed back."""
        try:
            requeued = await work
        except Exception:
            log.exception("call failed; its tasks are released", algorithm=self.algorithm)
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
            await self._completer.release([run for run in runs if run in self._in_flight], "their call failed")
            return
        if self._stopping:
            await self._completer.release(requeued, "the controller stops")
        else:
            self._ready.extendleft(reversed(requeued))

    async def _end(self, feed: Feed) -> None:
        """Gives back what was taken and not sent."""
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
            if not taking.cancelled() and taking.exception() is None:
                self._ready.extend(Run(delivery) for delivery in taking.result())
        await self._release_ready("the consumer stops")
        await feed.close()

    async def _release_ready(self, why: str) -> None:
        waiting = list(self._ready)
        self._ready.clear()
        await self._completer.release(waiting, why)

    def wake(self) -> None:
        """Something changed: runners, the end of a call, the store."""
        self._wake.set()

    def stop(self) -> None:
        """Takes nothing more, and gives back what has not been sent; calls in flight continue."""
        self._stopping = True
        self._wake.set()

    async def abandon_calls(self) -> None:
        """Leaves the calls in flight: the runners keep their runs, and the tasks are released to be attached to."""
        runs, calls = self.runs, list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._completer.release([run for run in runs if run in self._in_flight], "the controller stops")

    @property
    def is_idle(self) -> bool:
        """Whether it has no task, neither here nor at a runner."""
        has_taken = self._is_sorting or (self._taking is not None and self._taking.done())
        return not (self._ready or self._calls or has_taken)

    @property
    def pending_reason(self) -> str | None:
        """Why its tasks wait although runners offer the algorithm; None when they do not."""
        trouble = self.trouble or ("" if self._feed is None else self._feed.trouble)
        if trouble:
            return f"the controller cannot take tasks of {self.algorithm!r}: {trouble}"
        limits = self._directory.limits(self.algorithm)
        return self._directory.pending_reason(self.algorithm) or self._throttle.reason(
            self.algorithm, limits, self._count_running, any_ready=bool(self._ready)
        )

    @property
    def runs(self) -> list[Run]:
        """The runs in its calls."""
        runs = dict.fromkeys(run for runs, _ in self._calls.values() for run in runs)
        return [run for run in runs if run in self._in_flight]
