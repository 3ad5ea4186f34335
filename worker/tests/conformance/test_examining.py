"""Every check passes on a sound runner, and fails on one that is wrong in that alone."""

import asyncio
from typing import Any

import pytest

from worker.conformance.asking import Asker
from worker.conformance.bench import Bench, Pace
from worker.conformance.checks import Check
from worker.conformance.examining import CHECKS, examine, try_check
from worker.conformance.levels import Level
from worker.conformance.report import Finding, Verdict
from worker.conformance.subject import NOTHING, Subject, Wishes

PACE = Pace(answer_seconds=5, slow_seconds=20, short_wait_seconds=0.1, later_seconds=0.6)
SLOW = {"seconds": 1.5}
SUBJECT = Subject("nap", {"seconds": 0.01}, {"second": 1}, SLOW)
#: Fault → the checks that must fail, where it is not the one that it is called after.
FAULTS = {
    "boot: none": {"boot"},
    "problems: no code": {"problems"},
    "problems: traceback": {"problems"},
    "too_large: silent": {"too_large"},
    "schemas: no schema": {"schemas"},
    "schemas: other result": {"schemas"},
    "again: conflict": {"again"},
    # Without a result nothing else of this level can be seen either.
    "run": {"run", "task_headers"},
    "batch": {"batch", "neighbours"},
    **{check.name: {check.name} for check in CHECKS if check.name not in ("run", "batch")},
}


def _level(fault: str) -> Level:
    [check] = [check for check in CHECKS if check.name == fault.partition(":")[0]]
    return check.level


def _tried(fault: str) -> list[Check]:
    """Those of its level that are quick; of the slow ones only its own."""
    level = _level(fault)
    return [check for check in CHECKS if check.level is level and (not check.needs_slow or check.name == fault)]


def test_a_sound_runner_reaches_the_top(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model().app()) as url:
            report = await examine(url, Wishes(slow=SLOW), PACE)
        assert [finding.line() for finding in report.findings if finding.verdict is not Verdict.PASSED] == []
        assert len(report.findings) == len(CHECKS)
        assert report.level is Level.BATCHED

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_check_and_no_other(fault: str, model: Any, serve: Any) -> None:
    async def scenario() -> list[Finding]:
        pace = PACE if fault != "too_large: silent" else Pace(answer_seconds=2)
        async with serve(model(fault).app()) as url, Asker(url, pace.answer_seconds) as asker:
            bench = Bench(asker, SUBJECT, pace)
            return [await try_check(check, bench) for check in _tried(fault)]

    findings = asyncio.run(scenario())
    failed = {finding.check.name: finding for finding in findings if finding.verdict is Verdict.FAILED}
    assert set(failed) == FAULTS[fault], [finding.line() for finding in failed.values()]
    assert all(finding.seen for finding in failed.values())


def test_levels_above_the_first_that_fails_are_not_tried(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model("live").app()) as url:
            report = await examine(url, Wishes(slow=SLOW), PACE)
        assert report.level is Level.PLAIN
        assert {finding.check.level for finding in report.findings} == {Level.PLAIN, Level.OBSERVED}

    asyncio.run(scenario())


def test_checks_that_need_a_slow_payload_are_not_passed_without_one(model: Any, serve: Any) -> None:
    async def scenario() -> None:
        async with serve(model().app()) as url:
            report = await examine(url, Wishes(), PACE)
        not_tried = [finding for finding in report.findings if finding.verdict is Verdict.NOT_TRIED]
        assert {finding.check.name for finding in not_tried} == {
            check.name for check in CHECKS if check.needs_slow and check.level is Level.DURABLE
        }
        assert report.level is Level.OBSERVED
        assert "--slow" in not_tried[0].line()

    asyncio.run(scenario())


def test_a_slow_payload_that_is_quick_is_told(model: Any, serve: Any) -> None:
    async def scenario() -> list[Finding]:
        async with serve(model().app()) as url, Asker(url, PACE.answer_seconds) as asker:
            bench = Bench(asker, Subject("nap", SUBJECT.payload, NOTHING, {"seconds": 0}), PACE)
            return [await try_check(check, bench) for check in CHECKS if check.name in ("cancel", "invalid_payload")]

    every, cancel = asyncio.run(scenario())
    assert (every.verdict, every.seen) == (Verdict.PASSED, "its schema takes every payload")
    assert cancel.verdict is Verdict.FAILED
    assert "slow payload" in cancel.seen
