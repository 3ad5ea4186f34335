"""``--token`` of every command, and where the token is found without it."""

import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client.transport import checked_token
from producer.errors import BadInput

FILE_VARIABLE = "PRODUCER_TOKEN_FILE"

TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="PRODUCER_TOKEN",
        show_default=False,
        show_envvar=False,
        help=f"Token of the gateway, if it wants one. Better in the file that {FILE_VARIABLE} names: every user of the "
        "machine can read command lines.",
    ),
]
_given: ContextVar[str] = ContextVar("given token", default="")


def take_tokens(app: typer.Typer) -> None:
    """Gives every command of the app the option; `given_token` returns what was given."""
    for command in app.registered_commands:
        assert command.callback is not None
        command.callback = _with_token(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            take_tokens(group.typer_instance)


def given_token() -> str:
    """From ``--token``, PRODUCER_TOKEN, or the file that PRODUCER_TOKEN_FILE names; else empty. Raises BadInput."""
    token, file = _given.get(), os.environ.get(FILE_VARIABLE)
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise BadInput(f"{FILE_VARIABLE} is {file!r}, which cannot be read; check its name and its mode") from None
    try:
        return checked_token(token)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _with_token(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def run(*arguments: Any, token: str = "", **options: Any) -> Any:
        _given.set(token)
        return command(*arguments, **options)

    signature = inspect.signature(command)
    parameter = inspect.Parameter("token", inspect.Parameter.KEYWORD_ONLY, default="", annotation=TokenOption)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), parameter])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, "token": TokenOption}
    return run
