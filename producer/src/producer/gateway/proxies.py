"""Behind a reverse proxy: the path that it has the gateway under, and who it says that a request comes from."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.service.addresses import Address, Network, address_of


def read_proxies(text: str) -> list[Network]:
    """Addresses and networks with commas or spaces between them. Raises ValueError with a sentence."""
    try:
        return [ipaddress.ip_network(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"it must be addresses or networks, such as 127.0.0.1,10.1.0.0/16: {error}") from None


def checked_root_path(text: str) -> str:
    """``plugplay/`` becomes ``/plugplay``. Raises ValueError with a sentence."""
    path = f"/{text.strip('/')}" if text.strip("/") else ""
    if any(not ("!" <= character <= "~") or character in '?#%"<>\\' for character in path) or "//" in path:
        raise ValueError("it must be a path such as /plugplay")
    return path


def behind_proxies(app: ASGIApp, root_path: str, trusted: Iterable[Network]) -> ASGIApp:
    """The application as proxies reach it; itself where there are none."""
    networks = tuple(trusted)
    if networks:
        app = _Forwarded(app, networks)
    return _Prefixed(app, root_path) if root_path else app


class _Prefixed:
    """ASGI middleware: paths may begin with the prefix, and what `Location` names does.

    A proxy may have taken it off already, and who comes past the proxy need not know it.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(f"{self._prefix}/"):
            path = scope["path"].removeprefix(self._prefix)
            scope = {**scope, "path": path, "raw_path": scope["raw_path"].removeprefix(self._prefix.encode())}
        host = Headers(scope=scope).get("host", "")

        async def located_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message = {**message, "headers": [self._located(name, value, host) for name, value in headers]}
            await send(message)

        await self._app(scope, receive, located_send)

    def _located(self, name: bytes, value: bytes, host: str) -> tuple[bytes, bytes]:
        if name.lower() != b"location":
            return name, value
        url = urlsplit(value.decode("latin-1"))
        if url.netloc in ("", host):
            url = url._replace(path=self._prefix + url.path)
        return name, url.geturl().encode("latin-1")


class _Forwarded:
    """ASGI middleware: takes the address and the scheme that a trusted proxy tells, from nobody else."""

    def __init__(self, app: ASGIApp, trusted: tuple[Network, ...]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if scope["type"] == "http" and client is not None and self._trusts(_address(client[0])):
            headers = Headers(scope=scope)
            told = [word.strip() for line in headers.getlist("x-forwarded-for") for word in line.split(",")]
            scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
            scope = {**scope, "client": (self._sender(client[0], told), 0)}
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
        await self._app(scope, receive, send)

    def _sender(self, peer: str, told: list[str]) -> str:
        """The nearest one that is no trusted proxy: what stands before that, anybody may have written."""
        sender = peer
        for word in reversed(told):
            address = _address(word)
            if address is None:
                break
            sender = str(address)
            if not self._trusts(address):
                break
        return sender

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _address(text: str) -> Address | None:
    """With or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return address_of(text)
