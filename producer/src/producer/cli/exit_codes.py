"""How commands end: a sentence on standard error and an exit code (`producer.cli` lists them)."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from producer.errors import BadInput, GatewayUnreachable, Refused
from producer.printable import printable

DONE, FAILED, BAD_INPUT, NOT_FINISHED, NO_GATEWAY, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: Of several codes the first of these is used.
_GRAVEST_FIRST = (NO_GATEWAY, BAD_INPUT, FAILED, NOT_FINISHED)


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Ends the command with a sentence and a code for every expected error."""
    try:
        yield
    except (BadInput, Refused, GatewayUnreachable) as error:
        say(str(error))
        raise typer.Exit(code_of(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def on_interrupt(sentence: str) -> Iterator[None]:
    """Ctrl-C ends the command, not what was sent: the sentence says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        say(sentence)
        raise typer.Exit(INTERRUPTED) from None


def code_of(error: BadInput | Refused | GatewayUnreachable) -> int:
    """NO_GATEWAY means that nothing is wrong with the request: the same may succeed a little later."""
    if isinstance(error, GatewayUnreachable) or (
        isinstance(error, Refused) and (error.status >= 500 or error.status == 429)
    ):
        return NO_GATEWAY
    has_ended = isinstance(error, Refused) and error.status == 409 and error.code != "id_conflict"
    return FAILED if has_ended else BAD_INPUT


def exit_with(codes: Iterable[int]) -> None:
    """Ends the command with the gravest of the codes, unless all are DONE."""
    given = set(codes)
    for code in _GRAVEST_FIRST:
        if code in given:
            raise typer.Exit(code)


def stderr_console() -> Console:
    return Console(file=sys.stderr, highlight=False)


def say(sentence: str) -> None:
    stderr_console().print(printable(sentence), markup=False, soft_wrap=True)
