"""What calls to runners share, and what becomes of runs whose runner gives the controller no choice."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from controller.completer import Completer
from controller.directory import RunnerDirectory
from controller.metrics import ControllerMetrics
from controller.outcomes import Cancel, Claim, Decision, Requeue, RetryPolicy, decide, disbelieved, runner_lost
from controller.runner_answers import Entry
from controller.runner_client import Item, RunnerClient
from controller.runs import Run
from controller.triage import settled_by
from runnerlib.contract import Limits
from taskqueue.tasks import TaskRow


@dataclass(frozen=True, slots=True)
class CallContext:
    """What every call needs."""

    client: RunnerClient
    directory: RunnerDirectory
    completer: Completer
    policy: RetryPolicy
    metrics: ControllerMetrics
    #: how much longer than agreed a runner may take
    margin_seconds: float = 15.0
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

    def item(self, run: Run, *, with_payload: bool) -> Item:
        delivery = run.delivery
        left = None if delivery.expires_at is None else max(0.001, delivery.expires_at - self.wall())
        return Item(delivery.id, delivery.attempt, left, delivery.payload if with_payload else None)

    def decide(self, run: Run, entry: Entry, limits: Limits, *, sole_run: bool) -> Decision | Claim:
        return decide(
            entry,
            run.delivery,
            run.history,
            limits=limits,
            policy=self.policy,
            now=self.wall(),
            sole_run=sole_run,
            cancel_requested=run.cancel_requested,
        )

    def lost(self, run: Run, runner_id: str, boot: str | None, why: str, *, sole_run: bool) -> Decision:
        """What becomes of a run whose runner process is gone. One that was stopped in order costs no attempt."""
        if self.directory.has_left(runner_id, boot):
            return Requeue(f"{why}, stopped in order")
        return runner_lost(why, run.delivery, run.history, policy=self.policy, now=self.wall(), sole_run=sole_run)

    def judge(self, run: Run, claim: Claim, row: TaskRow | None) -> Decision:
        """What becomes of a run of which its runner claims what only the store can know."""
        over = None if row is None else settled_by(run.delivery, row)
        if over is not None:
            return over
        if claim.cancelled and row is not None and row.cancel_requested:
            return Cancel()
        return disbelieved(claim.why, run.delivery, run.history, doubts=run.doubts, policy=self.policy, now=self.wall())
