import asyncio
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from component_check import check_component
from fastapi import FastAPI

from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer, PortTaken
from runnerlib.service.lifecycle import StartupError
from runnerlib.service.settings import ServiceSettings
from runnerlib.service.web import create_app


def sample(asked: asyncio.Event | None = None) -> FastAPI:
    """`asked` is set once a handler has begun."""
    asked = asked or asyncio.Event()
    app = create_app("Sample", health=Health())

    @app.get("/hold")
    async def hold() -> str:
        asked.set()
        await asyncio.sleep(60)
        return "late"

    @app.get("/short")
    async def short() -> str:
        asked.set()
        await asyncio.sleep(0.3)
        return "done"

    return app


def test_the_server_answers_once_entered_and_frees_its_port() -> None:
    async def scenario() -> None:
        async with HttpServer(sample(), "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{server.port}/healthz/live"
            assert (await client.get(url)).json() == {"live": True}
        async with HttpServer(sample(), "127.0.0.1", server.port) as again:
            assert again.port == server.port

    asyncio.run(scenario())


def test_the_server_keeps_the_lifecycle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]

        async def scenario() -> None:
            await check_component(
                lambda: HttpServer(sample(), "127.0.0.1", 0), lambda: HttpServer(sample(), "127.0.0.1", taken)
            )

        asyncio.run(scenario())


def test_a_taken_port_is_told_with_its_setting() -> None:
    async def scenario() -> None:
        async with HttpServer(sample(), "127.0.0.1", 0) as first:
            with pytest.raises(PortTaken, match=f"port {first.port} on 127.0.0.1.*set MY_PORT to a free port"):
                async with HttpServer(sample(), "127.0.0.1", first.port, setting="MY_PORT"):
                    raise AssertionError("two servers on one port")

    asyncio.run(scenario())


def test_an_impossible_host_is_a_sentence() -> None:
    async def scenario(host: str) -> None:
        async with HttpServer(sample(), host, 0):
            raise AssertionError

    with pytest.raises(StartupError, match="set HOST"):
        asyncio.run(scenario("no-such-host.invalid"))
    with pytest.raises(StartupError, match="set HOST"):
        asyncio.run(scenario("192.0.2.1"))


@pytest.mark.serial
def test_a_held_request_does_not_hold_up_the_stop() -> None:
    async def scenario() -> tuple[httpx.Response, float]:
        asked = asyncio.Event()
        async with httpx.AsyncClient(timeout=10) as client:
            async with HttpServer(sample(asked), "127.0.0.1", 0) as server:
                held = asyncio.ensure_future(client.get(f"http://127.0.0.1:{server.port}/hold"))
                await asked.wait()
                began = time.monotonic()
            seconds = time.monotonic() - began
            return await held, seconds

    answer, seconds = asyncio.run(scenario())
    assert seconds < 2
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")


def test_a_request_in_progress_is_finished() -> None:
    async def scenario() -> httpx.Response:
        asked = asyncio.Event()
        async with httpx.AsyncClient(timeout=10) as client:
            async with HttpServer(sample(asked), "127.0.0.1", 0) as server:
                short = asyncio.ensure_future(client.get(f"http://127.0.0.1:{server.port}/short"))
                await asked.wait()
            return await short

    assert asyncio.run(scenario()).text == '"done"'


SERVICE = """
import sys
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging, get_logger
from runnerlib.service.settings import ServiceSettings, load_settings
from runnerlib.service.web import create_app

async def build(stack):
    server = await stack.enter_async_context(HttpServer(create_app("x", health=Health()), settings.host, settings.port))
    get_logger("x").info("listening", port=server.port)

settings = load_settings(ServiceSettings)
configure_logging("sample", settings)
sys.exit(run_service(build, settings))
"""


def test_a_service_on_a_taken_port_ends_with_one_sentence(start: Callable[..., Any]) -> None:
    first = start(SERVICE)
    port = first.wait_line("listening").split('"port": ')[1].split("}")[0].split(",")[0]
    second = start(SERVICE, PORT=port)
    assert second.wait() == 1
    assert len(second.lines) == 1
    assert f"port {port} on 127.0.0.1 is used by another process" in second.lines[0]
    first.signal(signal.SIGTERM)
    assert first.wait(5) == 0


def test_a_server_is_as_its_settings_say() -> None:
    settings = ServiceSettings(port=0, allowed_hosts="tasks.example", max_connections=1)

    async def main() -> None:
        async with HttpServer.of(sample(), settings) as server, httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{server.port}/healthz/live"
            assert (await client.get(url, headers={"Host": "tasks.example"})).status_code == 200
            assert (await client.get(url, headers={"Host": "other.example"})).status_code == 421
            first, _ = await asyncio.open_connection("127.0.0.1", server.port)
            _, second = await asyncio.open_connection("127.0.0.1", server.port)
            assert await asyncio.wait_for(first.read(), 10) == b""
            second.close()

    asyncio.run(main())
