import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from containers.browser import Browser, words_of
from fastapi import FastAPI
from raw_http import get
from starlette.requests import Request
from starlette.responses import HTMLResponse

from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer
from runnerlib.service.web import create_app

JSON = {"Content-Type": "application/json"}


def sample() -> FastAPI:
    app = create_app("Sample", health=Health())

    @app.post("/change")
    async def change(request: Request) -> int:
        return len(await request.body())

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse("<p>text</p>")

    return app


def run(scenario: Callable[[httpx.AsyncClient], Awaitable[None]], host: str = "127.0.0.1", **options: Any) -> None:
    async def main() -> None:
        async with HttpServer(sample(), host, 0, **options) as server, httpx.AsyncClient() as client:
            client.base_url = httpx.URL(f"http://127.0.0.1:{server.port}")
            await asyncio.wait_for(scenario(client), 20)

    asyncio.run(main())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1:99",
    "127.8.9.1",
    "localhost",
    "LocalHost.:80",
    "a.localhost:1",
    "[::1]:8000",
    "[::1]",
]
FOREIGN = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:8000",
    "10.0.0.1",
    "[::2]:80",
    "",
    "[",
    "\xff",
]


def test_a_service_on_loopback_answers_to_loopback_names_alone() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for host in LOOPBACK:
            assert (await client.get("/healthz/live", headers={"Host": host})).status_code == 200, host
        for host in FOREIGN:
            answer = await client.get("/healthz/live", headers=[(b"Host", host.encode("latin-1"))])
            assert code(answer) == (421, "unknown_host"), host
        assert "ALLOWED_HOSTS" in answer.json()["detail"]

    run(scenario)


def test_allowed_hosts_are_further_names() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for host in ("tasks.example:8000", "TASKS.example", *LOOPBACK):
            assert (await client.get("/healthz/live", headers={"Host": host})).status_code == 200, host
        assert code(await client.get("/healthz/live", headers={"Host": "a.tasks.example"})) == (421, "unknown_host")

    run(scenario, allowed_hosts=["Tasks.Example"])
    run(scenario, host="0.0.0.0", allowed_hosts=["tasks.example"])


def test_beyond_loopback_every_name_is_known_unless_some_are_named() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz/live", headers={"Host": "any.example"})).status_code == 200

    run(scenario, host="0.0.0.0")


def test_a_request_without_a_host_comes_from_no_browser_and_is_answered() -> None:
    async def main() -> None:
        async with HttpServer(sample(), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(get("/healthz/live"))
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "told",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://tasks.localhost"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://tasks.localhost:8001"},
        {"Origin": "null"},
    ],
)
def test_pages_of_other_sites_change_nothing_but_may_ask(told: dict[str, str]) -> None:
    headers = {"Host": "tasks.localhost", **JSON, **told}

    async def scenario(client: httpx.AsyncClient) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert code(await client.request(method, "/change", headers=headers)) == (403, "other_site")
        assert (await client.get("/page", headers=headers)).status_code == 200

    run(scenario)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"Origin": "http://Tasks.localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_own_pages_and_programs_may_change_things(told: dict[str, str]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/change", content=b"{}", headers={"Host": "tasks.localhost", **JSON, **told})
        assert (answer.status_code, answer.json()) == (200, 2)

    run(scenario)


def test_pages_cannot_be_framed_or_guessed_and_run_no_foreign_scripts() -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/page", "/docs"):
            fields = (await client.get(path)).headers
            assert (fields["x-frame-options"], fields["referrer-policy"]) == ("DENY", "no-referrer")
            assert "default-src 'none'" in fields["content-security-policy"]
            assert "frame-ancestors 'none'" in fields["content-security-policy"]
        for path in ("/page", "/docs", "/healthz/live", "/metrics", "/nothing", "/swagger/swagger-ui.css"):
            assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"
        assert "x-frame-options" not in (await client.get("/healthz/live")).headers

    run(scenario)


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromium"), reason="Chromium is not installed")
def test_docs_work_in_a_browser_that_obeys_their_policy(tmp_path: Path) -> None:
    async def main() -> str:
        async with HttpServer(sample(), "127.0.0.1", 0) as server:
            return await asyncio.to_thread(Browser(tmp_path).document, f"http://127.0.0.1:{server.port}/docs")

    page = words_of(asyncio.run(main()))
    for word in ("Sample", "/healthz/live", "The process answers"):
        assert word in page


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with HttpServer(sample(), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /change HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n1"
            )
            await asyncio.wait_for(reader.readline(), 10)  # the application waits for the body
            writer.transport.abort()
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{server.port}/healthz/live")

    asyncio.run(main())
    assert "Traceback" not in "".join(capsys.readouterr())
