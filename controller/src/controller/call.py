"""One call: runs that travel together to one runner, until each has an outcome."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from controller.batching import LatencyEstimate
from controller.call_tools import CallContext
from controller.errors import (
    BadAnswer,
    Busy,
    Dropped,
    LostAfterSending,
    NotSent,
    Refused,
    RunnerError,
    RunnerLost,
    TimedOut,
)
from controller.outcomes import (
    Claim,
    Decision,
    Requeue,
    deadline,
    overdue,
    unreadable,
)
from controller.refusals import refusal_entry, timeout_entry
from controller.runner_answers import Answer, Entry
from controller.runs import Run
from controller.triage import before_start
from runnerlib.contract import EntryState, RunnerLevel, RunnerView
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
#: How long one whose answers are not believed, so that another runner takes its tasks.
ELSEWHERE_SECONDS = 10.0
#: So often in a row a call may be lost before it arrives without costing an attempt.
MISSES_BUDGET = 5
#: A plain runner has no time limits of its own to report; ours is a little longer than its author's.
PLAIN_MARGIN_SECONDS = 5.0


class RunnerCall:
    """Runs at one runner. `attach`: it has them already; otherwise they are sent with the first call."""

    def __init__(
        self,
        tools: CallContext,
        latency: LatencyEstimate,
        algorithm: str,
        runner: RunnerView,
        runs: Sequence[Run],
        *,
        attach: bool = False,
        on_answered: Callable[[], None] | None = None,
    ) -> None:
        """`on_answered` is called when the runner has nothing of this call any more; outcomes are committed after."""
        self._tools = tools
        self._latency = latency
        self._algorithm = algorithm
        self._runner = runner
        self._attach = attach
        self._on_answered = on_answered
        #: whether "unknown" may simply mean that the runs never arrived
        self._may_have_missed = False
        #: the answer to the call that sent them, if it could not be read
        self._garbled: BadAnswer | None = None
        self._sole_run = len(runs) == 1
        self._open = {run.key: run for run in runs}
        self._again: list[Run] = []
        self._limits = tools.directory.limits(algorithm)
        self._deadline = deadline(
            self._limits,
            tools.directory.shared_limits(runner),
            # Those that are attached to may have neighbours in their call that this controller knows nothing of.
            members=max(len(runs), self._limits.batch) if attach else len(runs),
            margin_seconds=tools.margin_seconds,
        )
        self._boot = (runs[0].boot if attach else None) or runner.boot
        self._started_at = tools.clock()
        #: when the runner was last asked, and how long it was to wait with its answer
        self._asked_at = self._started_at
        self._asked_wait = 0.0

    async def run(self) -> list[Run]:
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
        # decided meanwhile: the store's cancel does not wait for a slot
        self._open = {key: run for key, run in self._open.items() if not run.is_decided}
        ask_first = self._attach
        if ask_first:
            self._connected()
        pause = FIRST_PAUSE_SECONDS
        while self._open:
            before = len(self._open)
            answer = await self._next_answer(ask_first=ask_first)
            await self._take_in(answer)
            ask_first = True
            pause = FIRST_PAUSE_SECONDS if len(self._open) < before else min(LAST_PAUSE_SECONDS, pause * 2)
            if self._open and self._tools.clock() - self._asked_at < self._asked_wait / 2:
                # It does not wait with its answers, as it was asked to; we do.
                await asyncio.sleep(pause)

    async def _next_answer(self, *, ask_first: bool) -> Answer:
        try:
            return await (self._ask() if ask_first else self._send())
        except BadAnswer as error:
            if error.is_deliberate or self._runner.level is RunnerLevel.PLAIN:
                raise
            log.warning("answer cannot be read; asking once more", runner=self._runner.id, reason=str(error))
            if not ask_first:
                self._garbled = error
            return await self._ask()

    def _connected(self) -> None:
        """From now on the runner may have the runs."""
        now = self._tools.clock()
        if self._runner.level is RunnerLevel.PLAIN:
            # It answers only at the end, which may be far.
            self._tools.directory.answered(self._runner.id)
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
        await self._tools.completer.complete(outcomes)

    async def _send(self) -> Answer:
        if self._runner.level is RunnerLevel.PLAIN:
            return await self._run_plain()
        try:
            return await self._batch(FIRST_WAIT_SECONDS, with_payload=True)
        except LostAfterSending as error:
            self._may_have_missed = not isinstance(error, Dropped)
            log.warning("connection to a runner lost; asking it again", runner=self._runner.id, reason=str(error))
            return await self._ask()

    async def _ask(self) -> Answer:
        """Asks, without starting anything, until the runner answers or its process must be taken for dead."""
        clock, directory = self._tools.clock, self._tools.directory
        silent_since = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._batch(self._wait_seconds(), with_payload=False)
            except BadAnswer:
                directory.answered(self._runner.id)
                raise
            except Busy as busy:
                self._check_boot(busy)
                await asyncio.sleep(busy.retry_after_seconds)
                return self._nothing_new()
            except Dropped as error:
                # It is not silent: we had no room.
                directory.answered(self._runner.id)
                silent_since = None
                log.info("answer dropped; asking again", runner=self._runner.id, reason=str(error))
            except RunnerError as error:
                self._check_boot(error)
                silent_since = clock() if silent_since is None else silent_since
                why = directory.is_gone(self._runner.id, self._boot, clock() - silent_since)
                if why is not None:
                    raise RunnerLost(f"{why}: {error}") from None
                if not self._is_decided:
                    directory.quarantine(self._runner, str(error))
            if self._is_decided:
                return self._nothing_new()
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE_SECONDS, pause * 2)

    @property
    def _is_decided(self) -> bool:
        return all(run.is_decided for run in self._open.values())

    def _check_boot(self, error: RunnerError) -> None:
        """Another process at the runner's address knows nothing of the runs, whatever it answers."""
        if error.boot is not None and error.boot != self._boot:
            raise RunnerLost(f"runner {self._runner.id} was started anew") from None

    def _nothing_new(self) -> Answer:
        """For a runner that says nothing about the runs: they are as they were."""
        states = {True: EntryState.WAITING, False: EntryState.RUNNING}
        return Answer({key: Entry(states[run.running_since is None]) for key, run in self._open.items()}, None)

    async def _batch(self, wait_seconds: float, *, with_payload: bool) -> Answer:
        self._asked_at, self._asked_wait = self._tools.clock(), wait_seconds
        answer = await self._tools.client.batch(
            self._runner.host,
            self._algorithm,
            [self._tools.item(run, with_payload=with_payload) for run in self._open.values()],
            wait_seconds=wait_seconds,
            result_bytes=self._limits.result_bytes,
            on_connected=self._connected,
        )
        self._tools.directory.taken(self._algorithm, self._runner.id)
        self._arrived(answer)
        return answer

    def _arrived(self, answer: Answer) -> None:
        """What the runner has did reach it: calls with it are not lost in a row any more."""
        for key, entry in answer.entries.items():
            run = self._open.get(key)
            if run is not None and entry.state in (EntryState.WAITING, EntryState.RUNNING):
                run.misses = 0
                self._may_have_missed, self._garbled = False, None

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
            return Answer({run.key: timeout_entry(str(error))}, None)
        except LostAfterSending as error:
            raise RunnerLost(str(error)) from None
        self._tools.directory.taken(self._algorithm, self._runner.id)
        return answer

    def _wait_seconds(self) -> float:
        return min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, self._elapsed() / 10))

    def _elapsed(self) -> float:
        return self._tools.clock() - self._started_at

    async def _take_in(self, answer: Answer) -> None:
        ended: list[Entry] = []
        outcomes: list[tuple[Run, Decision | Claim]] = []
        taken: list[Run] = []
        is_anew = answer.boot is not None and answer.boot != self._boot
        for key, run in list(self._open.items()):
            if run.is_decided:
                del self._open[key]
                continue
            entry = answer.entries.get(key)
            if entry is not None and not entry.state.is_final:
                why = self._goes_on(run, entry, answer.boot)
                if why is None:
                    continue
                log.warning("run is taken from its runner", runner=self._runner.id, task_id=run.id, why=why)
                taken.append(run)
                entry = Entry(EntryState.CANCELLED) if run.cancel_requested else timeout_entry(why)
            elif entry is not None and entry.state in (EntryState.SUCCEEDED, EntryState.FAILED):
                ended.append(entry)
            fault = answer.faults.get(key, "the runner's answer leaves it out")
            outcomes.append((run, self._decision(run, entry, fault, is_anew=is_anew)))
            del self._open[key]
        self._boot = answer.boot or self._boot
        self._latency.observe(ended, self._elapsed(), batched=self._limits.batched)
        await asyncio.gather(*(self._stop(run) for run in taken))
        if not self._open and self._on_answered is not None:
            self._on_answered()
        await self._settle(outcomes)

    async def _stop(self, run: Run) -> None:
        """Asks the runner to end what is not waited for any more; one that does not listen is past help."""
        with suppress(RunnerError):
            await self._tools.client.cancel(self._runner.host, run.id)

    def _goes_on(self, run: Run, entry: Entry, boot: str | None) -> str | None:
        """Notes how far a run is. Returns why it must not go on there, if that is so."""
        run.progress = entry.progress or run.progress
        run.boot = boot or run.boot
        if entry.state is EntryState.WAITING:
            run.running_since = None
        elif run.running_since is None:
            run.running_since = self._tools.clock()
        # As of when it was asked: what has lain here unread says nothing of the time since.
        running = None if run.running_since is None else self._asked_at - run.running_since
        sent_at = self._started_at if run.sent_at is None else run.sent_at
        return overdue(self._deadline, self._limits, running_seconds=running, sent_seconds=self._asked_at - sent_at)

    def _decision(self, run: Run, entry: Entry | None, fault: str, *, is_anew: bool) -> Decision | Claim:
        if entry is None:
            return self._unreadable(run, fault)
        if entry.state is EntryState.UNKNOWN:
            return self._unknown(run, is_anew=is_anew)
        return self._tools.decide(run, entry, self._limits, sole_run=True)

    def _unknown(self, run: Run, *, is_anew: bool) -> Decision:
        """The runner does not have it: it never arrived, was given back, or went with an earlier process."""
        if is_anew:
            return self._lost(run, f"runner {self._runner.id} was started anew")
        if self._attach:
            return Requeue("the runner does not have it")
        if self._garbled is not None:
            return self._unreadable(run, self._garbled)
        if self._may_have_missed:
            run.misses += 1
            if run.misses >= MISSES_BUDGET:
                run.misses = 0
                return self._lost(run, f"calls to runner {self._runner.id} are lost {MISSES_BUDGET} times in a row")
        elif run.given_back_by == (self._runner.id, self._boot):
            return self._unreadable(run, "the runner takes it and gives it back again and again")
        else:
            run.given_back_by = (self._runner.id, self._boot)
        # it is about to stop, or hard to reach
        self._tools.directory.rest(self._algorithm, self._runner.id, REST_SECONDS, "it handed tasks back")
        return Requeue("the runner does not have it")

    def _lost(self, run: Run, why: str) -> Decision:
        return self._tools.lost(run, self._runner.id, self._boot, why, sole_run=self._sole_run)

    def _unreadable(self, run: Run, error: BadAnswer | str) -> Decision:
        return self._doubted(run, unreadable(error, doubts=run.doubts, sole_run=self._sole_run))

    def _doubted(self, run: Run, decision: Decision) -> Decision:
        """Another runner gets what this one is not believed about."""
        if isinstance(decision, Requeue) and self._sole_run:
            run.doubts += 1
            others = any(each.id != self._runner.id for each in self._tools.directory.known(self._algorithm))
            seconds = ELSEWHERE_SECONDS if others else REST_SECONDS
            self._tools.directory.rest(self._algorithm, self._runner.id, seconds, decision.why)
        return decision

    def _without_answer(self, error: RunnerError) -> Callable[[Run], Decision | Claim]:
        """The call was not taken. Only a refusal that speaks of a single task is that task's own."""
        directory, runner = self._tools.directory, self._runner
        if not isinstance(error, NotSent):
            directory.answered(runner.id)
            for run in self._open.values():
                run.misses = 0
        if isinstance(error, BadAnswer):
            return lambda run: self._unreadable(run, error)
        if isinstance(error, NotSent):
            seconds = directory.quarantine(runner, str(error))
            self._tools.metrics.quarantines.labels(runner.id).inc()
            log.warning("runner cannot be reached", runner=runner.id, quarantine_seconds=seconds, reason=str(error))
        elif isinstance(error, Refused) and error.problem.status != 404:
            if not self._sole_run:
                return lambda run: Requeue(f"the runner refused a call with several tasks: {error}", isolated=True)
            return lambda run: self._tools.decide(run, refusal_entry(error), self._limits, sole_run=True)
        else:
            seconds = error.retry_after_seconds if isinstance(error, Busy) else REST_SECONDS
            directory.rest(self._algorithm, runner.id, seconds, str(error))
        return lambda run: Requeue(str(error), expected=isinstance(error, Busy))

    async def _settle_all(self, decision: Callable[[Run], Decision | Claim]) -> None:
        outcomes = [(run, decision(run)) for run in self._open.values()]
        self._open.clear()
        await self._settle(outcomes)

    async def _settle(self, outcomes: Sequence[tuple[Run, Decision | Claim]]) -> None:
        for run in await self._tools.completer.complete(await self._believed(outcomes)):
            run.handed_back()
            self._again.append(run)

    async def _believed(self, outcomes: Sequence[tuple[Run, Decision | Claim]]) -> list[tuple[Run, Decision]]:
        """With the store's word in the place of what the runner claims."""
        claimed = [run for run, decision in outcomes if isinstance(decision, Claim)]
        rows = await self._tools.completer.rows(claimed) if claimed else {}
        return [
            (run, self._doubted(run, self._tools.judge(run, decision, rows.get(run.id))))
            if isinstance(decision, Claim)
            else (run, decision)
            for run, decision in outcomes
        ]
