"""``--token`` of every command, and where the token is found without it."""

import contextlib
import inspect
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client.transport import checked_token
from producer.errors import BadInput

FILE_VARIABLE = "PRODUCER_TOKEN_FILE"
#: As `worker` has them.
DATA_FOLDER = ".plugplay"
_ADMIN_FILE = Path("secrets", "admin-token")
#: Addresses that no proxy and no parser takes for anything else: the token goes nowhere but to this machine.
_OWN_MACHINE = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?/?", re.IGNORECASE)

TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="PRODUCER_TOKEN",
        show_default=False,
        show_envvar=False,
        help=f"Token of the gateway, if it wants one. Better in the file that {FILE_VARIABLE} names: every user of the "
        "machine can read command lines. Without either, for a gateway on this machine, the one in DATA_FOLDER.",
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


def given_token(gateway: str) -> str:
    """From ``--token``, PRODUCER_TOKEN, or the file that PRODUCER_TOKEN_FILE names. Raises BadInput.

    Else, for a gateway on this machine, the admin token that `worker` keeps in the data folder; else empty.
    """
    token, file = _given.get(), os.environ.get(FILE_VARIABLE)
    if not token and file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise BadInput(f"{FILE_VARIABLE} is {file!r}, which cannot be read; check its name and its mode") from None
    if not token and not file and _OWN_MACHINE.fullmatch(gateway):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            token = (data_folder() / _ADMIN_FILE).read_text(encoding="utf-8").strip()
    try:
        return checked_token(token)
    except ValueError as error:
        raise BadInput(str(error)) from None


def data_folder() -> Path:
    """Of the environment here, if there is one."""
    return Path(os.environ.get("DATA_FOLDER") or DATA_FOLDER)


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
