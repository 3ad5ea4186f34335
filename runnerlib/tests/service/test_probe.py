"""The health check of a container, asked of a small server."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from runnerlib.service.probe import main

READY = b"HTTP/1.0 200 OK\r\n\r\n{}"
LOADING = b'HTTP/1.0 503 X\r\n\r\n{"ready":false,"reasons":{"worker processes of a":"loading"}}'
PARTLY = b'HTTP/1.0 503 X\r\n\r\n{"reasons":{"worker processes of a":"no \\"loading\\" here","b":"loading"}}'
FAILED = b'HTTP/1.0 503 X\r\n\r\n{"reasons":{"worker processes of a":"load_m() failed: no \\"loading\\" file"}}'

Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Gives these answers one after the other, the last one for ever; returns its port."""
    servers: list[socket.socket] = []

    def start(*answers: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def work() -> None:
            left = list(answers)
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        threading.Thread(target=work, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_what_loads_is_waited_for_and_what_cannot_load_is_known_at_once(serve: Serve) -> None:
    assert main(serve(READY)) == 0
    assert main(serve(LOADING, LOADING, READY), pause_seconds=0.01) == 0
    assert main(serve(LOADING, PARTLY, FAILED), pause_seconds=0.01) == 1
    assert main(serve(FAILED)) == 1
    assert main(serve(b"")) == 1


def test_waiting_for_what_loads_or_does_not_listen_yet_has_an_end(serve: Serve) -> None:
    assert main(serve(LOADING), most_seconds=0.05, pause_seconds=0.01) == 1
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert main(closed.getsockname()[1], most_seconds=0.05, pause_seconds=0.01) == 1
