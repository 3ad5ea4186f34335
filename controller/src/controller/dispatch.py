"""One call: runs that travel together to one runner, until each has an outcome."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controller.batching import Pace
from controller.errors import BadAnswer, Busy, LostAfterSending, NotSent, Refused, RunnerError, RunnerLost, TimedOut
from controller.fleet import Fleet
from controller.inflight import Run
from controller.metrics import ControllerMetrics
from controller.pickup import before_start
from controller.refusals import lost_entry, refusal_entry, timeout_entry
from controller.retry import Again, Decision, Fail, RetryPolicy, decide
from controller.runner_client import Answer, Item, RunnerClient
from controller.settling import Settler
from runnerlib.contract import BatchEntry, EntryState, FailureCode, Limits, RunnerLevel, RunnerView
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: The first answer comes by then, whole or not: what has ended by then is seen, and how far the rest is.
FIRST_WAIT_SECONDS = 1.0
#: Afterwards a tenth of the time it has taken so far, within these bounds.
MIN_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 20.0
#: A silent runner is asked again after this long, then after up to ten times as long.
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 1.0
#: How long a runner that drains, or does not know the algorithm, is left alone.
REST_SECONDS = 1.0
#: A plain runner has no time limits of its own to report; ours is a little longer than its author's.
PLAIN_MARGIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What every call needs."""

    client: RunnerClient
    fleet: Fleet
    settler: Settler
    policy: RetryPolicy
    metrics: ControllerMetrics
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

    def item(self, run: Run, *, with_payload: bool) -> Item:
        delivery = run.delivery
        left = None if delivery.expires_at is None else max(0.001, delivery.expires_at - self.wall())
        return Item(delivery.id, delivery.attempt, left, delivery.payload if with_payload else None)

    def decide(self, run: Run, entry: BatchEntry, limits: Limits, *, lone: bool) -> Decision:
        now = self.wall()
        return decide(entry, run.delivery, run.history, limits=limits, policy=self.policy, now=now, lone=lone)

    def lost(self, run: Run, runner_id: str, boot: str | None, why: str, limits: Limits, *, lone: bool) -> Decision:
        """What becomes of a run whose runner process is gone. One that was stopped in order costs no attempt."""
        if self.fleet.has_left(runner_id, boot):
            return Again(f"{why}, stopped in order")
        return self.decide(run, lost_entry(run, why), limits, lone=lone)


class Conversation:
    """Runs at one runner. `attach`: it has them already; otherwise they are sent with the first call."""

    def __init__(
        self,
        tools: Tools,
        pace: Pace,
        algorithm: str,
        runner: RunnerView,
        runs: Sequence[Run],
        *,
        attach: bool = False,
        on_answered: Callable[[], None] | None = None,
    ) -> None:
        """`on_answered` is called when the runner has nothing of this call any more; outcomes are committed after."""
        self._tools = tools
        self._pace = pace
        self._algorithm = algorithm
        self._runner = runner
        self._attach = attach
        self._on_answered = on_answered
        #: whether "unknown" may simply mean that the runs never arrived
        self._may_have_missed = attach
        self._lone = len(runs) == 1
        self._open = {run.key: run for run in runs}
        self._again: list[Run] = []
        self._limits = tools.fleet.limits(algorithm)
        self._boot = (runs[0].boot if attach else None) or runner.boot
        self._started_at = tools.clock()

    async def hold(self) -> list[Run]:
        """Returns the runs that must start again; all others are settled."""
        if not self._attach:
            await self._leave_out()
            self._tools.metrics.batch_size.labels(self._algorithm).observe(len(self._open))
        try:
            await self._converse()
        except RunnerLost as lost:
            why = str(lost)
            log.warning(
                "runner lost", runner=self._runner.id, why=why, task_ids=[run.id for run in self._open.values()]
            )
            await self._settle_all(lambda run: self._lost(run, why))
        except RunnerError as error:
            await self._settle_all(self._without_answer(error))
        self._tools.metrics.dispatch_seconds.labels(self._algorithm).observe(self._elapsed())
        return self._again

    async def _converse(self) -> None:
        self._started_at = self._tools.clock()
        ask_first = self._attach
        if ask_first:
            self._connected()
        while self._open:
            answer = await (self._ask() if ask_first else self._send())
            await self._take_in(answer)
            ask_first = True

    def _connected(self) -> None:
        """From now on the runner may have the runs."""
        now = self._tools.clock()
        for run in self._open.values():
            if run.sent_at is None:
                run.sent_to(self._runner, self._boot, now)

    async def _leave_out(self) -> None:
        """Settles what must not start any more, and what could not be started anywhere."""
        now = self._tools.wall()
        outcomes = []
        for run in self._open.values():
            reason = before_start(run.delivery, cancelled=run.cancel_requested, now=now)
            if reason is not None:
                outcomes.append((run, reason))
        for run, _ in outcomes:
            del self._open[run.key]
        await self._tools.settler.settle(outcomes)

    async def _send(self) -> Answer:
        if self._runner.level is RunnerLevel.PLAIN:
            return await self._run_plain()
        try:
            return await self._batch(FIRST_WAIT_SECONDS, with_payload=True)
        except LostAfterSending as error:
            self._may_have_missed = True
            log.warning("connection to a runner lost; asking it again", runner=self._runner.id, reason=str(error))
            return await self._ask()

    async def _ask(self) -> Answer:
        """Asks, without starting anything, until the runner answers or its process must be taken for dead."""
        clock, fleet = self._tools.clock, self._tools.fleet
        silent_since = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._batch(self._wait_seconds(), with_payload=False)
            except BadAnswer:
                raise
            except Busy as busy:
                await asyncio.sleep(busy.retry_after_seconds)
            except RunnerError as error:
                if error.boot is not None and error.boot != self._boot:
                    raise RunnerLost(f"runner {self._runner.id} was started anew") from None
                silent_since = clock() if silent_since is None else silent_since
                why = fleet.is_gone(self._runner.id, self._boot, clock() - silent_since)
                if why is not None:
                    raise RunnerLost(why) from None
                fleet.quarantine(self._runner, str(error))
                await asyncio.sleep(pause)
                pause = min(LAST_PAUSE_SECONDS, pause * 2)

    async def _batch(self, wait_seconds: float, *, with_payload: bool) -> Answer:
        answer = await self._tools.client.batch(
            self._runner.host,
            self._algorithm,
            [self._tools.item(run, with_payload=with_payload) for run in self._open.values()],
            wait_seconds=wait_seconds,
            result_bytes=self._limits.result_bytes,
            on_connected=self._connected,
        )
        self._tools.fleet.taken(self._algorithm, self._runner.id)
        return answer

    async def _run_plain(self) -> Answer:
        """A plain runner takes one task a call, and cannot be asked again: what is lost is lost."""
        (run,) = self._open.values()
        try:
            answer = await self._tools.client.run(
                self._runner.host,
                self._algorithm,
                self._tools.item(run, with_payload=True),
                timeout_seconds=self._limits.timeout_seconds + PLAIN_MARGIN_SECONDS,
                result_bytes=self._limits.result_bytes,
                on_connected=self._connected,
            )
        except TimedOut as error:
            return Answer({run.key: timeout_entry(run, str(error))}, None)
        except LostAfterSending as error:
            raise RunnerLost(str(error)) from None
        self._tools.fleet.taken(self._algorithm, self._runner.id)
        return answer

    def _wait_seconds(self) -> float:
        return min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, self._elapsed() / 10))

    def _elapsed(self) -> float:
        return self._tools.clock() - self._started_at

    async def _take_in(self, answer: Answer) -> None:
        ended: list[BatchEntry] = []
        outcomes: list[tuple[Run, Decision]] = []
        is_anew = answer.boot is not None and answer.boot != self._boot
        for key, run in list(self._open.items()):
            entry = answer.entries.get(key)
            if entry is not None and not entry.state.is_final:
                run.progress = entry.progress or run.progress
                run.boot = answer.boot or run.boot
                continue
            if entry is not None and entry.state in (EntryState.SUCCEEDED, EntryState.FAILED):
                ended.append(entry)
            outcomes.append((run, self._decision(run, entry, is_anew=is_anew)))
            del self._open[key]
        self._boot = answer.boot or self._boot
        self._pace.observe(ended, self._elapsed(), batched=self._limits.batched)
        if not self._open and self._on_answered is not None:
            self._on_answered()
        await self._settle(outcomes)

    def _decision(self, run: Run, entry: BatchEntry | None, *, is_anew: bool) -> Decision:
        if entry is None:
            if not self._lone:
                return Again("the runner's answer leaves it out", alone=True)
            return Fail(FailureCode.BAD_RESULT, "the runner's answer leaves this task out")
        if entry.state is EntryState.UNKNOWN:
            if is_anew:
                return self._lost(run, f"runner {self._runner.id} was started anew")
            if not self._may_have_missed:
                # it gave the run back, so it is about to stop
                self._tools.fleet.rest(self._algorithm, self._runner.id, REST_SECONDS, "it handed tasks back")
        return self._tools.decide(run, entry, self._limits, lone=True)

    def _lost(self, run: Run, why: str) -> Decision:
        return self._tools.lost(run, self._runner.id, self._boot, why, self._limits, lone=self._lone)

    def _without_answer(self, error: RunnerError) -> Callable[[Run], Decision]:
        """The call was not taken. Only a refusal that speaks of a single task is that task's own."""
        fleet, runner = self._tools.fleet, self._runner
        if not isinstance(error, NotSent):
            fleet.answered(runner.id)
        if isinstance(error, NotSent):
            seconds = fleet.quarantine(runner, str(error))
            self._tools.metrics.quarantines.labels(runner.id).inc()
            log.warning("runner cannot be reached", runner=runner.id, quarantine_seconds=seconds, reason=str(error))
        elif isinstance(error, BadAnswer) or (isinstance(error, Refused) and error.problem.status != 404):
            if not self._lone:
                return lambda run: Again(f"the runner refused a call with several tasks: {error}", alone=True)
            if isinstance(error, Refused):
                return lambda run: self._tools.decide(run, refusal_entry(run, error), self._limits, lone=True)
            return lambda run: Fail(FailureCode.BAD_RESULT, str(error))
        else:
            seconds = error.retry_after_seconds if isinstance(error, Busy) else REST_SECONDS
            fleet.rest(self._algorithm, runner.id, seconds, str(error))
        return lambda run: Again(str(error), expected=isinstance(error, Busy))

    async def _settle_all(self, decision: Callable[[Run], Decision]) -> None:
        outcomes = [(run, decision(run)) for run in self._open.values()]
        self._open.clear()
        await self._settle(outcomes)

    async def _settle(self, outcomes: Sequence[tuple[Run, Decision]]) -> None:
        for run in await self._tools.settler.settle(outcomes):
            run.handed_back()
            self._again.append(run)
