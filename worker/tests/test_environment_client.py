"""What the environment's parts are sent by `worker status` and the samples."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from runnerlib.contract.identity import RunnerKeys
from worker.environment_client import EnvironmentClient
from worker.environment_secrets import gateway_token
from worker.settings import inherited_environment

KEY = "k" * 40
VARIABLES = (
    "PRODUCER_TOKEN",
    "PRODUCER_TOKEN_FILE",
    "ADMIN_TOKEN",
    "ADMIN_TOKEN_FILE",
    "RUNNER_KEYS",
    "RUNNER_KEYS_FILE",
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_each_token_is_sent_to_whom_it_belongs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "secret")
    monkeypatch.setenv("RUNNER_KEYS", KEY)
    seen: dict[str, str | None] = {}

    async def note(request: web.Request) -> web.Response:
        seen[request.path] = request.headers.get("Authorization")
        return web.json_response({"dead_letters": [], "next": None, "reasons": {}})

    async def scenario() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", note)
        runner = web.AppRunner(app)
        await runner.setup()
        sites = [web.TCPSite(runner, "127.0.0.1", 0) for _ in range(3)]
        for site in sites:
            await site.start()
        gateway, discovery, other = (f"http://127.0.0.1:{port}" for _, port in runner.addresses)
        try:
            async with EnvironmentClient(gateway, discovery, tmp_path) as client:
                assert await client.open_dead_letters() == (0, False)
                await client.reasons(other)
                await client._request("GET", f"{discovery}/catalogue")
        finally:
            await runner.cleanup()

    asyncio.run(scenario())
    assert seen == {
        "/dead": "Bearer secret",
        "/healthz/ready": None,
        "/catalogue": f"Bearer {RunnerKeys([KEY]).service_token()}",
    }


def test_tokens_are_inherited_by_no_process_but_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners' code, and what installs their packages, must not read them."""
    for name in (*VARIABLES, "METRICS_TOKEN", "METRICS_TOKEN_FILE", "admin_token"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in inherited_environment().values()


def test_caller_s_own_token_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert gateway_token(tmp_path) == ""
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "admin-token").write_text("of-the-data-folder\n")
    assert gateway_token(tmp_path) == "of-the-data-folder"
    for name, value, found in (
        ("ADMIN_TOKEN_FILE", "/missing", "of-the-data-folder"),
        ("ADMIN_TOKEN_FILE", str(tmp_path / "token"), "from-file"),
        ("ADMIN_TOKEN", "admin", "admin"),
        ("PRODUCER_TOKEN_FILE", str(tmp_path / "token"), "from-file"),
        ("PRODUCER_TOKEN", "own", "own"),
    ):
        monkeypatch.setenv(name, value)
        assert gateway_token(tmp_path) == found
