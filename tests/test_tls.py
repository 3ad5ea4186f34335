"""The environment with every service behind HTTPS, signed by an authority that only its own know."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from environments import Environment, Service, until

from producer import AsyncTaskClient, TaskClient
from producer.errors import GatewayUnreachable

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def environment(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    signed = authority.sign("environment", "127.0.0.1")
    tls = {
        "TLS_CERTIFICATE_FILE": str(signed.certificate),
        "TLS_KEY_FILE": str(signed.key),
        "CA_CERTIFICATES_FILE": str(authority.file),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Service, "url", property(lambda service: f"https://127.0.0.1:{service.port}"))
        patched.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        started = Environment(tmp_path_factory.mktemp("environment"), core_settings=tls)
        started.discovery.settings.update(tls)
        runner = started.runner("steady", **tls)
        try:
            for service in (started.discovery, started.core, runner):
                service.start(ready=False)
            for service in (started.discovery, started.core, runner):
                service.wait_ready()
            started.wait_offered(runner)
            yield started
        finally:
            started.stop()


def test_tasks_go_from_the_sender_to_the_runner_by_https(environment: Environment, authority: Authority) -> None:
    assert environment.core.url.startswith("https://")
    with TaskClient(environment.core.url, ca_file=str(authority.file)) as client:
        assert client.result(client.submit("square", {"number": 6}), timeout_seconds=60) == 36

    async def send() -> int:
        async with AsyncTaskClient(environment.core.url, ca_file=str(authority.file)) as client:
            return await client.result(await client.submit("square", {"number": 3}), timeout_seconds=60)

    assert asyncio.run(send()) == 9


def test_command_takes_the_authority_from_its_variable(environment: Environment, authority: Authority) -> None:
    command = [sys.executable, "-m", "producer", "send", "square", '{"number": 5}', "--wait"]
    variables = {"PATH": os.environ["PATH"], "GATEWAY_URL": environment.core.url}
    for more, code in (({"CA_CERTIFICATES_FILE": str(authority.file)}, 0), ({}, 4)):
        done = subprocess.run(command, env=variables | more, capture_output=True, text=True, timeout=90)
        assert done.returncode == code, done.stderr
        assert done.stdout.strip() == ("25" if code == 0 else "")
        assert code == 0 or "cannot be trusted: unable to get local issuer certificate" in done.stderr


def test_sender_that_knows_another_authority_says_so(environment: Environment, tmp_path: Path) -> None:
    other = str(Authority(tmp_path).file)
    with TaskClient(environment.core.url, ca_file=other) as client, pytest.raises(GatewayUnreachable, match="trusted"):
        client.get("any")

    async def send() -> None:
        async with AsyncTaskClient(environment.core.url, ca_file=other) as client:
            await client.get("any")

    with pytest.raises(GatewayUnreachable, match="trusted"):
        asyncio.run(send())
    with pytest.raises(ValueError, match="has no certificates"):
        TaskClient(environment.core.url, ca_file=str(tmp_path / "nothing"))


def test_runner_that_knows_another_authority_does_not_register(environment: Environment, tmp_path: Path) -> None:
    runner = environment.runner("steady", "stranger", CA_CERTIFICATES_FILE=str(Authority(tmp_path).file))
    runner.start(ready=False)
    until(lambda: "CERTIFICATE_VERIFY_FAILED" in runner.log.read_text(), "it says why it cannot register")
    runner.stop()
