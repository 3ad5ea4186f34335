import asyncio
import os
import resource
from collections.abc import Callable
from typing import Any

import pytest
from raw_http import LARGE_BYTES, Connection, Served, get, run

from runnerlib.service import connection_limit, http_server
from runnerlib.service.connection_limit import ConnectionLimit
from runnerlib.service.http_protocol import BODY_BYTES, MAX_PIPELINED, BoundedHttpProtocol

POST = b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "body_seconds", 0.2)
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 0.2)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("sent", [0, 1, BODY_BYTES - 1])
def test_a_body_that_stops_is_refused(sent: int) -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        head = POST % (b"/echo", 1_000_000)
        connection.send(head)
        await connection.writer.drain()
        connection.send(b"x" * (sent - len(head) if sent > len(head) else sent))
        assert await connection.refusal() == (408, "request_timeout")

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_a_body_that_comes_fast_enough_may_take_as_long_as_it_takes() -> None:
    parts = 10

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(POST % (b"/echo", parts * BODY_BYTES))
        for _ in range(parts):  # together five times as long as a slow one may take
            connection.send(b"x" * BODY_BYTES)
            await asyncio.sleep(0.1)
        assert (await connection.answer())[2] == ["/echo", parts * BODY_BYTES, 1]

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_a_body_that_the_application_does_not_read_yet_is_not_late() -> None:
    size = 4_000_000

    async def scenario(served: Served) -> None:
        held, late = await served.connect(), await served.connect()
        held.send(POST % (b"/unread", size), b"x" * size)
        await served.app.holding.wait()
        for _ in range(3):
            late.send(POST % (b"/echo", 5))
            assert await late.refusal() == (408, "request_timeout")
            late = await served.connect()
        served.app.release.set()
        assert (await held.answer())[2] == ["/unread", size, 1]

    run(scenario)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("before", [b"", get("/echo")])
def test_a_connection_without_a_request_is_closed(before: bytes) -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        if before:
            connection.send(before)
            assert (await connection.answer())[0] == 200
        assert await connection.reader.read() == b""

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_a_connection_whose_body_ends_after_its_answer_is_closed() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(POST % (b"/early", 5))
        assert (await connection.answer())[0] == 200
        connection.send(b"12345")
        assert await connection.reader.read() == b""

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_an_answer_that_is_read_slowly_is_read_to_its_end() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/large"))
        await connection.reader.readuntil(b"\r\n\r\n")
        for _ in range(32):  # a second in all, five times as long as an idle connection has
            await connection.reader.readexactly(LARGE_BYTES // 32)
            await asyncio.sleep(0.03)
        assert await connection.reader.read() == b""

    run(scenario)


@pytest.mark.usefixtures("short_times")
@pytest.mark.parametrize("head", [get("/large"), get("/large").replace(b"Fill", b"Connection: close\r\nFill")])
def test_an_answer_that_nobody_reads_is_dropped(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, connection_lost = [], BoundedHttpProtocol.connection_lost

    def note(protocol: BoundedHttpProtocol, error: Exception | None) -> None:
        lost.append(protocol)
        connection_lost(protocol, error)

    monkeypatch.setattr(BoundedHttpProtocol, "connection_lost", note)

    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection.send(head)
        assert await until(lambda: lost)

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_requests_before_a_body_that_stops_are_answered() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/first"), get("/held"), POST % (b"/echo", 1000), b"x")
        assert (await connection.answer())[2][0] == "/first"
        await served.app.holding.wait()
        await asyncio.sleep(0.5)  # the body is late by then
        served.app.release.set()
        assert (await connection.answer())[2][0] == "/held"
        assert await connection.reader.read() == b""

    run(scenario)


@pytest.mark.usefixtures("short_times")
def test_a_connection_with_a_request_in_progress_stays_open() -> None:
    async def scenario(served: Served) -> None:
        held, idle = await served.connect(), await served.connect()
        held.send(get("/held"))
        await served.app.holding.wait()
        assert await idle.reader.read() == b""
        served.app.release.set()
        assert (await held.answer())[2][0] == "/held"

    run(scenario)


def test_only_so_many_requests_wait_behind_another() -> None:
    async def scenario(served: Served) -> None:
        connection = await served.connect()
        connection.send(get("/held"), get("/next") * (MAX_PIPELINED + 10))
        await served.app.holding.wait()
        served.app.release.set()
        answers = [(await connection.answer())[2][0] for _ in range(1 + MAX_PIPELINED)]
        assert answers == ["/held"] + ["/next"] * MAX_PIPELINED
        assert await connection.reader.read() == b""

    run(scenario)


def test_connections_without_a_request_make_room_for_new_ones_the_oldest_first() -> None:
    async def scenario(served: Served) -> None:
        begun, idle, held = [await served.connect() for _ in range(3)]
        begun.send(b"GET /")
        began = asyncio.get_running_loop().time()
        assert await until(lambda: asyncio.get_running_loop().time() > began)
        idle.send(get("/echo"))
        assert (await idle.answer())[0] == 200
        held.send(get("/held"))
        await served.app.holding.wait()
        for oldest in (begun, idle):
            newest = await served.connect()
            newest.send(get("/held"))
            assert await oldest.reader.read() == b""
        served.app.release.set()
        assert (await held.answer())[0] == 200

    run(scenario, max_connections=3)


def test_connection_that_had_a_request_stays_while_there_are_some_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runnerlib.service.connection_limit.GRACE_SECONDS", -1.0)

    async def scenario(served: Served) -> None:
        used = await served.connect()
        used.send(get("/echo"))
        assert (await used.answer())[0] == 200
        others = []
        for _ in range(20):
            others.append(await served.connect())
            others[-1].send(b"GET /")
        assert await until(lambda: sum(connection.reader.at_eof() for connection in others) == len(others) - 2)
        used.send(get("/echo"))
        assert (await used.answer())[0] == 200

    run(scenario, max_connections=3)


def test_new_connection_is_not_closed_for_the_next_one() -> None:
    async def scenario(served: Served) -> None:
        idle = [await served.connect() for _ in range(3)]
        for connection in idle:
            began = asyncio.get_running_loop().time()
            assert await until(lambda began=began: asyncio.get_running_loop().time() > began + 0.002)
            connection.send(get("/echo"))
            assert (await connection.answer())[0] == 200
        new = await served.connect()
        new.send(get("/echo")[:-1])
        assert await idle[0].reader.read() == b"", "the one that is idle for longest"
        another = await served.connect()
        another.send(get("/echo")[:-1])
        assert await idle[1].reader.read() == b""
        for connection in (new, another):
            connection.send(b"\n")
            assert (await connection.answer())[0] == 200

    run(scenario, max_connections=3)


def test_beyond_the_limit_only_health_checks_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(served: Served) -> None:
        held = [await served.connect() for _ in range(2)]
        for connection in held:
            connection.send(get("/held"))
        assert await until(lambda: served.app.held == 2)
        for path, status in (("/healthz/live", 200), ("/echo", 503)) * 2:
            connection = await served.connect()
            connection.send(get(path))
            answer = await connection.answer()
            assert answer[0] == status
        assert (answer[1]["retry-after"], answer[2]["code"]) == ("1", "overloaded")
        assert await connection.reader.read() == b""
        served.app.release.set()
        assert [(await connection.answer())[0] for connection in held] == [200, 200]
        status = 503
        while status == 503:  # until it gets the place of an idle one
            again = await served.connect()
            again.send(get("/echo"))
            status = (await again.answer())[0]
        assert status == 200

    run(scenario, max_connections=2)
    assert "".join(capsys.readouterr()).count("runs out of connections") == 1


def test_connections_far_beyond_the_limit_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limit, "SPARE_CONNECTIONS", 1)

    async def scenario(served: Served) -> None:
        held = await served.connect()
        held.send(get("/held"))
        await served.app.holding.wait()
        spare = await served.connect()
        spare.send(get("/healthz/held"))
        assert await until(lambda: served.app.held == 2)
        cut = await served.connect()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            cut.send(get("/echo"))
            await cut.answer()

    run(scenario, max_connections=1)


def test_the_last_file_descriptors_are_told_and_kept_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    used = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario(served: Served) -> None:
        clients: list[Connection] = []
        for _ in range(60):  # each takes two descriptors of this process
            clients.append(await served.connect())
            clients[-1].send(get("/echo"))
            assert (await clients[-1].answer())[0] == 200
            while clients[0].reader.at_eof():
                clients.pop(0).writer.transport.abort()
        os.close(os.open("/dev/null", os.O_RDONLY))

    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard))
    try:
        run(scenario, max_connections=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "".join(capsys.readouterr()).count("runs out of file descriptors") == 1


def test_a_process_may_have_as_many_connections_as_its_files_allow_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        assert (ConnectionLimit().most, ConnectionLimit().most_silent) == (200, 100)
        assert (ConnectionLimit(7).most, ConnectionLimit(7).most_silent) == (7, 28)
        assert (ConnectionLimit(400).most, ConnectionLimit(400).most_silent) == (400, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until(condition: Callable[[], Any], seconds: float = 10) -> bool:
    ends_at = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < ends_at:
        await asyncio.sleep(0.01)
    return bool(condition())
