"""``producer token create | list | revoke`` and ``producer audit``."""

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from producer.cli.exit_codes import exit_on_errors, say
from producer.cli.options import GatewayOption, JsonOption, LimitOption, connect
from producer.cli.tables import Listing, display
from producer.printable import one_line, printable_json

_DAY_SECONDS = 86_400.0
#: Ids of an entry that a table shows.
_SHOWN_IDS = 3

token = typer.Typer(no_args_is_help=True, help="Tokens of the gateway: make, list and revoke them.")

ScopeOption = Annotated[
    list[str], typer.Option("--scope", help="submit, read, read:all, operate or admin; may be given several times.")
]
PatternOption = Annotated[
    list[str] | None,
    typer.Option(
        "--algorithm", metavar="PATTERN", help="Only algorithms that fit, such as 'text_*'; may be given several times."
    ),
]
RateOption = Annotated[float | None, typer.Option("--rate", help="Tasks a second that it may send to a gateway.")]
BurstOption = Annotated[int | None, typer.Option("--burst", help="Tasks at once after a rest; needs --rate.")]
BytesOption = Annotated[int | None, typer.Option("--bytes-per-second", help="Bytes a second that it may send.")]
WaitingOption = Annotated[int | None, typer.Option("--most-waiting", help="Its tasks that may wait.")]
DaysOption = Annotated[float | None, typer.Option("--expires-days", min=0.0, help="Days until it expires.")]


@token.command()
def create(
    name: Annotated[str, typer.Argument(help="Who uses it, or what for.")],
    scope: ScopeOption,
    algorithm: PatternOption = None,
    expires_days: DaysOption = None,
    rate: RateOption = None,
    burst: BurstOption = None,
    bytes_per_second: BytesOption = None,
    most_waiting: WaitingOption = None,
    gateway: GatewayOption = "",
) -> None:
    """Make a token and print it: this once, and never again."""
    with exit_on_errors(), connect(gateway) as client:
        seconds = None if expires_days is None else expires_days * _DAY_SECONDS
        made = client.create_token(
            name,
            scope,
            algorithm or (),
            expires_seconds=seconds,
            rate_per_second=rate,
            burst=burst,
            bytes_per_second=bytes_per_second,
            most_waiting=most_waiting,
        )
        typer.echo(made["token"])
        say(f"key id {made['key_id']}; keep the token, it is not shown again")


@token.command("list")
def list_tokens(limit: LimitOption = 100, as_json: JsonOption = False, gateway: GatewayOption = "") -> None:
    """List tokens, the newest first, without their texts."""
    with exit_on_errors(), connect(gateway) as client:
        found = client.tokens(limit=limit)
        _show(found, as_json, _token_list, "there are no tokens")


@token.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `producer token list` shows it.")],
    gateway: GatewayOption = "",
) -> None:
    """Revoke a token: within a second every gateway refuses it."""
    with exit_on_errors(), connect(gateway) as client:
        revoked = client.revoke_token(key_id)
        say(f"the token {revoked['key_id']} ({one_line(revoked['name'])}) is revoked")


def audit(
    who: Annotated[str | None, typer.Option("--who", metavar="KEY_ID", help="Only by this token.")] = None,
    action: Annotated[
        str | None,
        typer.Option("--action", help="Only this, such as cancel, replay, pause or token.create."),
    ] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
    gateway: GatewayOption = "",
) -> None:
    """Show who changed what, the newest first."""
    with exit_on_errors(), connect(gateway) as client:
        found = client.audit(who=who, action=action, limit=limit)
        _show(found, as_json, _audit_list, "nothing was changed")


def _show(found: Iterable[dict[str, Any]], as_json: bool, listing: Callable[..., Listing], nothing: str) -> None:
    if as_json:
        for each in found:
            typer.echo(printable_json(each, compact=True))
    elif entries := list(found):
        display(listing(entries))
    else:
        say(nothing)


def _token_list(tokens: list[dict[str, Any]]) -> Listing:
    rows = [
        (
            one_line(token["key_id"]),
            _time(token["expires_at"]) or "never",
            _time(token["last_used_at"]) or "never",
            _time(token["revoked_at"]),
            " ".join(token["scopes"]),
            one_line(" ".join(token["algorithms"]), 200) or "all",
            _limits(token) or "none",
            one_line(token["name"], 200),
        )
        for token in tokens
    ]
    return Listing(
        ("key id", "expires", "last used", "revoked", "scopes", "algorithms", "limits", "name"), rows, sentences=3
    )


def _limits(token: dict[str, Any]) -> str:
    """``10/s 100 at once 1000 B/s 500 waiting``."""
    units = {"rate_per_second": "/s", "burst": " at once", "bytes_per_second": " B/s", "most_waiting": " waiting"}
    return " ".join(f"{token[name]:.15g}{unit}" for name, unit in units.items() if token.get(name) is not None)


def _audit_list(entries: list[dict[str, Any]]) -> Listing:
    rows = [
        (
            _time(entry["created_at"]),
            one_line(entry["who"]),
            one_line(entry["action"]),
            str(entry["count"]),
            one_line(entry["client"] or ""),
            one_line(_what(entry), 200),
        )
        for entry in entries
    ]
    return Listing(("at", "who", "action", "count", "from", "what"), rows)


def _what(entry: dict[str, Any]) -> str:
    ids = entry["ids"][:_SHOWN_IDS]
    more = "" if entry["count"] == len(ids) else " …"
    params = json.dumps(entry["params"], ensure_ascii=False) if entry["params"] else ""
    return f"{' '.join(ids)}{more} {params}".strip()


def _time(text: str | None) -> str:
    return "" if text is None else one_line(text[:19].replace("T", " "))
