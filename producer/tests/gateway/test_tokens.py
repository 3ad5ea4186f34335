"""Tokens and the audit over HTTP, and a gateway that needs none."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from token_senders import ADMIN_TOKEN, WAIT_SECONDS, Sender

from producer.gateway.service import StartupGate
from producer.gateway.settings import GatewaySettings
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.settings import load_settings
from taskqueue.tokens import Scope

MakeSender = Callable[..., Sender]


def audit_of(sender: Sender, query: str = "") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = sender.get(f"/audit{query}").json()["entries"]
    return entries


def test_token_is_made_shown_once_used_listed_and_revoked(guarded: Any, admin: Sender) -> None:
    wanted = {"name": "billing", "scopes": ["submit", "read"], "algorithms": ["upp*"], "expires_seconds": 3600}
    made = admin.post("/tokens", wanted)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    view = made.json()
    text = view.pop("token")
    assert {name: view[name] for name in ("name", "scopes", "algorithms", "last_used_at", "revoked_at")} == {
        "name": "billing",
        "scopes": ["read", "submit"],
        "algorithms": ["upp*"],
        "last_used_at": None,
        "revoked_at": None,
    }
    expires_in = datetime.fromisoformat(view["expires_at"]) - datetime.now(timezone.utc)
    assert timedelta(minutes=55) < expires_in < timedelta(minutes=61)
    sender = Sender(guarded.url, text)
    assert sender.submit("upper", {"text": "a"}).status_code == 202
    [listed] = admin.get("/tokens").json()["tokens"]
    assert listed["last_used_at"] is not None
    assert listed | {"last_used_at": None} == view
    assert text not in admin.get("/tokens").text and text not in admin.get("/audit").text
    revoked = admin.call("DELETE", f"/tokens/{view['key_id']}").json()
    assert revoked["revoked_at"] is not None
    assert sender.submit("upper", {"text": "a"}).status_code == 401
    assert admin.call("DELETE", f"/tokens/{view['key_id']}").json() == revoked
    assert [(each["action"], each["who"]) for each in audit_of(admin)] == [
        ("token.revoke", "admin"),
        ("token.create", "admin"),
    ]


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes[0]"),
        ({"name": ""}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"algorithms": ["[a-z]"]}, "algorithms[0]"),
        ({"algorithms": ["UPPER"]}, "algorithms[0]"),
        ({"algorithms": ["%"]}, "algorithms[0]"),
        ({"expires_seconds": 0}, "expires_seconds"),
        ({"expires_seconds": 1e30}, "expires_seconds"),
        ({"scopes": ["admin"], "algorithms": ["a*"]}, "body"),
        ({"key_id": "admin"}, "key_id"),
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"burst": 5}, "body"),
        ({"rate_per_second": 1, "burst": 0}, "burst"),
        ({"bytes_per_second": 1.5}, "bytes_per_second"),
        ({"most_waiting": 0}, "most_waiting"),
    ],
)
def test_token_that_cannot_be_is_refused(admin: Sender, fault: dict[str, Any], field: str) -> None:
    answer = admin.post("/tokens", {"name": "x", "scopes": ["read"], **fault})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    assert admin.get("/tokens").json() == {"tokens": [], "next": None}


def test_every_change_is_noted_with_who_what_and_from_where(
    guarded: Any, admin: Sender, make_sender: MakeSender
) -> None:
    sender, operator = make_sender(Scope.SUBMIT), make_sender(Scope.OPERATE)
    for task_id in "abc":
        sender.submit("upper", {"text": task_id}, id=task_id)
    sender.call("DELETE", "/tasks/c")
    for _ in "ab":
        guarded.fail("upper", "broken")
    first, second = (each["dead_id"] for each in operator.get("/dead").json()["dead_letters"])
    operator.post("/dead/replay", {"filter": {"algorithm": "upper"}, "limit": 1})
    operator.post(f"/dead/{second}/discard")
    operator.post(f"/dead/{second}/discard")
    operator.post("/dead/discard", {"ids": [first, second, 999]})
    entries = [
        (each["action"], each["who"], each["count"], each["ids"], each["params"], each["client"])
        for each in audit_of(admin)
        if not each["action"].startswith("token")
    ]
    assert entries == [
        ("discard", operator.key_id, 1, [str(second)], {}, "127.0.0.1"),
        ("replay", operator.key_id, 1, [str(first)], {"filter": {"algorithm": "upper"}}, "127.0.0.1"),
        ("cancel", sender.key_id, 1, ["c"], {}, "127.0.0.1"),
    ]


def test_audit_is_read_in_pages_and_by_filter(guarded: Any, admin: Sender, make_sender: MakeSender) -> None:
    sender = make_sender(Scope.SUBMIT)
    for number in range(5):
        sender.call("DELETE", f"/tasks/t{number}")
    page = admin.get("/audit?limit=2&action=cancel").json()
    assert [each["ids"] for each in page["entries"]] == [["t4"], ["t3"]]
    rest = audit_of(admin, f"?action=cancel&cursor={page['next']}")
    assert [each["ids"] for each in rest] == [["t2"], ["t1"], ["t0"]]
    assert len(audit_of(admin, f"?who={sender.key_id}")) == 5
    assert audit_of(admin, "?created_from=2999-01-01") == []
    assert admin.get("/audit?cursor=t1").status_code == 422


@pytest.mark.parametrize("key_id", ["abc", "ppw_0123456789ab_secret", "%00", "A", "x" * 33, "a%0A", "é"])
def test_unknown_key_id_is_told_and_not_repeated(admin: Sender, key_id: str) -> None:
    answer = admin.call("DELETE", f"/tokens/{key_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_token")
    assert key_id not in answer.text
    assert admin.get(f"/audit?who={key_id}").status_code in (200, 422)
    assert admin.get("/audit?action=%00").status_code == 422


def test_operator_that_is_limited_sees_its_own_calls_alone(
    guarded: Any, admin: Sender, make_sender: MakeSender
) -> None:
    limited, other = make_sender(Scope.OPERATE, algorithms=("a*",)), make_sender(Scope.OPERATE)
    for sender in (limited, other):
        sender.call("DELETE", f"/tasks/{sender.key_id}")
    assert [each["who"] for each in audit_of(limited)] == [limited.key_id]
    assert limited.get(f"/audit?who={other.key_id}").status_code == 403
    assert {each["who"] for each in audit_of(other)} >= {limited.key_id, other.key_id}


def test_change_that_cannot_be_noted_does_not_happen(guarded: Any, admin: Sender, tmp_path: Path) -> None:
    admin.submit("upper", {"text": "a"}, id="a")
    with sqlite3.connect(tmp_path / "tasks.db") as other:
        other.execute("DROP TABLE audit")
    other.close()
    assert admin.call("DELETE", "/tasks/a").status_code >= 500
    assert admin.get("/tasks/a").json()["state"] == "queued"


def test_without_tokens_everybody_may_do_all_but_make_tokens(gateway: Any) -> None:
    nobody = Sender(gateway.url, None)
    nobody.submit("upper", {"text": "a"}, id="a")
    assert nobody.get("/tasks/a", Authorization="Bearer anything").status_code == 200
    assert nobody.call("DELETE", "/tasks/a").status_code == 200
    assert [(each["who"], each["action"], each["ids"]) for each in audit_of(nobody)] == [("none", "cancel", ["a"])]
    for refused in (
        nobody.post("/tokens", {"name": "x", "scopes": ["admin"]}),
        nobody.call("DELETE", "/tokens/abc"),
    ):
        assert refused.status_code == 403
        assert "AUTH=tokens" in refused.json()["detail"]
    assert nobody.get("/tokens").json()["tokens"] == []
    assert nobody.get("/metrics").status_code == 200


@pytest.fixture
def start_gate() -> Iterator[Callable[..., str]]:
    """Starts a gateway that goes on waiting for its store, with these settings; its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = AsyncExitStack()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT_SECONDS)

    def start(**settings: Any) -> str:
        gate = StartupGate(Health("store"), CollectorRegistry(), GatewaySettings(port=0, **settings))
        server = run(stack.enter_async_context(HttpServer(gate, "127.0.0.1", 0)))
        return f"http://127.0.0.1:{server.port}"

    yield start
    run(stack.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WAIT_SECONDS)
    loop.close()


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> GatewaySettings:
    for name in ("AUTH", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "METRICS_TOKEN", "METRICS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings(GatewaySettings)


def test_tokens_are_in_use_when_the_operator_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(ADMIN_TOKEN + "\n")
    assert not settings(monkeypatch).has_tokens
    assert not settings(monkeypatch, AUTH="none").has_tokens
    assert settings(monkeypatch, AUTH="Tokens").has_tokens
    assert settings(monkeypatch, ADMIN_TOKEN=ADMIN_TOKEN).admin_token.get_secret_value() == ADMIN_TOKEN
    read = settings(monkeypatch, ADMIN_TOKEN_FILE=str(file), METRICS_TOKEN_FILE=str(file))
    tokens = {read.admin_token.get_secret_value(), read.metrics_token.get_secret_value()}
    assert (read.has_tokens, tokens) == (True, {ADMIN_TOKEN})
    assert not settings(monkeypatch, METRICS_TOKEN=ADMIN_TOKEN).has_tokens


@pytest.mark.parametrize(
    "variables",
    [
        {"ADMIN_TOKEN": "short-secret"},
        {"ADMIN_TOKEN": "secret " * 10},
        {"METRICS_TOKEN": "secret\u00e9" * 10},
        {"ADMIN_TOKEN": "secret" * 10, "ADMIN_TOKEN_FILE": "FILE"},
        {"ADMIN_TOKEN_FILE": "/secret/missing"},
        {"ADMIN_TOKEN_FILE": "EMPTY"},
        {"AUTH": "none", "ADMIN_TOKEN": "secret" * 10},
        {"AUTH": "none", "ADMIN_TOKEN_FILE": "FILE"},
        {"AUTH": "maybe"},
    ],
)
def test_settings_that_cannot_be_meant_end_the_process_and_show_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], variables: dict[str, str]
) -> None:
    (tmp_path / "FILE").write_text("secret" * 10)
    (tmp_path / "EMPTY").write_text("\n")
    placed = {name: str(tmp_path / value) if value in ("FILE", "EMPTY") else value for name, value in variables.items()}
    with pytest.raises(SystemExit):
        settings(monkeypatch, **placed)
    told = capsys.readouterr().err
    assert told.startswith(tuple(variables)) and told.endswith(".\n")
    assert "secret" not in told


def test_settings_do_not_show_secrets() -> None:
    shown = GatewaySettings(admin_token=ADMIN_TOKEN, metrics_token=ADMIN_TOKEN)  # type: ignore[arg-type]
    assert ADMIN_TOKEN not in f"{shown!r}{shown}{shown.model_dump_json()}"
    with pytest.raises(ValidationError):
        GatewaySettings(admin_token="x")  # type: ignore[arg-type]


def test_gateway_that_waits_for_its_store_lets_nobody_in(start_gate: Callable[..., str]) -> None:
    url = start_gate(admin_token=ADMIN_TOKEN, metrics_token="m" * 32)
    nobody, admin = Sender(url, None), Sender(url, ADMIN_TOKEN)
    assert [nobody.get(path).status_code for path in ("/healthz/live", "/metrics", "/tasks")] == [200, 401, 401]
    assert [admin.get(path).status_code for path in ("/metrics", "/tasks")] == [200, 503]
    assert Sender(url, "m" * 32).get("/metrics").status_code == 200
    stranger = Sender(url, "ppw_0123456789ab_" + "a" * 43).get("/tasks")
    assert (stranger.status_code, stranger.json()["code"]) == (503, "starting")
    assert requests.get(start_gate() + "/metrics", timeout=10).status_code == 200
