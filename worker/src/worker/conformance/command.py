"""The command ``worker conformance``: reads what was typed, prints the report, sets the exit code."""

import asyncio
import json
from typing import Annotated, Any

import typer

from worker.conformance.checks import LEVELS, Level
from worker.conformance.client import NOTHING, Target
from worker.conformance.examining import examine
from worker.conformance.target import BadRequest
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
        asked = read_level(level)
        payloads = [read_json("--payload", payload), read_json("--unfit", unfit), read_json("--slow", slow)]
        report = asyncio.run(examine(read_url(url), Target(algorithm or "", *payloads)))
    except WorkerError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_USAGE if isinstance(error, BadRequest) else _NOT_REACHED) from None
    is_reached = report.level >= asked
    if as_json:
        typer.echo(json.dumps({**report.as_json(), "asked": asked.word}, indent=2, ensure_ascii=False))
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


def read_json(option: str, text: str | None) -> Any:
    """NOTHING if the option was not given. Raises BadRequest."""
    try:
        return NOTHING if text is None else json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{option} is not JSON: {error}") from None
