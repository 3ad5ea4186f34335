"""``producer dead list | show | replay | discard``: failed tasks that wait for somebody's decision."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from producer.client.client import GatewayClient
from producer.commands.ending import FAILED, errors, explained, say, show_all, show_list, when_interrupted
from producer.commands.options import AlgorithmOption, AsJson, CodeOption, Gateway, Limit, connected
from producer.errors import BadInput
from producer.models import DeadLetterFilter, DeadLettersDone, to_json
from producer.printable import printable_json
from producer.tables import dead_letter, dead_list

#: Skipped ones that are told with their reason.
_MOST_TOLD = 20
#: Counted before somebody is asked whether that is meant.
_MOST_COUNTED = 1000

dead = typer.Typer(no_args_is_help=True, help="Failed tasks: list and show them, run them again, or discard them.")

DeadIds = Annotated[
    list[int] | None, typer.Argument(metavar="DEAD_ID", help="Ids of dead letters.", show_default=False)
]
TaskOption = Annotated[str | None, typer.Option("--task", metavar="ID", help="Only of this task.")]
EveryOne = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
MostDone = Annotated[int | None, typer.Option("--limit", min=1, help="Not more than so many, the newest.")]


@dataclass(frozen=True, slots=True)
class _Act:
    """What is done to dead letters, in words."""

    verb: str
    done: str


_REPLAY = _Act("replay", "replayed")
_DISCARD = _Act("discard", "discarded")


@dead.command("list")
def list_dead(
    algorithm: AlgorithmOption = None,
    code: CodeOption = None,
    task: TaskOption = None,
    settled: Annotated[bool, typer.Option("--all", help="Also those that were replayed or discarded.")] = False,
    limit: Limit = 20,
    as_json: AsJson = False,
    gateway: Gateway = "",
) -> None:
    """List dead letters, the newest first."""
    with explained(), connected(gateway) as client:
        wanted = DeadLetterFilter(algorithm=algorithm, codes=code or (), task_id=task)
        found = client.dead_letters(wanted, with_settled=settled, limit=limit)
        if as_json:
            for letter in found:
                typer.echo(printable_json(to_json(letter), compact=True))
        elif letters := list(found):
            show_list(dead_list(letters))
        else:
            say("there are no such dead letters")


@dead.command()
def show(
    dead_id: Annotated[int, typer.Argument(metavar="DEAD_ID", help="Id of the dead letter.")],
    as_json: AsJson = False,
    gateway: Gateway = "",
) -> None:
    """Show why a task failed: each attempt, the traceback, and the message as it came."""
    with explained(), connected(gateway) as client:
        letter = client.dead_letter(dead_id)
        if as_json:
            typer.echo(printable_json(to_json(letter), compact=True))
        else:
            show_all(dead_letter(letter))


@dead.command()
def replay(
    ids: DeadIds = None,
    algorithm: AlgorithmOption = None,
    code: CodeOption = None,
    task: TaskOption = None,
    every: EveryOne = False,
    limit: MostDone = None,
    yes: Yes = False,
    gateway: Gateway = "",
) -> None:
    """Run failed tasks again, under their own ids: by dead ids, or all that --algorithm, --code or --task choose."""
    wanted = DeadLetterFilter(algorithm=algorithm, codes=code or (), task_id=task)
    _settle(_REPLAY, ids or [], wanted, every, limit, yes, gateway)


@dead.command()
def discard(
    ids: DeadIds = None,
    algorithm: AlgorithmOption = None,
    code: CodeOption = None,
    task: TaskOption = None,
    every: EveryOne = False,
    limit: MostDone = None,
    yes: Yes = False,
    gateway: Gateway = "",
) -> None:
    """Note that nothing more shall become of dead letters; they stay readable until retention drops them."""
    wanted = DeadLetterFilter(algorithm=algorithm, codes=code or (), task_id=task)
    _settle(_DISCARD, ids or [], wanted, every, limit, yes, gateway)


def _settle(
    act: _Act, ids: list[int], wanted: DeadLetterFilter, every: bool, limit: int | None, yes: bool, gateway: str
) -> None:
    with explained(), connected(gateway) as client:
        _check(act, ids, wanted, every)
        if ids:
            chosen: list[int] | DeadLetterFilter = ids[:limit]
        elif limit is not None:
            # these and no others, also when more come meanwhile
            chosen = [letter.dead_id for letter in client.dead_letters(wanted, limit=limit)]
        else:
            chosen = wanted
        if not ids and not _is_meant(act, client, wanted, chosen, yes):
            return
        with when_interrupted(f"interrupted; those {act.done} until now stay so"):
            done, skipped = _follow(act, (client.replay_many if act is _REPLAY else client.discard_many)(chosen))
    say(f"{_count(done)} {'was' if done == 1 else 'were'} {act.done}")
    if skipped:
        raise typer.Exit(FAILED)


def _check(act: _Act, ids: list[int], wanted: DeadLetterFilter, every: bool) -> None:
    is_filter = bool(wanted.body())
    if ids and (is_filter or every):
        raise BadInput("name dead letters by their ids, or choose them with --algorithm, --code and --task; not both")
    if not ids and not is_filter and not every:
        raise BadInput(
            "which ones? name dead ids, choose with --algorithm, --code or --task, "
            f"or {act.verb} every open one with --all"
        )


def _is_meant(
    act: _Act, client: GatewayClient, wanted: DeadLetterFilter, chosen: list[int] | DeadLetterFilter, yes: bool
) -> bool:
    """Counts them first and asks; nobody replays ten thousand tasks by a slip."""
    if isinstance(chosen, list):
        count = len(chosen)
    else:
        count = sum(1 for _ in client.dead_letters(wanted, limit=_MOST_COUNTED + 1))
    if count == 0:
        say("there are no such dead letters")
        return False
    if yes:
        return True
    found = f"more than {_MOST_COUNTED:,} dead letters" if _is_many(chosen, count) else _count(count)
    if not sys.stdin.isatty():
        raise BadInput(f"{act.verb} {found}? nobody is there to ask; say --yes when that is meant")
    return typer.confirm(f"{act.verb} {found}?", err=True)


def _is_many(chosen: list[int] | DeadLetterFilter, count: int) -> bool:
    return not isinstance(chosen, list) and count > _MOST_COUNTED


def _count(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _follow(act: _Act, answers: Iterator[DeadLettersDone]) -> tuple[int, int]:
    """Shows how far it is, and why some were skipped; how many of each."""
    console = errors()
    done = skipped = 0
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} " + act.done))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        for answer in answers:
            done += answer.done
            progress.update(bar, completed=done)
            for one in answer.skipped[: max(0, _MOST_TOLD - skipped)]:
                say(f"dead letter {one.dead_id}: {one.detail}")
            skipped += len(answer.skipped)
    if skipped > _MOST_TOLD:
        say(f"and {skipped - _MOST_TOLD:,} more were skipped")
    return done, skipped
