"""Runs the checks, level by level, and reports what was found as text and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from worker.conformance.checks import CHECKS, LEVELS, Check, Level
from worker.conformance.client import NOTHING, CheckFailed, Client, Target, Timing
from worker.conformance.target import find_target

_NOT_TRIED = "not tried: give a payload that takes 3 to 20 seconds with --slow JSON"


class Verdict(str, Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Finding:
    """`seen`: what the runner did instead of what the contract wants; if the check passed, a remark or nothing."""

    check: Check
    verdict: Verdict
    seen: str = ""

    def line(self) -> str:
        wants = self.check.wants
        mark, text = {
            Verdict.PASSED: ("ok", self.seen),
            Verdict.FAILED: ("FAIL", f"{wants}; {self.seen}"),
            Verdict.NOT_TRIED: ("--", f"{wants}; {_NOT_TRIED}"),
        }[self.verdict]
        # A stranger's answer may hold control sequences for the terminal.
        printable = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
        return f"  {mark:<4}  {self.check.name:<17}  {printable}".rstrip()


@dataclass(frozen=True, slots=True)
class Report:
    """A level is reached when all of its checks, and those of the levels below, have passed."""

    url: str
    algorithm: str
    findings: Sequence[Finding]

    def of_level(self, level: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.check.level is level]

    @property
    def level(self) -> Level:
        passed = {finding.check.level for finding in self.findings}
        passed -= {finding.check.level for finding in self.findings if finding.verdict is not Verdict.PASSED}
        return max((level for level in LEVELS if passed.issuperset(LEVELS[:level])), default=Level.NONE)

    def text(self) -> str:
        lines = [f"{self.url}, algorithm {self.algorithm}"]
        for level in LEVELS:
            if own := self.of_level(level):
                lines += ["", f"{level.word}: {level.means}", *(finding.line() for finding in own)]
        reached = self.level
        lines += ["", f"level {reached.value} of {len(LEVELS)}, {reached.word}: {reached.means}"]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "algorithm": self.algorithm,
            "level": self.level.word,
            "level_number": self.level.value,
            "checks": [
                {
                    "name": finding.check.name,
                    "level": finding.check.level.word,
                    "verdict": finding.verdict.value,
                    "wants": finding.check.wants,
                    "seen": finding.seen,
                }
                for finding in self.findings
            ],
        }


async def examine(url: str, asked: Target, timing: Timing | None = None) -> Report:
    """Tries all levels up to the first that is not reached. Raises BadRequest, Unreachable."""
    async with Client(url, timing) as client:
        client.target = await find_target(client, asked)
        findings: list[Finding] = []
        for level in LEVELS:
            findings += [await try_check(check, client) for check in CHECKS if check.level is level]
            report = Report(client.url, client.target.algorithm, findings)
            if report.level is not level:
                break
        return report


async def try_check(check: Check, client: Client) -> Finding:
    """Raises Unreachable if the runner is gone."""
    if check.needs_slow and client.target.slow is NOTHING:
        return Finding(check, Verdict.NOT_TRIED)
    try:
        remark = await check.function(client)
    except CheckFailed as error:
        return Finding(check, Verdict.FAILED, str(error))
    return Finding(check, Verdict.PASSED, remark or "")
