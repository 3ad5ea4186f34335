"""What was found, as text and as JSON. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from worker.conformance.checks import Check
from worker.conformance.levels import LEVELS, Level

_NOT_TRIED = "give a payload that takes 3 to 20 seconds with --slow JSON"


class Verdict(str, Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Finding:
    """`seen` is what the runner did where that is not what the contract wants; else a remark, or nothing."""

    check: Check
    verdict: Verdict
    seen: str = ""

    def line(self) -> str:
        mark = {Verdict.PASSED: "ok", Verdict.FAILED: "FAIL", Verdict.NOT_TRIED: "--"}[self.verdict]
        match self.verdict:
            case Verdict.PASSED:
                text = self.seen
            case Verdict.FAILED:
                text = f"{self.check.wants}; {self.seen}"
            case Verdict.NOT_TRIED:
                text = f"{self.check.wants}; not tried: {_NOT_TRIED}"
        return f"  {mark:<4}  {self.check.name:<17}  {_printable(text)}".rstrip()


@dataclass(frozen=True, slots=True)
class Report:
    """A level is reached when every check of it, and of those below it, has passed."""

    url: str
    algorithm: str
    findings: Sequence[Finding]

    @property
    def level(self) -> Level:
        reached = Level.NONE
        for level in LEVELS:
            own = [finding for finding in self.findings if finding.check.level is level]
            if not own or any(finding.verdict is not Verdict.PASSED for finding in own):
                break
            reached = level
        return reached

    def text(self) -> str:
        lines = [f"{self.url}, algorithm {self.algorithm}"]
        for level in LEVELS:
            own = [finding for finding in self.findings if finding.check.level is level]
            if own:
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


def _printable(text: str) -> str:
    """What a stranger's answer tells the terminal to do is shown, not done."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
