"""``worker conformance``: runs the checks, level by level; prints what was found, as text or JSON."""

import asyncio
import json
import os
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.printable import printable_json
from runnerlib.contract.identity import name_in, run_token_of
from worker.conformance.checks import CHECKS, LEVELS, Check, Level
from worker.conformance.client import NOT_GIVEN, CheckFailed, Client, Target, Timing
from worker.conformance.target import BadRequest, find_target
from worker.errors import WorkerError

_NOT_REACHED, _USAGE = 1, 2
_FILE_VARIABLE = "RUNNER_TOKEN_FILE"
_NOT_TRIED = "not tried: give a payload that takes 3 to 20 seconds with --slow JSON"


class Verdict(str, Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


_MARKS = {Verdict.PASSED: "ok", Verdict.FAILED: "FAIL", Verdict.NOT_TRIED: "--"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`seen`: what the runner did instead of what the contract wants; if the check passed, a remark or nothing."""

    check: Check
    verdict: Verdict
    seen: str = ""

    def line(self) -> str:
        seen = _NOT_TRIED if self.verdict is Verdict.NOT_TRIED else self.seen
        text = seen if self.verdict is Verdict.PASSED else f"{self.check.wants}; {seen}"
        # A stranger's answer may hold control sequences for the terminal.
        printable = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
        return f"  {_MARKS[self.verdict]:<4}  {self.check.name:<17}  {printable}".rstrip()

    def as_json(self) -> dict[str, str]:
        check = self.check
        known = {"name": check.name, "level": check.level.word, "verdict": self.verdict.value}
        return {**known, "wants": check.wants, "seen": self.seen}


@dataclass(slots=True)
class Report:
    """A level is reached when all of its checks, and those of the levels below, have passed."""

    url: str
    algorithm: str
    findings: list[Finding]

    @property
    def level(self) -> Level:
        passed = {finding.check.level for finding in self.findings}
        passed -= {finding.check.level for finding in self.findings if finding.verdict is not Verdict.PASSED}
        return max((level for level in LEVELS if passed.issuperset(LEVELS[:level])), default=Level.NONE)

    def text(self) -> str:
        lines = [f"{self.url}, algorithm {self.algorithm}"]
        for level, findings in groupby(self.findings, key=lambda finding: finding.check.level):
            lines += ["", f"{level.word}: {level.means}", *(finding.line() for finding in findings)]
        reached = self.level
        lines += ["", f"level {reached.value} of {len(LEVELS)}, {reached.word}: {reached.means}"]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "algorithm": self.algorithm,
            "level": self.level.word,
            "level_number": self.level.value,
            "checks": [finding.as_json() for finding in self.findings],
        }


async def examine(url: str, asked: Target, timing: Timing | None = None, runner_token: str = "") -> Report:
    """Tries all levels up to the first that is not reached. Raises BadRequest, Unreachable."""
    async with Client(url, timing, run_token_of(runner_token) if runner_token else "") as client:
        client.target = await find_target(client, asked)
        report = Report(client.url, client.target.algorithm, [])
        checks = [check for check in CHECKS if client.token or not check.needs_token]
        for level in LEVELS:
            report.findings += [await try_check(check, client) for check in checks if check.level is level]
            if report.level is not level:
                break
        return report


async def try_check(check: Check, client: Client) -> Finding:
    """Raises Unreachable if the runner is gone."""
    if check.needs_slow and client.target.slow is NOT_GIVEN:
        return Finding(check, Verdict.NOT_TRIED)
    try:
        remark = await check.function(client)
    except CheckFailed as error:
        return Finding(check, Verdict.FAILED, str(error))
    finally:
        await client.clean_up()
    return Finding(check, Verdict.PASSED, remark or "")


SlowOption = Annotated[
    str | None,
    typer.Option("--slow", metavar="JSON", help="One that takes 3 to 20 seconds; durable and batched need it."),
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="RUNNER_TOKEN",
        show_envvar=False,
        help=f"The runner's own, if it has one. Better in the file that {_FILE_VARIABLE} names.",
    ),
]


def conformance(
    url: Annotated[str, typer.Argument(help="Where the runner listens: http://127.0.0.1:8101", metavar="URL")],
    algorithm: Annotated[str | None, typer.Option("--algorithm", metavar="NAME", help="Which one to try.")] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="JSON", help="One that fits; else the algorithm's example.")
    ] = None,
    unfit: Annotated[
        str | None, typer.Option("--unfit", metavar="JSON", help="One that does not fit; else made by the schema.")
    ] = None,
    slow: SlowOption = None,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="Exit with 1 below it: plain, observed, durable, batched.")
    ] = Level.PLAIN.word,
    token: TokenOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Test a runner, in whatever language it is written, against the contract, and tell the level that it reaches.

    Exits with 0 when that is at least LEVEL, with 1 when it is not, with 2 for a mistake in what was typed.
    """
    try:
        asked = read_level(level)
        payloads = [read_json("--payload", payload), read_json("--unfit", unfit), read_json("--slow", slow)]
        target = Target(algorithm or "", *payloads)
        report = asyncio.run(examine(read_url(url), target, runner_token=read_token(token)))
    except WorkerError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_USAGE if isinstance(error, BadRequest) else _NOT_REACHED) from None
    is_reached = report.level >= asked
    if as_json:
        typer.echo(printable_json({**report.as_json(), "asked": asked.word}, indent=2))
    else:
        missed = "" if is_reached else f"\nlevel {asked.value}, {asked.word}, was asked for and is not reached"
        typer.echo(report.text() + missed)
    if not is_reached:
        raise typer.Exit(_NOT_REACHED)


def read_url(url: str) -> str:
    """Accepts ``host:port``, too. Raises BadRequest."""
    text = url if "://" in url else f"http://{url}"
    if not text.startswith(("http://", "https://")):
        raise BadRequest(f"{url!r} is no address of a runner; it looks like http://127.0.0.1:8101")
    return text


def read_level(text: str) -> Level:
    """By name or number. Raises BadRequest."""
    for level in LEVELS:
        if text.strip().lower() in (level.word, str(level.value)):
            return level
    choices = ", ".join(f"{level.value} or {level.word}" for level in LEVELS)
    raise BadRequest(f"{text!r} is no level; there are {choices}")


def read_token(given: str) -> str:
    """The runner's token, or that in the file that RUNNER_TOKEN_FILE names; empty: there is none. Raises BadRequest."""
    file = os.environ.get(_FILE_VARIABLE)
    try:
        token = given or (Path(file).read_text(encoding="utf-8").strip() if file else "")
    except (OSError, UnicodeDecodeError):
        raise BadRequest(f"{_FILE_VARIABLE} is {file!r}, which cannot be read; check its name and its mode") from None
    if token and name_in(token) is None:
        raise BadRequest("the token is no runner's token, which looks like ppr_NAME.…")
    return token


def read_json(option: str, text: str | None) -> Any:
    """NOT_GIVEN if the option was not given. Raises BadRequest."""
    try:
        return NOT_GIVEN if text is None else json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{option} is not JSON: {error}") from None
