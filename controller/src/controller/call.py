"""One call: runs that travel together to one runner, until each has an outcome."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from controller import outcomes
from controller.batching import LatencyEstimate
from controller.completer import Completer
from controller.directory import RunnerDirectory
from controller.errors import (
    BadAnswer,
    Busy,
    LostAfterSending,
    NoRoomForAnswer,
    NotSent,
    RunnerError,
    RunnerLost,
    TimedOut,
)
from controller.metrics import ControllerMetrics
from controller.outcomes import Cancel, Decision, OutcomePolicy, StartAgain, Unconfirmed
from controller.runner_answers import Answer, Entry
from controller.runner_client import Item, RunnerClient
from controller.runs import Run
from controller.triage import before_start, settled_by
from runnerlib.contract import EntryState, RunnerLevel, RunnerView
from runnerlib.service.logs import get_logger
from taskqueue.tasks import Placement, TaskRow

log = get_logger(__name__)

#: The first answer comes by then, whole or not: it shows what has ended already, and the progress of the rest.
FIRST_WAIT_SECONDS = 1.0
#: Afterwards a tenth of the time it has taken so far, within these bounds.
MIN_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 20.0
#: A silent runner is asked again after this long, then after up to ten times as long.
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 1.0
#: How long a runner whose answers are not believed gets no tasks, so that another runner takes them.
ELSEWHERE_SECONDS = 10.0
#: So often in a row a call may be lost before it arrives without costing an attempt.
MISSES_BUDGET = 5
#: A plain runner has no time limits of its own to report; ours is a little longer than its author's.
PLAIN_MARGIN_SECONDS = 5.0
_UNFINISHED = frozenset({EntryState.WAITING, EntryState.RUNNING})
_RAN = frozenset({EntryState.SUCCEEDED, EntryState.FAILED})


@dataclass(frozen=True, slots=True)
class CallContext:
    """What every call needs."""

    client: RunnerClient
    directory: RunnerDirectory
    completer: Completer
    policy: OutcomePolicy
    metrics: ControllerMetrics
    #: how much longer than agreed a runner may take
    margin_seconds: float = 15.0
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

    def items(self, runs: Sequence[Run], *, with_payload: bool) -> list[Item]:
        return [
            Item(
                (task := run.delivery).id,
                task.attempt,
                None if task.expires_at is None else max(0.001, task.expires_at - self.wall()),
                task.payload if with_payload else None,
            )
            for run in runs
        ]


class RunnerCall:
    """Follows runs at one runner. With `attach` it has them already; otherwise the first request sends them."""

    def __init__(
        self,
        context: CallContext,
        latency: LatencyEstimate,
        algorithm: str,
        runner: RunnerView,
        runs: Sequence[Run],
        *,
        attach: bool = False,
        on_answered: Callable[[], None] | None = None,
    ) -> None:
        """`on_answered` is called once the runner has nothing more of this call; outcomes are committed after that."""
        self._context = context
        self._directory = context.directory
        self._clock = context.clock
        self._latency = latency
        self._algorithm = algorithm
        self._runner = runner
        self._attach = attach
        self._on_answered = on_answered
        #: whether "unknown" may simply mean that the runs never arrived
        self._may_have_missed = False
        #: the answer to the request that sent them, if it could not be read
        self._garbled: BadAnswer | None = None
        self._sole_run = len(runs) == 1
        self._open = {run.key: run for run in runs}
        self._requeued: list[Run] = []
        self._limits = self._directory.limits(algorithm)
        self._deadline = outcomes.deadline(
            self._limits,
            self._directory.shared_limits(runner),
            # Runs that are attached to may share their call with others that this controller knows nothing of.
            members=max(len(runs), self._limits.batch) if attach else len(runs),
            margin_seconds=context.margin_seconds,
        )
        self._boot = (runs[0].boot if attach else None) or runner.boot
        self._started_at = self._clock()
        #: when the runner was last asked, and how long it was to wait with its answer
        self._asked_at = self._started_at
        self._asked_wait = 0.0

    async def run(self) -> list[Run]:
        """Returns the runs that must start again; all others have their outcome committed."""
        if not self._attach:
            await self._end_unstartable()
            self._context.metrics.batch_size.labels(self._algorithm).observe(len(self._open))
        self._started_at = self._clock()
        try:
            await self._follow()
        except RunnerLost as lost:
            why, task_ids = str(lost), [run.id for run in self._open.values()]
            log.warning("runner lost", runner=self._runner.id, why=why, task_ids=task_ids)
            await self._end_all(lambda run: self._lost(run, why))
        except RunnerError as error:
            self._note_failure(error)
            decide, limits, sole_run = self._context.policy.call_failed, self._limits, self._sole_run
            failure = error
            await self._end_all(lambda run: decide(run, failure, limits, sole_run=sole_run))
        self._context.metrics.dispatch_seconds.labels(self._algorithm).observe(self._elapsed())
        return self._requeued

    async def _end_unstartable(self) -> None:
        """Ends what must not start any more, e.g. because it has expired."""
        now, over = self._context.wall(), []
        for run in self._open.values():
            reason = before_start(run.delivery, cancelled=run.cancel_requested, now=now)
            if reason is not None:
                over.append((run, reason))
        if over:
            for run, _ in over:
                del self._open[run.key]
            await self._context.completer.complete(over)

    async def _follow(self) -> None:
        """Sends the runs, then asks for them until each has ended."""
        # A cancel is committed without waiting for a slot.
        self._open = {key: run for key, run in self._open.items() if not run.is_committing}
        sent, pause = self._attach, FIRST_PAUSE_SECONDS
        if sent:
            self._connected()
        while self._open:
            before = len(self._open)
            await self._take_in(await self._next_answer(sent=sent))
            sent = True
            pause = FIRST_PAUSE_SECONDS if len(self._open) < before else min(LAST_PAUSE_SECONDS, pause * 2)
            if self._open and self._clock() - self._asked_at < self._asked_wait / 2:
                # The runner does not wait with its answers as it was asked to, so the pause is ours.
                await asyncio.sleep(pause)

    async def _next_answer(self, *, sent: bool) -> Answer:
        try:
            return await (self._ask() if sent else self._send())
        except BadAnswer as error:
            if error.would_repeat or self._runner.level is RunnerLevel.PLAIN:
                raise
            log.warning("answer cannot be read; asking once more", runner=self._runner.id, reason=str(error))
            if not sent:
                self._garbled = error
            return await self._ask()

    async def _send(self) -> Answer:
        if self._runner.level is RunnerLevel.PLAIN:
            return await self._run_plain()
        try:
            return await self._batch(FIRST_WAIT_SECONDS, with_payload=True)
        except LostAfterSending as error:
            self._may_have_missed = not isinstance(error, NoRoomForAnswer)
            log.warning("connection to a runner lost; asking it again", runner=self._runner.id, reason=str(error))
            return await self._ask()

    async def _run_plain(self) -> Answer:
        """A plain runner takes one task a call, and cannot be asked again: what is lost is lost."""
        (run,) = self._open.values()
        try:
            answer = await self._context.client.run(
                self._runner,
                self._algorithm,
                self._context.items([run], with_payload=True)[0],
                timeout_seconds=self._limits.timeout_seconds + PLAIN_MARGIN_SECONDS,
                result_bytes=self._limits.result_bytes,
                on_connected=self._connected,
            )
        except TimedOut as error:
            return Answer({run.key: outcomes.timed_out(str(error))}, None)
        except LostAfterSending as error:
            raise RunnerLost(str(error)) from None
        self._directory.has_accepted(self._algorithm, self._runner.id)
        return answer

    async def _ask(self) -> Answer:
        """Asks, without starting anything, until the runner answers or its process must be taken for dead."""
        directory, runner_id = self._directory, self._runner.id
        silent_since = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                wait_seconds = min(MAX_WAIT_SECONDS, max(MIN_WAIT_SECONDS, self._elapsed() / 10))
                return await self._batch(wait_seconds, with_payload=False)
            except BadAnswer:
                directory.answered(runner_id)
                raise
            except Busy as busy:
                self._check_boot(busy)
                await asyncio.sleep(busy.retry_after_seconds)
                return self._nothing_new()
            except NoRoomForAnswer as error:
                # The runner is not silent: there was no room for its answer.
                directory.answered(runner_id)
                silent_since = None
                log.info("answer dropped; asking again", runner=runner_id, reason=str(error))
            except RunnerError as error:
                self._check_boot(error)
                silent_since = self._clock() if silent_since is None else silent_since
                why = directory.is_gone(runner_id, self._boot, self._clock() - silent_since)
                if why is not None:
                    raise RunnerLost(f"{why}: {error}") from None
                if not self._is_committing:
                    directory.quarantine(self._runner, str(error))
            if self._is_committing:
                return self._nothing_new()
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE_SECONDS, pause * 2)

    @property
    def _is_committing(self) -> bool:
        return all(run.is_committing for run in self._open.values())

    def _check_boot(self, error: RunnerError) -> None:
        """Another process at the runner's address knows nothing of the runs, whatever it answers."""
        if error.boot is not None and error.boot != self._boot:
            raise RunnerLost(f"runner {self._runner.id} was started anew") from None

    def _nothing_new(self) -> Answer:
        """For a runner that says nothing about the runs: they are as they were."""
        states = {True: EntryState.WAITING, False: EntryState.RUNNING}
        return Answer({key: Entry(states[run.running_since is None]) for key, run in self._open.items()}, None)

    async def _batch(self, wait_seconds: float, *, with_payload: bool) -> Answer:
        self._asked_at, self._asked_wait = self._clock(), wait_seconds
        answer = await self._context.client.batch(
            self._runner,
            self._algorithm,
            self._context.items(list(self._open.values()), with_payload=with_payload),
            wait_seconds=wait_seconds,
            result_bytes=self._limits.result_bytes,
            on_connected=self._connected,
        )
        self._directory.has_accepted(self._algorithm, self._runner.id)
        for key, entry in answer.entries.items():
            if entry.state in _UNFINISHED and (run := self._open.get(key)) is not None:
                # It did arrive: calls with it are not lost in a row any more.
                run.misses = 0
                self._may_have_missed, self._garbled = False, None
        return answer

    def _connected(self) -> None:
        """From now on the runner may have the runs."""
        now = self._clock()
        if self._runner.level is RunnerLevel.PLAIN:
            # It answers only at the end, which may be far.
            self._directory.answered(self._runner.id)
        for run in self._open.values():
            if run.sent_at is None:
                run.sent_to(self._runner, self._boot, now)

    def _elapsed(self) -> float:
        return self._clock() - self._started_at

    async def _take_in(self, answer: Answer) -> None:
        """Ends the runs whose entry is final, is missing, or has come too late."""
        measured: list[Entry] = []
        decided: list[tuple[Run, Decision | Unconfirmed]] = []
        taken_away: list[Run] = []
        restarted = answer.boot is not None and answer.boot != self._boot
        for key, run in list(self._open.items()):
            entry = answer.entries.get(key)
            if run.is_committing:
                del self._open[key]
                continue
            if entry is not None and entry.state in _RAN:
                measured.append(entry)
            elif entry is not None and entry.state in _UNFINISHED:
                why = self._reason_to_end(run, entry, answer.boot)
                if why is None:
                    continue
                log.warning("run is taken from its runner", runner=self._runner.id, task_id=run.id, why=why)
                taken_away.append(run)
                entry = Entry(EntryState.CANCELLED) if run.cancel_requested else outcomes.timed_out(why)
            del self._open[key]
            if entry is None:
                fault = answer.faults.get(key, "the runner's answer leaves it out")
                decided.append((run, self._unreadable(run, fault)))
            elif entry.state is EntryState.UNKNOWN:
                decided.append((run, self._not_there(run, restarted=restarted)))
            else:
                decided.append((run, self._context.policy.decide(run, entry, self._limits)))
        self._boot = answer.boot or self._boot
        self._latency.observe(measured, self._elapsed(), batched=self._limits.batched)
        if taken_away:
            await asyncio.gather(*(self._stop(run) for run in taken_away))
        if not self._open and self._on_answered is not None:
            self._on_answered()
        await self._complete(decided)

    def _reason_to_end(self, run: Run, entry: Entry, boot: str | None) -> str | None:
        """Notes the progress of a run. Returns why it must not continue there, if that is so."""
        run.progress = entry.progress or run.progress
        run.boot = boot or run.boot
        if entry.state is EntryState.WAITING:
            run.running_since = None
        elif run.running_since is None:
            run.running_since = self._clock()
        # As of when the runner was asked: an answer that was read late says nothing of the time since.
        running = None if run.running_since is None else self._asked_at - run.running_since
        sent_at = self._started_at if run.sent_at is None else run.sent_at
        return outcomes.reason_to_take_away(
            self._deadline, self._limits, running_seconds=running, sent_seconds=self._asked_at - sent_at
        )

    async def _stop(self, run: Run) -> None:
        """Asks the runner to end a run that is not waited for any more; whether it obeys changes nothing."""
        with suppress(RunnerError):
            await self._context.client.cancel(self._runner, run.id)

    def _not_there(self, run: Run, *, restarted: bool) -> Decision:
        """The runner does not have it: it never arrived, was given back, or went with an earlier process."""
        runner_id = self._runner.id
        if restarted:
            return self._lost(run, f"runner {runner_id} was started anew")
        if self._attach:
            return StartAgain("the runner does not have it")
        if self._garbled is not None:
            return self._unreadable(run, self._garbled)
        if self._may_have_missed:
            run.misses += 1
            if run.misses >= MISSES_BUDGET:
                run.misses = 0
                return self._lost(run, f"calls to runner {runner_id} are lost {MISSES_BUDGET} times in a row")
        elif run.given_back_by == (runner_id, self._boot):
            return self._unreadable(run, "the runner takes it and gives it back again and again")
        else:
            run.given_back_by = (runner_id, self._boot)
        # it is about to stop, or hard to reach
        self._directory.pause(self._algorithm, runner_id, outcomes.RUNNER_PAUSE_SECONDS, "it handed tasks back")
        return StartAgain("the runner does not have it")

    def _unreadable(self, run: Run, error: BadAnswer | str) -> Decision:
        return outcomes.unreadable(error, disbelieved_answers=run.disbelieved_answers, sole_run=self._sole_run)

    def _lost(self, run: Run, why: str) -> Decision:
        has_left = self._directory.has_left(self._runner.id, self._boot)
        return self._context.policy.runner_lost(run, why, sole_run=self._sole_run, has_left=has_left)

    def _note_failure(self, error: RunnerError) -> None:
        """What a call without outcomes means for the runner."""
        directory, runner = self._directory, self._runner
        if isinstance(error, NotSent):
            seconds = directory.quarantine(runner, str(error))
            self._context.metrics.quarantines.labels(runner.id).inc()
            log.warning("runner cannot be reached", runner=runner.id, quarantine_seconds=seconds, reason=str(error))
            return
        directory.answered(runner.id)
        for run in self._open.values():
            run.misses = 0
        pause_seconds = outcomes.pause_seconds(error)
        if pause_seconds is not None:
            directory.pause(self._algorithm, runner.id, pause_seconds, str(error))

    async def _end_all(self, decide: Callable[[Run], Decision | Unconfirmed]) -> None:
        decided = [(run, decide(run)) for run in self._open.values()]
        self._open.clear()
        await self._complete(decided)

    async def _complete(self, decided: Sequence[tuple[Run, Decision | Unconfirmed]]) -> None:
        claimed = [run.id for run, decision in decided if isinstance(decision, Unconfirmed)]
        rows = await self._context.completer.lookup(claimed) if claimed else {}
        final: list[tuple[Run, Decision]] = []
        for run, decision in decided:
            if isinstance(decision, Unconfirmed):
                decision = self._checked(run, decision, rows.get(run.id))
            if isinstance(decision, StartAgain) and decision.distrusted and self._sole_run:
                self._distrust(run, decision.why)
            final.append((run, decision))
        for run in await self._context.completer.complete(final):
            run.handed_back()
            self._requeued.append(run)

    def _checked(self, run: Run, claim: Unconfirmed, row: TaskRow | None) -> Decision:
        """What the store says of a claim."""
        over = None if row is None else settled_by(run.delivery, row)
        if over is not None:
            return over
        if claim.cancelled and row is not None and row.cancel_requested:
            return Cancel()
        return self._context.policy.disbelieved(run, claim.why)

    def _distrust(self, run: Run, why: str) -> None:
        """Another runner gets what this one is not believed about."""
        run.disbelieved_answers += 1
        others = any(each.id != self._runner.id for each in self._directory.known(self._algorithm))
        seconds = ELSEWHERE_SECONDS if others else outcomes.RUNNER_PAUSE_SECONDS
        self._directory.pause(self._algorithm, self._runner.id, seconds, why)


async def attach(
    context: CallContext, latency: LatencyEstimate, algorithm: str, placement: Placement, runs: Sequence[Run]
) -> list[Run]:
    """Follows runs at the runner process that the store names. Returns those that must start again."""
    directory, since = context.directory, context.clock()
    # A registry that has just started may not know the runner yet.
    while (gone := directory.is_gone(placement.runner, placement.boot, context.clock() - since)) is None:
        runner = directory.runner(placement.runner)
        if runner is not None:
            return await RunnerCall(context, latency, algorithm, runner, runs, attach=True).run()
        await asyncio.sleep(LAST_PAUSE_SECONDS / 4)
    log.warning("runner lost", runner=placement.runner, why=gone, task_ids=[run.id for run in runs])
    has_left = directory.has_left(placement.runner, placement.boot)
    lost = [(run, context.policy.runner_lost(run, gone, sole_run=len(runs) == 1, has_left=has_left)) for run in runs]
    requeued = await context.completer.complete(lost)
    for run in requeued:
        run.handed_back()
    return requeued
