"""``producer dead list | show | replay | discard``: failed tasks that wait for a decision."""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn

from producer.cli.exit_codes import FAILED, exit_on_errors, on_interrupt, say, stderr_console
from producer.cli.options import AlgorithmOption, GatewayOption, JsonOption, LimitOption, connect
from producer.cli.tables import dead_letter, dead_list, display
from producer.client.client import GatewayClient
from producer.errors import BadInput
from producer.models import DeadLetterFilter, DeadLettersDone, FailureCode, to_json
from producer.printable import printable_json

#: Skipped dead letters whose reason is shown; of more only how many.
_MAX_NAMED = 20
#: Counted before the user is asked to confirm.
_MAX_COUNTED = 1000

dead = typer.Typer(no_args_is_help=True, help="Failed tasks: list and show them, run them again, or discard them.")

DeadIds = Annotated[
    list[int] | None, typer.Argument(metavar="DEAD_ID", help="Ids of dead letters.", show_default=False)
]
CodeOption = Annotated[
    list[FailureCode] | None, typer.Option("--code", help="Only with this code; may be given several times.")
]
TaskOption = Annotated[str | None, typer.Option("--task", metavar="ID", help="Only of this task.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
_Settle = Callable[[GatewayClient, list[int] | DeadLetterFilter], Iterator[DeadLettersDone]]
NewestOption = Annotated[int | None, typer.Option("--limit", min=1, help="Not more than so many, the newest.")]


@dead.command("list")
def list_dead(
    algorithm: AlgorithmOption = None,
    code: CodeOption = None,
    task: TaskOption = None,
    settled: Annotated[bool, typer.Option("--all", help="Also those that were replayed or discarded.")] = False,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    gateway: GatewayOption = "",
) -> None:
    """List dead letters, the newest first."""
    with exit_on_errors(), connect(gateway) as client:
        chosen = DeadLetterFilter(algorithm=algorithm, codes=code or (), task_id=task)
        found = client.dead_letters(chosen, with_settled=settled, limit=limit)
        if as_json:
            for letter in found:
                typer.echo(printable_json(to_json(letter), compact=True))
        elif letters := list(found):
            display(dead_list(letters))
        else:
            say("there are no such dead letters")


@dead.command()
def show(
    dead_id: Annotated[int, typer.Argument(metavar="DEAD_ID", help="Id of the dead letter.")],
    as_json: JsonOption = False,
    gateway: GatewayOption = "",
) -> None:
    """Show why a task failed: each attempt, the traceback, and the message as it came."""
    with exit_on_errors(), connect(gateway) as client:
        letter = client.dead_letter(dead_id)
        if as_json:
            typer.echo(printable_json(to_json(letter), compact=True))
        else:
            display(*dead_letter(letter))


def _add_command(verb: str, done_verb: str, settle: _Settle, about: str) -> None:
    @dead.command(verb, help=about)
    def command(
        ids: DeadIds = None,
        algorithm: AlgorithmOption = None,
        code: CodeOption = None,
        task: TaskOption = None,
        every: AllOption = False,
        limit: NewestOption = None,
        yes: YesOption = False,
        gateway: GatewayOption = "",
    ) -> None:
        matching = DeadLetterFilter(algorithm=algorithm, codes=code or (), task_id=task)
        has_filter = bool(matching.body())
        with exit_on_errors(), connect(gateway) as client:
            if ids and (has_filter or every):
                raise BadInput(
                    "name dead letters by their ids, or choose them with --algorithm, --code and --task; not both"
                )
            if not ids and not has_filter and not every:
                raise BadInput(
                    "which ones? name dead ids, choose with --algorithm, --code or --task, or "
                    f"{verb} every open one with --all"
                )
            if (chosen := ids[:limit] if ids else _confirmed(client, verb, matching, limit, yes)) is not None:
                _report(done_verb, settle(client, chosen))


_add_command(
    "replay",
    "replayed",
    GatewayClient.replay_many,
    "Run failed tasks again, under their own ids: by dead ids, or all that --algorithm, --code or --task choose.",
)
_add_command(
    "discard",
    "discarded",
    GatewayClient.discard_many,
    "Note that nothing more shall become of dead letters; they stay readable until retention drops them.",
)


def _confirmed(
    client: GatewayClient, verb: str, matching: DeadLetterFilter, limit: int | None, yes: bool
) -> list[int] | DeadLetterFilter | None:
    """What to replay or discard; None if there is nothing, or the user declines. Raises BadInput."""
    found = [letter.dead_id for letter in client.dead_letters(matching, limit=limit or _MAX_COUNTED + 1)]
    if not found:
        say("there are no such dead letters")
        return None
    if not yes:
        is_more = limit is None and len(found) > _MAX_COUNTED
        count = f"more than {_MAX_COUNTED:,} dead letters" if is_more else _count(len(found))
        if not sys.stdin.isatty():
            raise BadInput(f"{verb} {count}? nobody is there to ask; say --yes when that is meant")
        if not typer.confirm(f"{verb} {count}?", err=True):
            return None
    # With a limit exactly these, also when more come meanwhile.
    return found if limit is not None else matching


def _report(done_verb: str, answers: Iterator[DeadLettersDone]) -> None:
    """Takes the answers and shows the progress, why some were skipped, and the number of both."""
    console = stderr_console()
    done = skipped = 0
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} " + done_verb))
    with (
        on_interrupt(f"interrupted; those {done_verb} until now stay so"),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("", total=None)
        for answer in answers:
            done += answer.done
            progress.update(bar, completed=done)
            for one in answer.skipped[: max(0, _MAX_NAMED - skipped)]:
                say(f"dead letter {one.dead_id}: {one.detail}")
            skipped += len(answer.skipped)
    if skipped > _MAX_NAMED:
        say(f"and {skipped - _MAX_NAMED:,} more were skipped")
    say(f"{_count(done)} {'was' if done == 1 else 'were'} {done_verb}")
    if skipped:
        raise typer.Exit(FAILED)


def _count(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"
