"""Somebody with a server of his own, where tasks would arrive if an attack worked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import requests


class _Server:
    """`host` is where it listens while `listening` is entered."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(address, handler)
        self.host = "{}:{}".format(*self.server.server_address)

    @contextmanager
    def listening(self) -> Iterator[Self]:
        Thread(target=self.server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


class Mallory(_Server):
    """Answers each run of a batch with what `tells` says; `calls` are the paths that he was asked for."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.calls: list[str] = []
        self.tells: dict[str, Any] = {"state": "succeeded", "result": "stolen"}
        super().__init__((address, port), _handler(self))

    def registration(self, name: str, /, *algorithms: str, **parts: Any) -> dict[str, Any]:
        offered = [{"name": algorithm} for algorithm in algorithms]
        return {"name": name, "host": self.host, "boot": "mallory", "algorithms": offered} | parts


def _handler(mallory: Mallory) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            mallory.calls.append(self.path)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = [{"id": each["id"], "attempt": each["attempt"], **mallory.tells} for each in asked]
            self._tell(json.dumps(told).encode())

        def do_DELETE(self) -> None:
            mallory.calls.append(self.path)
            self._tell(b"{}")

        def _tell(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Not a word."""

    return Handler


class RecordingProxy(_Server):
    """Between a runner and discovery: passes everything on, and keeps what it could send again."""

    def __init__(self, target: str) -> None:
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _recorder(target, self.sent))
        self.url = f"http://{self.host}"


def _recorder(target: str, sent: list[tuple[str, str, dict[str, str], bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = ("Authorization", "Content-Type")
            headers = {name: value for name, value in self.headers.items() if name in kept}
            sent.append((self.command, self.path, headers, body))
            answer = requests.request(self.command, target + self.path, data=body, headers=headers, timeout=20)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_DELETE = do_PUT

        def log_message(self, *_: Any) -> None:
            """Not a word."""

    return Handler
