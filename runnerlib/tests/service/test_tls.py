"""HTTPS: which certificates serve, who is let in, and what a connection is before its handshake is over."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from certificates import Authority, Signed
from raw_http import Connection, Echo, get

from runnerlib.service import probe, tls
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_protocol import HEAD_BYTES
from runnerlib.service.http_server import HttpServer
from runnerlib.service.lifecycle import StartupError
from runnerlib.service.settings import ServiceSettings
from runnerlib.service.tls import Certificate, trusted
from runnerlib.service.web import create_app

Scenario = Callable[[HttpServer], Awaitable[None]]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority: Authority) -> Signed:
    return authority.sign("service", "127.0.0.1", "localhost")


def serve(run: Callable[..., None], certificate: Certificate, scenario: Scenario, max_connections: int = 0) -> None:
    async def bounded() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        server = HttpServer(Echo(), "127.0.0.1", 0, certificate=certificate, max_connections=max_connections)
        async with asyncio.timeout(60), server:
            await scenario(server)
        assert faults == []

    run(bounded())


async def connect(server: HttpServer, context: ssl.SSLContext | None) -> Connection:
    name = None if context is None else "127.0.0.1"
    return Connection(*await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=name))


async def serial_number(server: HttpServer, context: ssl.SSLContext) -> str:
    """Of the certificate that a new connection is shown."""
    connection = await connect(server, context)
    certificate = connection.writer.get_extra_info("peercert")
    connection.writer.close()
    return str(certificate["serialNumber"])


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
@LOOPS
def test_it_speaks_https_and_nothing_else(run: Callable[..., None], authority: Authority, signed: Signed) -> None:
    async def scenario(server: HttpServer) -> None:
        connection = await connect(server, trusted(authority.file))
        for _ in range(2):
            connection.send(get("/echo"), get("/echo"))
            assert [(await connection.answer())[0] for _ in range(2)] == [200, 200]
        plain = await connect(server, None)
        plain.send(get("/echo"))
        assert not (await plain.reader.read()).startswith(b"HTTP")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server, trusted(None))
        old = trusted(authority.file)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(server, old)

    serve(run, Certificate(*signed), scenario)


@LOOPS
def test_large_heads_are_refused_as_without_tls(run: Callable[..., None], authority: Authority, signed: Signed) -> None:
    async def scenario(server: HttpServer) -> None:
        connection = await connect(server, trusted(authority.file))
        connection.send(b"GET / HTTP/1.1\r\nA: ", b"a" * HEAD_BYTES)
        assert await connection.refusal() == (431, "headers_too_large")

    serve(run, Certificate(*signed), scenario)


@LOOPS
def test_silent_connections_make_room_for_others(
    run: Callable[..., None], authority: Authority, signed: Signed
) -> None:
    async def scenario(server: HttpServer) -> None:
        silent = [await connect(server, None) for _ in range(20)]
        connection = await connect(server, trusted(authority.file))
        connection.send(get("/echo"))
        assert (await connection.answer())[0] == 200
        async with asyncio.timeout(tls.HANDSHAKE_SECONDS / 2):
            assert await silent[0].reader.read() == b""

    serve(run, Certificate(*signed), scenario, max_connections=4)


@LOOPS
def test_handshake_that_does_not_end_is_cut(
    run: Callable[..., None], signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tls._TIMES, "ssl_handshake_timeout", 0.2)

    async def scenario(server: HttpServer) -> None:
        silent = await connect(server, None)
        silent.send(b"\x16\x03\x01")
        assert await silent.reader.read() == b""

    serve(run, Certificate(*signed), scenario)


@LOOPS
def test_stop_does_not_wait_for_handshakes(run: Callable[..., float], signed: Signed) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        async with HttpServer(Echo(), "127.0.0.1", 0, certificate=Certificate(*signed)) as server:
            silent = await connect(server, None)
            began = loop.time()
        assert await silent.reader.read() == b""
        return loop.time() - began

    assert run(scenario()) < 5


@LOOPS
def test_renewed_certificate_is_shown_to_those_who_come_after_it_and_a_broken_one_is_not(
    run: Callable[..., None], authority: Authority, tmp_path: Path
) -> None:
    files = Signed(tmp_path / "certificate.pem", tmp_path / "key.pem")

    def write(signed: Signed) -> None:
        for old, new in zip(files, signed, strict=True):
            old.write_bytes(new.read_bytes())

    first, second = (authority.sign(name, "127.0.0.1") for name in ("first", "second"))
    write(first)
    certificate = Certificate(*files, look_seconds=0.05)

    async def scenario(server: HttpServer) -> None:
        context = trusted(authority.file)
        before = await serial_number(server, context)
        kept = await connect(server, context)
        files.certificate.write_bytes(second.certificate.read_bytes())
        while certificate._seen != certificate._state():
            await asyncio.sleep(0.01)
        assert await serial_number(server, context) == before
        files.key.write_bytes(second.key.read_bytes())
        while await serial_number(server, context) == before:
            await asyncio.sleep(0.02)
        kept.send(get("/echo"))
        assert (await kept.answer())[0] == 200

    serve(run, certificate, scenario)


def test_files_that_cannot_be_used_are_told_in_a_sentence(authority: Authority, signed: Signed, tmp_path: Path) -> None:
    other = authority.sign("other", "127.0.0.1")
    broken, locked = tmp_path / "broken.pem", tmp_path / "locked.key"
    broken.write_text("-----BEGIN CERTIFICATE-----\n")
    command = ["openssl", "ec", "-in", signed.key, "-aes128", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    for certificate, key, told in (
        (tmp_path / "nothing.pem", signed.key, "TLS_CERTIFICATE_FILE names .*nothing.pem.*No such file"),
        (signed.certificate, tmp_path, "TLS_KEY_FILE names .*Is a directory"),
        (signed.certificate, other.key, "TLS_KEY_FILE is not the key of the certificate"),
        (broken, signed.key, "must be PEM files"),
        (signed.certificate, locked, "has a passphrase"),
        (signed.certificate, None, "set both, or neither"),
    ):
        settings = ServiceSettings(tls_certificate_file=certificate, tls_key_file=key)
        with pytest.raises(StartupError, match=told):
            HttpServer.of(Echo(), settings)
    for file in (tmp_path / "nothing.pem", broken):
        with pytest.raises(StartupError, match="CA_CERTIFICATES_FILE names"):
            trusted(file)


def test_catalogue_is_read_from_a_discovery_whose_authority_is_trusted(authority: Authority, signed: Signed) -> None:
    class Asked:
        def __init__(self) -> None:
            self.times = 0

        async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
            self.times += 1
            body = b'{"epoch":"e","index":1,"uptime_seconds":1,"lease_seconds":30,"runners":{},"algorithms":{}}'
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    async def scenario() -> None:
        discovery = Asked()
        async with (
            asyncio.timeout(30),
            HttpServer(discovery, "127.0.0.1", 0, certificate=Certificate(*signed)) as server,
        ):
            url = f"https://127.0.0.1:{server.port}"
            async with CatalogueWatch(url) as watch:
                while not watch._backoff.failures:
                    await asyncio.sleep(0.01)
            assert discovery.times == 0
            async with CatalogueWatch(url, tls=trusted(authority.file)) as watch:
                await watch.wait_changed(0)

    asyncio.run(scenario())


def test_probe_of_a_container_knows_a_service_that_speaks_https(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        health = Health()
        app = create_app("Sample", health=health)
        async with HttpServer(app, "127.0.0.1", 0, certificate=Certificate(*signed)) as server:
            port = str(server.port)
            for variables, code in (
                ({"TLS_CERTIFICATE_FILE": str(signed.certificate), "PORT": port}, 0),
                ({"PORT": port}, 1),
            ):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-IS", probe.__file__), env={**os.environ, **variables}
                )
                assert await process.wait() == code

    asyncio.run(scenario())
