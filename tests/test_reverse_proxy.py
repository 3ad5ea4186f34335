"""The gateway under a path of another site, behind a proxy that ends TLS."""

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from aiohttp import ClientSession, web
from certificates import Authority
from environments import Environment

from producer import TaskClient
from runnerlib.service.tls import Certificate

pytestmark = pytest.mark.timeout(300)

PREFIX = "/plugplay"
TOKEN = "admin-token-of-the-reverse-proxy-test"
#: Whom the proxy says that it serves.
SENDER = "203.0.113.7"
OTHER = "198.51.100.1"


class Proxy:
    """``with Proxy(...) as proxy: proxy.url``: has the target under PREFIX, which it takes off or leaves."""

    def __init__(self, target: str, certificate: Certificate, *, takes_prefix_off: bool) -> None:
        self._target = target
        self._certificate = certificate
        self._takes_off = takes_prefix_off
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.url = ""

    def __enter__(self) -> "Proxy":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        self._session = ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_route("*", PREFIX + "/{rest:.*}", self._pass_on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._certificate.context)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{port}{PREFIX}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        path = request.raw_path.removeprefix(PREFIX) if self._takes_off else request.raw_path
        headers = request.headers.copy()
        told = [*request.headers.getall("X-Forwarded-For", []), SENDER]
        headers.update({"X-Forwarded-For": ", ".join(told), "X-Forwarded-Proto": "https"})
        async with self._session.request(
            request.method, self._target + path, headers=headers, data=await request.read(), allow_redirects=False
        ) as answer:
            kept = {name: answer.headers[name] for name in ("Location", "Content-Type") if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    settings = {"ROOT_PATH": PREFIX, "TRUSTED_PROXIES": "127.0.0.1", "ADMIN_TOKEN": TOKEN}
    started = Environment(tmp_path_factory.mktemp("environment"), core_settings=settings)
    runner = started.runner("steady")
    try:
        for service in (started.discovery, started.core, runner):
            service.start(ready=False)
        for service in (started.discovery, started.core, runner):
            service.wait_ready()
        yield started
    finally:
        started.stop()


@pytest.fixture(params=[True, False], ids=["without the prefix", "with the prefix"])
def proxy(request: pytest.FixtureRequest, environment: Environment, authority: Authority) -> Iterator[Proxy]:
    certificate = Certificate(*authority.sign("proxy", "127.0.0.1"))
    with Proxy(environment.core.url, certificate, takes_prefix_off=request.param) as started:
        yield started


@pytest.fixture
def ask(authority: Authority, proxy: Proxy) -> Iterator[Any]:
    with requests.Session() as session:
        session.trust_env = False
        session.verify, session.headers["Authorization"] = str(authority.file), f"Bearer {TOKEN}"

        def call(method: str, url: str, **more: Any) -> requests.Response:
            return session.request(method, url, timeout=90, allow_redirects=False, **more)

        yield call


def test_tasks_are_sent_and_awaited_under_the_path(proxy: Proxy, authority: Authority) -> None:
    with TaskClient(proxy.url, ca_file=str(authority.file), token=TOKEN) as client:
        assert client.result(client.submit("square", {"number": 6}), timeout_seconds=60) == 36


def test_location_leads_back_through_the_proxy(proxy: Proxy, ask: Any) -> None:
    site = proxy.url.removesuffix(PREFIX)
    queued = ask("POST", f"{proxy.url}/tasks", json={"algorithm": "square", "payload": {"number": 2}})
    assert queued.status_code == 202
    assert queued.headers["Location"] == f"{PREFIX}/tasks/{queued.json()['id']}"
    assert ask("GET", site + queued.headers["Location"]).json()["id"] == queued.json()["id"]


def test_docs_and_the_openapi_document_work_under_the_path(proxy: Proxy, ask: Any) -> None:
    page = ask("GET", f"{proxy.url}/docs").text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(linked) >= 2
    for link in linked:
        assert ask("GET", f"{proxy.url}/{link}").status_code == 200, link
    assert "url: 'openapi.json'" in page
    document = ask("GET", f"{proxy.url}/openapi.json").json()
    assert document["servers"] == [{"url": PREFIX}]
    assert "/algorithms/square/run" in document["paths"]


def test_audit_has_the_address_that_the_proxy_saw_and_not_what_the_sender_claims(proxy: Proxy, ask: Any) -> None:
    made = ask(
        "POST", f"{proxy.url}/tokens", json={"name": "n", "scopes": ["read"]}, headers={"X-Forwarded-For": OTHER}
    )
    assert made.status_code == 201, made.text
    entry = ask("GET", f"{proxy.url}/audit").json()["entries"][0]
    assert entry["action"] == "token.create"
    assert SENDER in entry.values()
    assert OTHER not in entry.values()


def test_gateway_can_be_asked_past_the_proxy_too(environment: Environment) -> None:
    for path in ("/healthz/ready", f"{PREFIX}/healthz/ready"):
        assert requests.get(environment.core.url + path, timeout=10).status_code == 200
