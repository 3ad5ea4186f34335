"""One lane for each algorithm: takes tasks as runners have room for them, and sends them in batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from controller import batching
from controller.call import RunnerCall
from controller.call_tools import CallContext
from controller.intake import Intake, Sorted
from controller.reattach import attach, find
from controller.runs import InFlight, Run
from controller.store_gate import StoreGate
from controller.triage import before_start
from runnerlib.contract import RunnerLevel, RunnerView
from runnerlib.service.logs import get_logger
from taskqueue.errors import QueueClosed
from taskqueue.protocols import Feed, TaskQueue
from taskqueue.tasks import Delivery

log = get_logger(__name__)

#: A lane looks around at least this often, whatever it was told: a net, not the path.
LOOK_AROUND_SECONDS = 5.0
#: ... and when it has nothing to do, by and by as seldom as this: there may be thousands of lanes.
LONGEST_LOOK_AROUND_SECONDS = 60.0
#: ... and so often at the tasks that wait here for a runner: they may expire or be cancelled meanwhile.
LOOK_AT_READY_SECONDS = 1.0
#: How long a lane rests after something went wrong in it.
PAUSE_AFTER_FAILURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ConsumerDependencies:
    """What every lane needs."""

    queue: TaskQueue
    gate: StoreGate
    intake: Intake
    in_flight: InFlight
    calls: CallContext


class AlgorithmConsumer:
    """Everything of one algorithm in this process. A failure here concerns no other lane."""

    def __init__(self, algorithm: str, tools: ConsumerDependencies) -> None:
        self.algorithm = algorithm
        #: why it does not work at the moment; empty when it does
        self.trouble = ""
        self._feed: Feed | None = None
        self._tools = tools
        self._directory = tools.calls.directory
        self._latency = batching.LatencyEstimate()
        self._ready: deque[Run] = deque()
        #: call → its runs, and the runner when one is known
        self._calls: dict[asyncio.Task[None], tuple[list[Run], str | None]] = {}
        self._taking: asyncio.Task[list[Delivery]] | None = None
        self._wake = asyncio.Event()
        #: tasks have come, and are being looked up
        self._admitting = False
        self._stopping = False
        self._prefetch = -1
        self._left_out_at = tools.calls.clock()
        self._look_around = LOOK_AROUND_SECONDS

    def wake(self) -> None:
        """Something changed: runners, a call's end, the store."""
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Whether it has no task, neither here nor at a runner."""
        has_taken = self._admitting or (self._taking is not None and self._taking.done())
        return not (self._ready or self._calls or has_taken)

    @property
    def held_up(self) -> str | None:
        """Why its tasks wait though runners offer the algorithm; None when they do not."""
        trouble = self.trouble or ("" if self._feed is None else self._feed.trouble)
        if trouble:
            return f"the controller cannot take tasks of {self.algorithm!r}: {trouble}"
        return self._directory.held_up(self.algorithm)

    @property
    def runs(self) -> list[Run]:
        """The runs in its calls."""
        runs = dict.fromkeys(run for runs, _ in self._calls.values() for run in runs)
        return [run for run in runs if run in self._tools.in_flight]

    async def run(self) -> None:
        """Until `stop`. What fails in here is logged, what waited is released, and the lane starts again."""
        while not self._stopping:
            try:
                await self._flow()
            except QueueClosed:
                log.info("the queue is closed; the lane ends", algorithm=self.algorithm)
                return
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                log.exception(
                    "lane failed; its waiting tasks are released and it starts again", algorithm=self.algorithm
                )
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)

    def stop(self) -> None:
        """Takes nothing more, and gives back what has not been sent; calls in flight go on."""
        self._stopping = True
        self._wake.set()

    async def abandon_calls(self) -> None:
        """Leaves the calls in flight: their runs go on at the runners, their tasks are released to be attached to."""
        runs = self.runs
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._release([run for run in runs if run in self._tools.in_flight], "the controller stops")

    async def _flow(self) -> None:
        feed = self._feed = await self._tools.queue.feed(self.algorithm)
        self._prefetch = -1
        try:
            while not self._stopping:
                await self._turn(feed)
        finally:
            self._feed = None
            await self._end_flow(feed)

    async def _end_flow(self, feed: Feed) -> None:
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
            if not taking.cancelled() and taking.exception() is None:
                self._ready.extend(Run(delivery) for delivery in taking.result())
        waiting = list(self._ready)
        self._ready.clear()
        await self._release(waiting, "the lane stops")
        await feed.close()

    async def _turn(self, feed: Feed) -> None:
        self._wake.clear()
        await self._set_prefetch(feed)
        await self._hand_back()
        self._launch()
        if self._ready:
            await self._leave_out()
        self._take(feed)
        await self._pause()
        self.trouble = ""
        # Once it stops, what came meanwhile is given back with the rest: no call of a closed lane begins.
        if self._taking is not None and self._taking.done() and not self._stopping:
            taking, self._taking = self._taking, None
            await self._admit(taking.result())

    async def _hand_back(self) -> None:
        """What no runner will take soon waits in the queue, where another controller may take it."""
        if not self._ready:
            return
        if not self._directory.known(self.algorithm):
            why = "no runner offers the algorithm any more"
        elif self._directory.is_unreachable(self.algorithm) and not self._directory.loads(self.algorithm):
            why = "no runner of the algorithm can be reached"
        else:
            return
        waiting = list(self._ready)
        self._ready.clear()
        await self._release(waiting, why)

    async def _leave_out(self) -> None:
        """Settles what waits here for busy runners and must not start any more."""
        calls = self._tools.calls
        if calls.clock() - self._left_out_at < LOOK_AT_READY_SECONDS:
            return
        self._left_out_at, now = calls.clock(), calls.wall()
        over = [
            (run, reason)
            for run in self._ready
            if (reason := before_start(run.delivery, cancelled=run.cancel_requested, now=now)) is not None
        ]
        if over:
            left_out = {run.key for run, _ in over}
            self._ready = deque(run for run in self._ready if run.key not in left_out)
            await calls.completer.complete(over)

    async def _pause(self) -> None:
        """Until tasks are here, or something changed."""
        events: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._wake.wait())]
        if not self._tools.gate.is_open:
            events.append(asyncio.ensure_future(self._tools.gate.wait_open()))
        waits = events if self._taking is None else [*events, self._taking]
        seconds = self._directory.next_free_in_seconds(self.algorithm)
        longest = LOOK_AT_READY_SECONDS if self._ready else self._look_around
        timeout = longest if seconds is None else min(seconds + 0.001, longest)
        try:
            done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            quiet = not done and self.is_idle and self._tools.gate.is_open
            self._look_around = (
                min(LONGEST_LOOK_AROUND_SECONDS, self._look_around * 2) if quiet else LOOK_AROUND_SECONDS
            )
        finally:
            for event in events:
                event.cancel()

    async def _set_prefetch(self, feed: Feed) -> None:
        runners = self._directory.known(self.algorithm)
        limits = self._directory.limits(self.algorithm)
        live = {runner.id for runner in runners}
        stranded = sum(len(runs) for runs, runner_id in self._calls.values() if runner_id not in live)
        calls_at_once = self._latency.calls_at_once(limits)
        if self._latency.is_short:
            # As many again, whose outcomes are being committed.
            calls_at_once *= 2
        count = batching.prefetch(self._latency.cap(limits), calls_at_once, len(runners), stranded)
        if self._directory.is_unreachable(self.algorithm):
            # One task at a time finds out whether a runner can be reached again; none while nobody is tried.
            count = 1 if self._directory.loads(self.algorithm) else 0
        if count != self._prefetch:
            self._prefetch = count
            await feed.set_prefetch(count)

    def _room(self) -> batching.Room:
        limits = self._directory.limits(self.algorithm)
        return batching.room(self._directory.loads(self.algorithm), limits, self._latency.calls_at_once(limits))

    def _take(self, feed: Feed) -> None:
        """Asks for what there is room for now; waits in the background."""
        if self._taking is not None or not self._tools.gate.is_open or self._stopping:
            return
        most = self._room().calls * self._latency.cap(self._directory.limits(self.algorithm))
        if self._directory.is_unreachable(self.algorithm):
            most = min(1, most)
        most = min(batching.MOST_OUT, most) - len(self._ready)
        if most > 0:
            self._taking = asyncio.create_task(feed.take(most), name=f"take {self.algorithm}")

    async def _admit(self, deliveries: list[Delivery]) -> None:
        self._tools.calls.metrics.taken.labels(self.algorithm).inc(len(deliveries))
        self._admitting = True
        try:
            result = await self._tools.intake.sort(deliveries)
        except Exception:
            runs = [self._tools.in_flight.find(delivery) or Run(delivery) for delivery in deliveries]
            await self._release(runs, "they could not be looked up")
            raise
        finally:
            self._admitting = False
        self._ready.extend(result.start)
        self._resume(result)

    def _resume(self, result: Sorted) -> None:
        """What was handed out before takes no room: it runs already, or is looked for."""
        for placement, runs in result.attach.values():
            log.info("attaching to runs", runner=placement.runner, task_ids=[run.id for run in runs][:20])
            answered = self._occupy(placement.runner)
            work = attach(self._tools.calls, self._latency, self.algorithm, placement, runs)
            self._spawn(work, runs, placement.runner, answered)
        if result.ask:
            self._spawn(self._look_for(result.ask), result.ask, None, self._wake.set)

    async def _look_for(self, runs: list[Run]) -> list[Run]:
        found, unknown = await find(self._tools.calls, self.algorithm, runs)
        for its_runs in found.values():
            runner = its_runs[0].runner
            assert runner is not None
            self._converse(runner, its_runs, attach=True)
        return unknown

    def _launch(self) -> None:
        """Sends what waits, as far as there is room, to the least loaded runners first."""
        while self._ready and not self._stopping:
            room = self._room()
            runner = self._directory.runner(room.next_runner) if room.next_runner is not None else None
            if runner is None:
                return
            runs = self._next_batch(runner, room.free_slots)
            self._converse(runner, runs)

    def _next_batch(self, runner: RunnerView, free_slots: int) -> list[Run]:
        cap = self._latency.cap(self._directory.limits(self.algorithm))
        size = 1 if runner.level is RunnerLevel.PLAIN else batching.share(len(self._ready), free_slots, cap)
        runs = [self._ready.popleft()]
        size_bytes = len(runs[0].delivery.payload) + batching.ITEM_BYTES
        while self._ready and len(runs) < size and not runs[0].isolated and not self._ready[0].isolated:
            size_bytes += len(self._ready[0].delivery.payload) + batching.ITEM_BYTES
            if size_bytes > batching.MAX_BATCH_BYTES:
                break
            runs.append(self._ready.popleft())
        return runs

    def _converse(self, runner: RunnerView, runs: list[Run], *, attach: bool = False) -> None:
        """The runner's slot is free for the next call while this one's outcomes are committed."""
        answered = self._occupy(runner.id)
        talk = RunnerCall(
            self._tools.calls, self._latency, self.algorithm, runner, runs, attach=attach, on_answered=answered
        )
        self._spawn(talk.run(), runs, runner.id, answered)

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
        call = asyncio.create_task(self._call(work, runs), name=f"call {self.algorithm}")
        self._calls[call] = (runs, runner_id)

        def ended(_: asyncio.Task[None]) -> None:
            del self._calls[call]
            answered()

        call.add_done_callback(ended)

    async def _call(self, work: Coroutine[Any, Any, list[Run]], runs: list[Run]) -> None:
        """The outermost level of a call: whatever fails in it, its tasks are handed back."""
        try:
            again = await work
        except Exception:
            log.exception("call failed; its tasks are released", algorithm=self.algorithm)
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
            await self._release([run for run in runs if run in self._tools.in_flight], "their call failed")
            return
        if self._stopping:
            await self._release(again, "the controller stops")
        else:
            self._ready.extendleft(reversed(again))

    async def _release(self, runs: Iterable[Run], why: str) -> None:
        await self._tools.calls.completer.release(list(runs), why)
