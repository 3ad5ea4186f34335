"""How commands end: a sentence on standard error and an exit code (the package's docstring lists them)."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from producer.errors import BadInput, GatewayUnreachable, Refused
from producer.printable import printable
from producer.tables import Listing

DONE, FAILED, BAD_INPUT, NOT_FINISHED, NO_GATEWAY, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: Of several codes the first of these is told.
_GRAVEST_FIRST = (NO_GATEWAY, BAD_INPUT, FAILED, NOT_FINISHED)
#: Columns of a table that goes to a pipe or a file: nobody wants folded lines there.
_PIPED_WIDTH = 200


@contextmanager
def explained() -> Iterator[None]:
    """Every error of a command ends here."""
    try:
        yield
    except BadInput as error:
        say(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except Refused as error:
        say(str(error))
        raise typer.Exit(code_of(error)) from None
    except GatewayUnreachable as error:
        say(str(error))
        raise typer.Exit(NO_GATEWAY) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def when_interrupted(sentence: str) -> Iterator[None]:
    """Ctrl-C ends the command, not what was sent: the sentence says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(sentence)
        raise typer.Exit(INTERRUPTED) from None


def code_of(error: Refused) -> int:
    if error.status >= 500:
        return NO_GATEWAY
    return FAILED if error.status == 409 and error.code != "id_conflict" else BAD_INPUT


def end_with(codes: Iterable[int]) -> None:
    """Ends the command with the gravest of the codes, unless all went well."""
    given = set(codes)
    for code in _GRAVEST_FIRST:
        if code in given:
            raise typer.Exit(code)


def errors(file: IO[str] | None = None) -> Console:
    return Console(file=file or sys.stderr, highlight=False)


def show_all(pieces: Iterable[RenderableType]) -> None:
    """Writes to standard output; a line of text that is longer than the terminal stays one line."""
    console = _output()
    for piece in pieces:
        console.print(piece, soft_wrap=isinstance(piece, Text))


def show_list(listing: Listing) -> None:
    """A table where there is room for it, else one entry below the other."""
    console = _output()
    for piece in [listing.table] if console.width >= listing.width else listing.entries:
        console.print(piece)


def _output() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    return console


def say(sentence: str) -> None:
    errors().print(printable(sentence), markup=False, soft_wrap=True)
