import asyncio
import os
import resource
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import uvloop
from raw_http import Connection, Served, get, run

from runnerlib.service import acceptor, http_server
from runnerlib.service.acceptor import Acceptor
from runnerlib.service.connection_limit import ConnectionLimit

LOOPS = pytest.mark.parametrize("start", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def is_served(connection: Connection) -> bool:
    connection.send(get("/echo"))
    return bool((await connection.answer())[0] == 200)


@LOOPS
def test_silent_connections_take_no_place_and_are_let_in_when_they_speak(start: Callable[..., Any]) -> None:
    async def scenario(served: Served) -> None:
        silent = [await served.connect() for _ in range(4)]
        for connection in silent:
            assert await is_served(connection)
        held = await served.connect()
        held.send(get("/held"))
        await served.app.holding.wait()
        assert silent[0].reader.at_eof()
        served.app.release.set()
        assert (await held.answer())[0] == 200

    run(scenario, start=start, max_connections=2)


@LOOPS
def test_the_oldest_silent_one_makes_room_for_another(start: Callable[..., Any]) -> None:
    most = ConnectionLimit(2).most_silent

    async def scenario(served: Served) -> None:
        silent = [await served.connect() for _ in range(most + 3)]
        for connection in silent[:3]:
            assert await connection.reader.read() == b""
        assert not any(connection.reader.at_eof() for connection in silent[3:])
        assert await is_served(silent[3])

    run(scenario, start=start, max_connections=2)


@LOOPS
def test_silent_connections_are_closed_after_a_time(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 0.2)

    async def scenario(served: Served) -> None:
        silent = [await served.connect() for _ in range(2)]
        for connection in silent:
            assert await connection.reader.read() == b""

    run(scenario, start=start)


@LOOPS
def test_silent_connections_that_end_take_no_place(
    start: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(served: Served) -> None:
        kept = await served.connect()
        assert await is_served(kept)
        for end in ("write_eof", "abort"):
            silent = [await served.connect() for _ in range(8)]
            for connection in silent:
                getattr(connection.writer.transport, end)()
            if end == "write_eof":
                for connection in silent:
                    assert await connection.reader.read() == b""
            assert await is_served(kept)

    run(scenario, start=start, max_connections=2)
    assert "runs out of" not in "".join(capsys.readouterr())


OPEN_MANY = """
import socket, sys
connections = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(60)]
print("open", flush=True)
sys.stdin.read()
"""


def test_silent_connections_leave_descriptors_for_others(capsys: pytest.CaptureFixture[str]) -> None:
    used = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario(served: Served) -> None:
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        crowd = await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN_MANY, str(served.port), **pipes)
        assert crowd.stdin is not None and crowd.stdout is not None
        assert await crowd.stdout.readline() == b"open\n"
        connection = await served.connect()
        assert await is_served(connection)
        os.close(os.open("/dev/null", os.O_RDONLY))
        crowd.stdin.close()
        assert await crowd.wait() == 0

    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, hard))
    try:
        run(scenario, max_connections=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "".join(capsys.readouterr()).count("runs out of file descriptors") == 1


class Troubled(socket.socket):
    """A listening socket that cannot take connections for a while."""

    trouble = 0

    def accept(self) -> Any:
        if self.trouble:
            self.trouble -= 1
            raise OSError(24, "Too many open files")
        return super().accept()


@LOOPS
def test_connections_that_cannot_be_taken_wait_until_silent_ones_have_made_room(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acceptor, "ACCEPT_AGAIN_SECONDS", 0.01)

    async def main() -> None:
        entered: list[bytes] = []
        closed = asyncio.Event()

        async def let_in(connection: socket.socket) -> None:
            entered.append(await asyncio.get_running_loop().sock_recv(connection, 100))
            if entered[-1] == b"a stranger":
                raise ConnectionResetError
            closed.set()
            connection.close()

        listener = Troubled()
        listener.setblocking(False)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with Acceptor(listener, let_in, ConnectionLimit(), 75) as accepts:
            silent = Connection(*await asyncio.open_connection(*listener.getsockname()))
            await until(lambda: accepts._silent)
            listener.trouble = 2
            for said in (b"a stranger", b"a friend"):
                client = Connection(*await asyncio.open_connection(*listener.getsockname()))
                client.send(said)
                assert await client.reader.read() == b""
            assert entered == [b"a stranger", b"a friend"] and closed.is_set()
            assert await silent.reader.read() == b"", "it made room"

    start(main())
    assert "".join(capsys.readouterr()).count("a connection could not be taken") == 2


@LOOPS
def test_nobody_is_let_in_after_the_stop(start: Callable[..., Any]) -> None:
    async def main() -> None:
        entering = asyncio.Event()

        async def let_in(connection: socket.socket) -> None:
            entering.set()
            await asyncio.Event().wait()

        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        connect = partial(asyncio.open_connection, *listener.getsockname())
        async with Acceptor(listener, let_in, ConnectionLimit(), 75):
            silent, speaks = Connection(*await connect()), Connection(*await connect())
            speaks.send(b"x")
            await entering.wait()
        for connection in (silent, speaks):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await connection.reader.readexactly(1)
        with pytest.raises(ConnectionRefusedError):
            await connect()

    start(main())
