"""Clients with a token."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from token_senders import ADMIN_TOKEN, Sender

from producer import AsyncTaskClient, GatewayClient, Refused, TaskClient
from taskqueue.tokens import Scope

MakeSender = Callable[..., Sender]


def list_blocking(url: str, token: str) -> int:
    with TaskClient(url, token=token) as client:
        return len(client.tasks())


def list_async(url: str, token: str) -> int:
    async def scenario() -> int:
        async with AsyncTaskClient(url, token=token) as client:
            return len(await client.tasks())

    return asyncio.run(scenario())


both = pytest.mark.parametrize("ask", [list_blocking, list_async])


@both
def test_token_is_sent_with_each_request(guarded: Any, make_sender: MakeSender, ask: Callable[..., int]) -> None:
    sender = make_sender(Scope.SUBMIT, Scope.READ)
    sender.submit("upper", {"text": "a"})
    assert ask(guarded.url, sender.token) == 1
    for token, status in (("", 401), ("x" * 40, 401), (make_sender(Scope.SUBMIT).token, 403)):
        with pytest.raises(Refused) as refused:
            ask(guarded.url, token)
        assert refused.value.status == status


@both
def test_token_wins_over_what_netrc_says(
    guarded: Any, ask: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For other machines' gateways the environment is trusted, which includes that file; the name is one for here."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.2 login me password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    elsewhere = Sender(guarded.url, ADMIN_TOKEN)
    assert elsewhere.get("/tasks").status_code == 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("producer.client.transport._OWN_MACHINE", ())
        url = guarded.url
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password other\n")
        assert ask(url, ADMIN_TOKEN) == 0


@both
@pytest.mark.parametrize("token", ["a secret", "secret\r\nX: y", "secret\u00e9"])
def test_text_that_cannot_be_a_token_is_refused_and_not_repeated(ask: Callable[..., int], token: str) -> None:
    with pytest.raises(ValueError, match="a token has printable ASCII") as error:
        ask("http://127.0.0.1:9", token)
    assert "secret" not in str(error.value)


def test_tokens_and_audit_are_managed_by_the_gateway_s_client(guarded: Any) -> None:
    with GatewayClient(guarded.url, token=ADMIN_TOKEN) as client:
        made = client.create_token("x", ["read"], expires_seconds=60)
        assert made["token"].startswith("ppw_")
        assert [token["key_id"] for token in client.tokens()] == [made["key_id"]]
        assert client.revoke_token(made["key_id"])["revoked_at"] is not None
        assert [entry["action"] for entry in client.audit()] == ["token.revoke", "token.create"]
        assert [entry["action"] for entry in client.audit(action="token.create", limit=1)] == ["token.create"]
