"""The command: what was typed becomes a report and an exit code."""

import asyncio
import json
from typing import Annotated, Any

import typer

from worker.conformance.errors import BadRequest
from worker.conformance.examining import examine
from worker.conformance.levels import Level, read_level
from worker.conformance.report import Report
from worker.conformance.subject import NOTHING, Wishes
from worker.errors import WorkerError

_NOT_REACHED, _USAGE = 1, 2


def conformance(
    url: Annotated[str, typer.Argument(help="Where the runner listens: http://127.0.0.1:8101", metavar="URL")],
    algorithm: Annotated[str | None, typer.Option("--algorithm", metavar="NAME", help="Which one to try.")] = None,
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="JSON", help="One that fits; else the algorithm's example.")
    ] = None,
    unfit: Annotated[
        str | None, typer.Option("--unfit", metavar="JSON", help="One that does not fit; else made by the schema.")
    ] = None,
    slow: Annotated[
        str | None,
        typer.Option("--slow", metavar="JSON", help="One that takes 3 to 20 seconds; durable and batched need it."),
    ] = None,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="Exit with 1 below it: plain, observed, durable, batched.")
    ] = Level.PLAIN.word,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Test a runner, in whatever language it is written, against the contract, and tell the level that it reaches.

    Exits with 0 when that is at least LEVEL, with 1 when it is not, with 2 for a mistake in what was typed.
    """
    try:
        asked = asked_level(level)
        wishes = Wishes(
            algorithm, read_json("--payload", payload), read_json("--unfit", unfit), read_json("--slow", slow)
        )
        report = asyncio.run(examine(read_url(url), wishes))
    except BadRequest as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_USAGE) from None
    except WorkerError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_NOT_REACHED) from None
    typer.echo(shown(report, asked, as_json=as_json))
    if report.level < asked:
        raise typer.Exit(_NOT_REACHED)


def read_url(url: str) -> str:
    """``host:port`` is one, too. Raises BadRequest."""
    text = url if "://" in url else f"http://{url}"
    if not text.startswith(("http://", "https://")):
        raise BadRequest(f"{url!r} is no address of a runner; it looks like http://127.0.0.1:8101")
    return text


def asked_level(text: str) -> Level:
    """Raises BadRequest."""
    try:
        return read_level(text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def read_json(option: str, text: str | None) -> Any:
    """NOTHING when the option was not given. Raises BadRequest."""
    if text is None:
        return NOTHING
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{option} is not JSON: {error}") from None


def shown(report: Report, asked: Level, *, as_json: bool) -> str:
    """For a person or a program."""
    if as_json:
        return json.dumps({**report.as_json(), "asked": asked.word}, indent=2, ensure_ascii=False)
    missed = "" if report.level >= asked else f"\nlevel {asked.value}, {asked.word}, was asked for and is not reached"
    return report.text() + missed
