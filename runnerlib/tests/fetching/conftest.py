"""Real HTTP servers on loopback that count who comes, and fetches that may go there."""

import contextlib
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.fetch import Fetch

MEBIBYTE = 1024 * 1024


class Answers(BaseHTTPRequestHandler):
    """What the path says: /status/404, /to/<address>, /bytes/100, and the rest below."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.hits.append(self.path)
        self.server.headers.append(dict(self.headers))
        word, _, rest = self.path[1:].partition("/")
        with contextlib.suppress(OSError):  # who has heard enough hangs up
            getattr(self, f"_{word.partition('?')[0]}")(rest)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        return None

    def _head(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _bytes(self, count: str) -> None:
        count = count.partition("?")[0]
        self._head(Content_Length=count, Content_Type="Image/PNG; charset=x")
        self.wfile.write(b"x" * int(count))

    def _status(self, status: str) -> None:
        self._head(int(status.partition("?")[0]), Content_Length="0")

    def _to(self, location: str) -> None:
        self._head(302, Location=location, Content_Length="0")

    def _loop(self, _: str) -> None:
        self._head(302, Location="/loop", Content_Length="0")

    def _hops(self, left: str) -> None:
        if left == "0":
            self._bytes("3")
        else:
            self._head(302, Location=f"{int(left) - 1}", Content_Length="0")

    def _stream(self, mebibytes: str) -> None:
        """Without a length, so that only counting helps."""
        self._head(Content_Type="image/png")
        for _ in range(int(mebibytes) * 16):
            self.wfile.write(b"x" * (MEBIBYTE // 16))
            self.server.sent += MEBIBYTE // 16

    def _chunked(self, parts: str) -> None:
        self._head(Transfer_Encoding="chunked", Content_Type="text/plain")
        for part in parts.split("/"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part.encode()))
        self.wfile.write(b"0\r\n\r\n")

    def _claims(self, length: str) -> None:
        """A length that does not come."""
        self._head(Content_Length=length)
        self.wfile.write(b"abc")

    def _bomb(self, _: str) -> None:
        self._head(Content_Encoding="gzip", Content_Type="image/png")
        self.wfile.write(gzip.compress(bytes(64 * MEBIBYTE)))

    def _drip(self, _: str) -> None:
        self._head(Content_Type="image/png")
        self._drop_by_drop()

    def _driphead(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drop_by_drop()

    def _drop_by_drop(self) -> None:
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"x")

    def _silent(self, _: str) -> None:
        self.server.closing.wait(30)

    def _typeless(self, _: str) -> None:
        self._head(Content_Length="2")
        self.wfile.write(b"ab")

    def _rubbish(self, _: str) -> None:
        self.wfile.write(b"SSH-2.0-nothing\r\n\r\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hits: list[str]
    headers: list[dict[str, str]]

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.hits, self.headers, self.sent = [], [], 0
        self.closing = threading.Event()
        if ":" in host:
            self.address_family = 10
        super().__init__((host, port), Answers)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def handle_error(self, *_: Any) -> None:
        return None


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts a server; all are stopped at the end."""
    started: list[Server] = []

    def start(*arguments: Any, **named: Any) -> Server:
        server = Server(*arguments, **named)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    yield start
    for server in started:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def fetch() -> Fetch:
    """May go to loopback; no test waits long for what does not come."""
    return Fetch(FetchRules(allow_private="127.0.0.0/8,::1", timeout_seconds=10))


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Names lead to these addresses: the first look-up to the first list, and so on; the last list stays."""

    def set_up(*turns: list[str]) -> list[str]:
        asked: list[str] = []

        def look_up(host: bytes, port: int, **_: Any) -> list[Any]:
            asked.append(host.decode())
            addresses = turns[min(len(asked), len(turns)) - 1]
            return [(10 if ":" in one else 2, 1, 6, "", (one, port)) for one in addresses]

        monkeypatch.setattr("runnerlib.fetching.fetch.socket.getaddrinfo", look_up)
        return asked

    return set_up
