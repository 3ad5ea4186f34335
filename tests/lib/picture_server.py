"""Serves pictures, and what only says it is one, to runners under test; counts who asked."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_CHUNK = bytes(1024 * 1024)


@dataclass
class PictureServer:
    """``with PictureServer() as server: server.add("a.jpg", content)``; `asked` are the paths that were asked for."""

    host: str = "127.0.0.1"
    asked: list[str] = field(default_factory=list)
    _files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _redirects: dict[str, str] = field(default_factory=dict)
    _endless: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "PictureServer":
        self._server = _Server((self.host, 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, name: str) -> str:
        return f"http://{self.host}:{self._server.server_address[1]}/{name}"

    def add(self, name: str, content: bytes, content_type: str = "image/jpeg") -> str:
        """A file; gives its URL."""
        self._files[f"/{name}"] = (content_type, content)
        return self.url(name)

    def add_redirect(self, name: str, target: str) -> str:
        self._redirects[f"/{name}"] = target
        return self.url(name)

    def add_stream(self, name: str, megabytes: int) -> str:
        """So many megabytes of zeros, whose number the answer's head does not tell."""
        self._endless[f"/{name}"] = megabytes
        return self.url(name)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        if target := self._redirects.get(request.path):
            _head(request, 302, {"Location": target})
        elif megabytes := self._endless.get(request.path):
            _head(request, 200, {"Content-Type": "image/jpeg"})
            for _ in range(megabytes):
                request.wfile.write(_CHUNK)
        elif found := self._files.get(request.path):
            content_type, content = found
            _head(request, 200, {"Content-Type": content_type, "Content-Length": str(len(content))})
            request.wfile.write(content)
        else:
            _head(request, 404, {"Content-Type": "text/html"})
            request.wfile.write(b"<html>There is nothing here.</html>")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Eight downloads at a time for each slot, and no second of waiting for one that did not fit.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: PictureServer) -> None:
        super().__init__(address, _Handler)
        self.owner = owner

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, as it should from a body that is too large."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.owner.answer(self)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _head(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
