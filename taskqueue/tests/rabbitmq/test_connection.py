"""A connection that is made again, on real brokers that are cut off, killed and frozen."""

import asyncio
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from servers.processes import free_port
from servers.rabbitmq import installations

from taskqueue.errors import QueueClosed, QueueUnavailable
from taskqueue.rabbitmq.address import parse_queue_url
from taskqueue.rabbitmq.channel import Channel
from taskqueue.rabbitmq.connection import RobustConnection


def _other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _sockets() -> list[str]:
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if link.is_symlink() and "socket" in os.readlink(link))


async def _closes(channel: Channel, seconds: float) -> bool:
    try:
        await asyncio.wait_for(channel.closed.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _usable(connection: RobustConnection) -> None:
    """A channel can be opened and answers."""
    channel = await connection.channel(timeout_seconds=60)
    await channel.declare_queue("numbers", arguments={"x-queue-type": "quorum"})
    await channel.close()


def test_it_connects_tells_so_and_leaves_nothing_behind(
    run: Any, broker: Any, open_connection: Any, reports: Any
) -> None:
    async def scenario() -> None:
        before = _sockets(), _other_tasks()
        async with open_connection(broker.url) as connection:
            channel = await connection.channel()
            await _usable(connection)
            assert [ready for _, ready, _ in reports.all] == [False, True]
            assert reports.all[-1] == ("test", True, "")
            assert (connection.epoch, connection.trouble) == (1, "")
        await connection.close()

        assert channel.closed.is_set()
        assert (_sockets(), _other_tasks()) == before
        with pytest.raises(QueueClosed):
            await connection.channel()

    run(scenario())


def test_the_broker_may_come_later(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any, reports: Any, within: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url, start=False) as (proxy, url), open_connection(url, wait=False) as connection:
            await within(lambda: "refused" in reports.reason)
            with pytest.raises(QueueUnavailable) as error:
                await connection.channel(timeout_seconds=0.2)
            assert str(error.value) == connection.trouble
            assert urlsplit(url).password not in str(error.value)
            waiting = asyncio.create_task(connection.channel(timeout_seconds=30))
            await proxy.start()
            assert (await waiting).is_open
            assert reports.ready

    run(scenario())


def test_who_waits_for_a_channel_learns_of_the_end(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url, start=False) as (_, url), open_connection(url, wait=False) as connection:
            waiting = asyncio.create_task(connection.channel(timeout_seconds=30))
            await asyncio.sleep(0)
            await connection.close()
            with pytest.raises(QueueClosed):
                await waiting

    run(scenario())


@pytest.mark.parametrize("how", ["closed by an operator", "reset"])
def test_a_lost_connection_is_made_again_without_a_stack_trace(
    how: str,
    run: Any,
    broker: Any,
    open_connection: Any,
    open_proxy: Any,
    within: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    def listed() -> bool:
        return any(each.get("vhost") == broker.vhost for each in broker.management("GET", "connections"))

    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            channel = await connection.channel()
            if how == "reset":
                proxy.reset()
            else:
                while not await asyncio.to_thread(listed):
                    await asyncio.sleep(0.1)
                assert await asyncio.to_thread(broker.close_connections) == 1
            await asyncio.wait_for(channel.closed.wait(), 10)
            await within(lambda: connection.epoch == 2)
            await _usable(connection)

            assert channel.close_reason

    run(scenario())
    assert not any(record.exc_info for record in caplog.records)
    assert not any(record.name.startswith("pika") for record in caplog.records)
    assert sum("No connection to the broker" in record.message for record in caplog.records) == 1


def test_it_outlives_a_broker_that_is_killed(run: Any, own_broker: Any, open_connection: Any, reports: Any) -> None:
    server = own_broker()

    async def scenario() -> None:
        async with open_connection(server.url) as connection:
            await _usable(connection)
            await asyncio.to_thread(server.kill)
            async with asyncio.timeout(10):
                while reports.ready:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            await _usable(connection)

            assert reports.ready
            assert connection.epoch >= 2

    run(scenario())


@pytest.mark.serial
def test_a_frozen_broker_is_noticed_within_two_heartbeats_and_back_after_it_thaws(
    run: Any, broker: Any, open_connection: Any, reports: Any, within: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(f"{broker.url}?heartbeat=2", connect_seconds=1.0) as connection:
            channel = await connection.channel()
            assert not await _closes(channel, 3.5), "an idle connection must stay"
            broker.server.pause()
            try:
                assert await within(lambda: not reports.ready) <= 4.0
                assert channel.closed.is_set()
                assert "silent" in reports.reason
                # It accepts connections now, and says nothing.
                await within(lambda: "no answer within 1 s" in reports.reason)
            finally:
                broker.server.resume()
            await _usable(connection)
            assert reports.ready

    run(scenario())


@pytest.mark.serial
def test_a_process_that_stood_still_does_not_blame_the_broker(
    run: Any, broker: Any, open_connection: Any, reports: Any
) -> None:
    """It stood still for longer than the watchdog waits; what the broker sent lies there unread."""

    async def scenario() -> None:
        async with open_connection(f"{broker.url}?heartbeat=1") as connection:
            channel = await connection.channel()
            time.sleep(1.7)
            assert not await _closes(channel, 0.6)
            assert connection.epoch == 1
            assert reports.ready

    run(scenario())


@pytest.mark.serial
def test_closing_does_not_wait_for_a_frozen_broker(
    run: Any, broker: Any, open_connection: Any, open_proxy: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url):
            before = _other_tasks()
            async with open_connection(url) as connection:
                before |= _other_tasks()
                proxy.freeze()
                begin = time.monotonic()
                await connection.close()
                assert time.monotonic() - begin < 3.5
                assert not {task for task in _other_tasks() - before if not task.done()}
                assert not any("connection" in task.get_name() for task in _other_tasks())

    run(scenario())


@pytest.mark.parametrize("frozen", [False, True])
def test_closing_while_it_connects_leaves_nothing_behind(
    frozen: bool, run: Any, broker: Any, open_connection: Any, open_proxy: Any
) -> None:
    async def scenario() -> None:
        async with open_proxy(broker.url) as (proxy, url):
            if frozen:
                proxy.freeze()
            for turns in range(0, 40, 3):
                async with open_connection(url, wait=False) as connection:
                    for _ in range(turns):
                        await asyncio.sleep(0.001)
                assert connection.trouble
                assert not any("connection" in task.get_name() for task in _other_tasks())

    run(scenario())


def test_a_dead_host_is_passed_over(run: Any, broker: Any, open_connection: Any, open_proxy: Any) -> None:
    parts = urlsplit(broker.url)

    async def scenario() -> None:
        async with open_proxy(broker.url, start=False) as (dead, _):
            hosts = f"127.0.0.1:{dead.port},127.0.0.1:{parts.port}"
            url = f"amqp://{parts.username}:{parts.password}@{hosts}{parts.path}"
            for _ in range(6):
                async with open_connection(url) as connection:
                    await _usable(connection)

    run(scenario())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda parts: f"amqp://{parts.username}:wrong@{parts.netloc.rpartition('@')[2]}{parts.path}", "password"),
        (lambda parts: f"amqp://{parts.netloc}/nowhere", "virtual host"),
        (lambda parts: f"amqp://{parts.username}:x@name.invalid:5672/", "name.invalid"),
    ],
)
def test_what_is_wrong_with_the_address_is_said(
    change: Any, says: str, run: Any, broker: Any, open_connection: Any, reports: Any, within: Any
) -> None:
    async def scenario() -> None:
        async with open_connection(change(urlsplit(broker.url)), wait=False, connect_seconds=10.0):
            await within(lambda: len(reports.all) > 1, 15)
            assert says in reports.reason
            assert not reports.ready

    run(scenario())


def test_it_runs_on_uvloop_too(broker: Any, open_connection: Any, within: Any, open_proxy: Any) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(60), open_proxy(broker.url) as (proxy, url), open_connection(url) as connection:
            await _usable(connection)
            proxy.reset()
            await within(lambda: connection.epoch == 2)
            await _usable(connection)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def certificates(broker_version: str) -> Iterator[tuple[Path, str]]:
    """A folder with an authority (ca.pem) and a server's certificate for 127.0.0.1, and what the broker calls it.

    A broker that lives in a root folder of its own sees only what lies in there.
    """
    found = installations()
    root = found[broker_version].root if broker_version in found else ""
    with tempfile.TemporaryDirectory(prefix="tls-", dir=f"{root}/tmp") as name:
        folder = Path(name)
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        new = ("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        _openssl(folder, *new, "-x509", "-days", "2", "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.pem")
        _openssl(folder, *new, "-subj", "/CN=broker", "-keyout", "key.pem", "-out", "request.pem")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        _openssl(folder, "x509", "-req", "-in", "request.pem", *signed, "-out", "cert.pem")
        yield folder, name.removeprefix(root)


def test_tls_is_spoken_and_the_certificate_checked(
    run: Any, own_broker: Any, certificates: tuple[Path, str], open_connection: Any, reports: Any, within: Any
) -> None:
    folder, inside = certificates
    port = free_port()
    files = {"cacertfile": "ca.pem", "certfile": "cert.pem", "keyfile": "key.pem"}
    server = own_broker(
        {"listeners.ssl.1": f"127.0.0.1:{port}"}
        | {f"ssl_options.{option}": f"{inside}/{file}" for option, file in files.items()}
    )
    url = f"amqps://{server.user}:{server.password}@127.0.0.1:{port}/"

    async def scenario() -> None:
        async with open_connection(f"{url}?cafile={folder / 'ca.pem'}") as connection:
            await _usable(connection)
        async with open_connection(f"{url}?verify=no") as connection:
            await _usable(connection)
        async with open_connection(url, wait=False):
            await within(lambda: "not trusted" in reports.reason)
        async with open_connection(url.replace("amqps:", "amqp:"), wait=False):
            await within(lambda: "expects TLS" in reports.reason or "no answer" in reports.reason)
        async with open_connection(url.replace(str(port), str(server.port)), wait=False):
            await within(lambda: "TLS does not work" in reports.reason)

    run(scenario())


def test_that_nobody_is_there_is_no_crash(run: Any) -> None:
    async def scenario() -> None:
        async with RobustConnection(parse_queue_url("amqp://127.0.0.1:1"), "test") as connection:
            with pytest.raises(QueueUnavailable):
                await connection.channel(timeout_seconds=0.3)

    run(scenario())
