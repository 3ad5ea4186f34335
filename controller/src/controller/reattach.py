"""Finds the runs of tasks that were handed out before: nothing that still runs is started twice."""

import asyncio
from collections.abc import Sequence

from controller.batching import LatencyEstimate
from controller.call import LAST_PAUSE_SECONDS, RunnerCall
from controller.call_tools import CallContext
from controller.errors import RunnerError
from controller.runner_answers import Answer
from controller.runs import Run
from runnerlib.contract import EntryState, RunnerLevel, RunnerView
from runnerlib.service.logs import get_logger
from taskqueue.tasks import Placement

log = get_logger(__name__)

#: What a runner says of a run that it has. Of others it may say anything.
_HAS = frozenset({EntryState.WAITING, EntryState.RUNNING, EntryState.SUCCEEDED, EntryState.FAILED})


async def attach(
    tools: CallContext, latency: LatencyEstimate, algorithm: str, placement: Placement, runs: Sequence[Run]
) -> list[Run]:
    """Follows runs at the runner process that the store names. Returns those that must start again."""
    runner = await _wait_for_runner(tools, placement)
    if isinstance(runner, RunnerView):
        return await RunnerCall(tools, latency, algorithm, runner, runs, attach=True).run()
    sole_run = len(runs) == 1
    log.warning("runner lost", runner=placement.runner, why=runner, task_ids=[run.id for run in runs])
    again = await tools.completer.complete(
        [(run, tools.lost(run, placement.runner, placement.boot, runner, sole_run=sole_run)) for run in runs]
    )
    for run in again:
        run.handed_back()
    return again


async def _wait_for_runner(tools: CallContext, placement: Placement) -> RunnerView | str:
    """The runner, or why its process must be taken for dead. A registry that has just started may not know it yet."""
    since = tools.clock()
    while True:
        gone = tools.directory.is_gone(placement.runner, placement.boot, tools.clock() - since)
        runner = tools.directory.runner(placement.runner)
        if gone is not None:
            return gone
        if runner is not None:
            return runner
        await asyncio.sleep(LAST_PAUSE_SECONDS / 4)


async def find(tools: CallContext, algorithm: str, runs: Sequence[Run]) -> tuple[dict[str, list[Run]], list[Run]]:
    """Asks every runner for these runs: (runner id → the runs that it has, the runs that nobody has)."""
    runners = [runner for runner in tools.directory.offering(algorithm) if runner.level is RunnerLevel.FULL]
    answers = await asyncio.gather(*(_ask(tools, algorithm, runner, runs) for runner in runners))
    found: dict[str, list[Run]] = {}
    unknown: list[Run] = []
    for run in runs:
        for runner, answer in zip(runners, answers, strict=True):
            entry = answer.entries.get(run.key) if answer is not None else None
            if entry is not None and entry.state in _HAS:
                run.runner, run.boot = runner, (answer.boot if answer is not None else None) or runner.boot
                found.setdefault(runner.id, []).append(run)
                break
        else:
            unknown.append(run)
    return found, unknown


async def _ask(tools: CallContext, algorithm: str, runner: RunnerView, runs: Sequence[Run]) -> Answer | None:
    items = [tools.item(run, with_payload=False) for run in runs]
    limits = tools.directory.limits(algorithm)
    try:
        return await tools.client.batch(runner.host, algorithm, items, wait_seconds=0, result_bytes=limits.result_bytes)
    except RunnerError as error:
        log.warning("runner cannot be asked for runs that it may have", runner=runner.id, reason=str(error))
        return None
