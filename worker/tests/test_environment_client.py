"""What the environment's parts are sent by `worker status` and the samples."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from worker.environment_client import EnvironmentClient
from worker.settings import gateway_token, gateway_tokens, inherited_environment

VARIABLES = ("PRODUCER_TOKEN", "PRODUCER_TOKEN_FILE", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_token_is_sent_to_the_gateway_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "secret")
    seen: dict[str, str | None] = {}

    async def note(request: web.Request) -> web.Response:
        seen[request.path] = request.headers.get("Authorization")
        return web.json_response({"dead_letters": [], "next": None, "reasons": {}})

    async def scenario() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", note)
        runner = web.AppRunner(app)
        await runner.setup()
        sites = [web.TCPSite(runner, "127.0.0.1", 0) for _ in range(2)]
        for site in sites:
            await site.start()
        gateway, other = (f"http://127.0.0.1:{port}" for _, port in runner.addresses)
        try:
            async with EnvironmentClient(gateway, other) as client:
                assert await client.open_dead_letters() == (0, False)
                await client.reasons(other)
                await client._request("GET", f"{other}/catalogue")
        finally:
            await runner.cleanup()

    asyncio.run(scenario())
    assert seen == {"/dead": "Bearer secret", "/healthz/ready": None, "/catalogue": None}


def test_tokens_are_inherited_by_no_process_but_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners' code, and what installs their packages, must not read them."""
    for name in (*VARIABLES, "METRICS_TOKEN", "METRICS_TOKEN_FILE", "admin_token"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in inherited_environment().values()
    told = {"ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "METRICS_TOKEN", "METRICS_TOKEN_FILE", "admin_token"}
    assert gateway_tokens() == dict.fromkeys(told, "secret")


def test_caller_s_own_token_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert gateway_token() == ""
    (tmp_path / "token").write_text("from-file\n")
    for name, value, found in (
        ("ADMIN_TOKEN_FILE", "/missing", ""),
        ("ADMIN_TOKEN_FILE", str(tmp_path / "token"), "from-file"),
        ("ADMIN_TOKEN", "admin", "admin"),
        ("PRODUCER_TOKEN_FILE", str(tmp_path / "token"), "from-file"),
        ("PRODUCER_TOKEN", "own", "own"),
    ):
        monkeypatch.setenv(name, value)
        assert gateway_token() == found
