"""``producer token``, ``producer audit``, and the token that every command sends."""

import json
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import typer
from token_senders import ADMIN_TOKEN, Sender
from typer.main import get_command
from typer.testing import CliRunner, Result

from producer.cli import app, token_option
from producer.cli.exit_codes import BAD_INPUT
from producer.cli.token_option import given_token

Call = Callable[..., Result]


@pytest.fixture
def call(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command with these variables; by default with the admin's token."""
    for name in ("PRODUCER_TOKEN", "PRODUCER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, variables: dict[str, str] | None = None) -> Result:
        found = {"PRODUCER_TOKEN": ADMIN_TOKEN} if variables is None else variables
        return CliRunner().invoke(app, list(arguments), env={"GATEWAY_URL": guarded.url, **found})

    return call


def test_token_is_printed_once_and_can_be_used_listed_and_revoked(guarded: Any, call: Call) -> None:
    made = call("token", "create", "billing", "--scope", "submit", "--scope", "read", "--algorithm", "upp*")
    assert made.exit_code == 0
    text = made.stdout.strip()
    key_id = text.split("_")[1]
    assert text.startswith("ppw_") and made.stdout == text + "\n"
    assert made.stderr == f"key id {key_id}; keep the token, it is not shown again\n"
    sender = Sender(guarded.url, text)
    assert sender.submit("upper", {"text": "a"}).status_code == 202
    [listed] = [json.loads(line) for line in call("token", "list", "--json").stdout.splitlines()]
    assert (listed["key_id"], listed["algorithms"], listed["expires_at"]) == (key_id, ["upp*"], None)
    table = call("token", "list").stdout
    assert key_id in table and "billing" in table and text not in table
    assert call("token", "revoke", key_id).stderr == f"the token {key_id} (billing) is revoked\n"
    audit = [json.loads(line) for line in call("audit", "--json").stdout.splitlines()]
    assert [(each["action"], each["ids"]) for each in audit] == [("token.revoke", [key_id]), ("token.create", [key_id])]
    assert "token.revoke" in call("audit").stdout
    assert call("audit", "--who", "nobody").stderr == "nothing was changed\n"
    assert len(call("audit", "--action", "token.create", "--json").stdout.splitlines()) == 1


def test_limits_of_a_token_are_set_when_it_is_made_and_listed(call: Call) -> None:
    limits = ("--rate", "10", "--burst", "100", "--bytes-per-second", "1000000", "--most-waiting", "500")
    assert call("token", "create", "batch", "--scope", "submit", *limits).exit_code == 0
    [listed] = [json.loads(line) for line in call("token", "list", "--json").stdout.splitlines()]
    names = ("rate_per_second", "burst", "bytes_per_second", "most_waiting")
    assert [listed[name] for name in names] == [10, 100, 1_000_000, 500]
    assert "10/s 100 at once 1000000 B/s 500 waiting" in call("token", "list").stdout
    refused = call("token", "create", "batch", "--scope", "submit", "--burst", "100")
    assert refused.exit_code == BAD_INPUT and "rate_per_second" in refused.stderr


def test_token_that_cannot_be_made_or_revoked_is_told(call: Call) -> None:
    for arguments in (
        ("create", "x", "--scope", "everything"),
        ("create", "x", "--scope", "read", "--algorithm", "[a]"),
        ("revoke", "0123456789ab"),
        ("revoke", "ppw_0123456789ab_secret/../.."),
    ):
        refused = call("token", *arguments)
        assert refused.exit_code == BAD_INPUT and refused.stderr
    assert call("token", "list").stderr == "there are no tokens\n"


def test_token_comes_from_the_option_the_variable_or_the_file(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{ADMIN_TOKEN}\n")
    for arguments, variables in (
        (("--token", ADMIN_TOKEN), {}),
        (("--token", ADMIN_TOKEN), {"PRODUCER_TOKEN": "x" * 32}),
        ((), {"PRODUCER_TOKEN": ADMIN_TOKEN}),
        ((), {"PRODUCER_TOKEN_FILE": str(file)}),
        ((), {"PRODUCER_TOKEN": ADMIN_TOKEN, "PRODUCER_TOKEN_FILE": "/missing"}),
    ):
        assert call("list", *arguments, variables=variables).exit_code == 0
    missing = call("list", variables={"PRODUCER_TOKEN_FILE": "/missing"})
    assert (missing.exit_code, "PRODUCER_TOKEN_FILE" in missing.stderr) == (BAD_INPUT, True)
    nobody = call("list", variables={})
    assert nobody.exit_code == BAD_INPUT
    assert "--token" in nobody.stderr and "PRODUCER_TOKEN_FILE" in nobody.stderr


def test_admin_token_of_the_environment_here_is_found_in_its_data_folder(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "admin-token"
    folder = {"DATA_FOLDER": str(tmp_path)}
    assert call("list", variables=folder).exit_code != 0
    file.parent.mkdir()
    file.write_text(f"{ADMIN_TOKEN}\n")
    assert call("list", variables=folder).exit_code == 0
    # What is given wins, right or wrong.
    assert call("list", variables={**folder, "PRODUCER_TOKEN": "x" * 32}).exit_code != 0
    missing = call("list", variables={**folder, "PRODUCER_TOKEN_FILE": "/missing"})
    assert (missing.exit_code, "PRODUCER_TOKEN_FILE" in missing.stderr) == (BAD_INPUT, True)
    file.write_bytes(b"\xff")
    assert call("list", variables=folder).exit_code != 0


@pytest.mark.parametrize(
    ("gateway", "is_here"),
    [
        ("http://127.0.0.1:8000", True),
        ("https://LOCALHOST/", True),
        ("http://[::1]:8000", True),
        ("http://127.0.0.2:8000", False),
        ("http://10.0.0.1:8000", False),
        ("http://localhost.evil.example:8000", False),
        ("http://evil.example:8000", False),
        ("http://127.0.0.1:8000@evil.example", False),
        ("http://evil.example\\@127.0.0.1", False),
        ("http://127.0.0.1\nevil.example", False),
    ],
)
def test_admin_token_of_the_data_folder_is_sent_to_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: str, is_here: bool
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin-token").write_text(ADMIN_TOKEN)
    monkeypatch.setenv("DATA_FOLDER", str(tmp_path))
    for name in ("PRODUCER_TOKEN", "PRODUCER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    # What another test's command was given.
    monkeypatch.setattr(token_option, "_given", ContextVar("given token", default=""))
    assert given_token(gateway) == (ADMIN_TOKEN if is_here else "")


@pytest.mark.parametrize("token", ["a secret", "secret\n", "secret\u00e9"])
def test_token_that_cannot_be_one_is_told_and_not_shown(call: Call, token: str) -> None:
    refused = call("list", "--token", token)
    assert refused.exit_code == BAD_INPUT
    assert "secret" not in refused.stderr + refused.stdout


def test_every_command_takes_a_token() -> None:
    def commands(group: Any) -> list[Any]:
        found = []
        for command in group.commands.values():
            found += commands(command) if hasattr(command, "commands") else [command]
        return found

    every = commands(get_command(app))
    assert len(every) >= 13
    for command in every:
        assert "--token" in [option for parameter in command.params for option in parameter.opts], command.name


def test_every_command_sends_it(call: Call, make_sender: Any, tmp_path: Path) -> None:
    messages = tmp_path / "m.jsonl"
    messages.write_text('{"text": "a"}\n')
    for arguments in (
        ("send", "upper", '{"text": "a"}', "--id", "a"),
        ("send-many", str(messages), "--algorithm", "upper"),
        ("cancel", "a"),
        ("list",),
        ("algorithms",),
        ("dead", "list"),
        ("dead", "discard", "--all", "--yes"),
    ):
        assert call(*arguments, variables={}).exit_code == BAD_INPUT, arguments
        done = call(*arguments)
        assert done.exit_code == 0, done.stderr


def test_nothing_else_is_left_of_typer_s_set_up() -> None:
    """The option is added to each command once, however often the module's app is looked at."""
    assert isinstance(app, typer.Typer)
    [listed] = [command for command in get_command(app).commands.values() if command.name == "list"]  # type: ignore[attr-defined]
    assert [parameter.name for parameter in listed.params].count("token") == 1
