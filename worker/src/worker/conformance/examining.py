"""Tries one check after the other, level by level."""

from worker.conformance.asking import Asker
from worker.conformance.batched import BATCHED
from worker.conformance.bench import Bench, Pace
from worker.conformance.checks import Check
from worker.conformance.durable import DURABLE
from worker.conformance.errors import Broken
from worker.conformance.levels import LEVELS
from worker.conformance.observed import OBSERVED
from worker.conformance.plain import PLAIN
from worker.conformance.report import Finding, Report, Verdict
from worker.conformance.subject import NOTHING, Wishes, find_subject

CHECKS = (*PLAIN, *OBSERVED, *DURABLE, *BATCHED)


async def examine(url: str, wishes: Wishes, pace: Pace | None = None) -> Report:
    """All levels up to the first that is not reached. Raises BadRequest, Unreachable."""
    pace = pace or Pace()
    async with Asker(url, pace.answer_seconds) as asker:
        bench = Bench(asker, await find_subject(asker, wishes), pace)
        report = Report(asker.url, bench.subject.algorithm, [])
        for level in LEVELS:
            found = [await try_check(check, bench) for check in CHECKS if check.level is level]
            report = Report(report.url, report.algorithm, [*report.findings, *found])
            if report.level is not level:
                break
        return report


async def try_check(check: Check, bench: Bench) -> Finding:
    """Raises Unreachable when the runner is not there any more."""
    if check.needs_slow and bench.subject.slow is NOTHING:
        return Finding(check, Verdict.NOT_TRIED)
    try:
        remark = await check.prove(bench)
    except Broken as error:
        return Finding(check, Verdict.FAILED, str(error))
    return Finding(check, Verdict.PASSED, remark or "")
