"""An HTTP server as a component: it listens when entered and stops in bounded time when left."""

import asyncio
import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnerlib.service.acceptor import Acceptor
from runnerlib.service.component import Component
from runnerlib.service.connection_limit import ConnectionLimit
from runnerlib.service.http_guard import DEFAULT_HEADERS, Guard, add_page_headers
from runnerlib.service.http_protocol import BoundedHttpProtocol
from runnerlib.service.lifecycle import StartupError, background
from runnerlib.service.problems import problem_response
from runnerlib.service.settings import ServiceSettings
from runnerlib.service.tls import Certificate, shake_hands

#: How long requests in progress may take after the stop began; held long polls are then answered 503.
DRAIN_SECONDS = 1.0
#: uvicorn's own bound for closing what remains.
CLOSE_SECONDS = 1
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048


class PortTaken(StartupError):
    """The port is used by another process."""


class HttpServer(Component):
    """Serves an ASGI application; ``async with HttpServer(app, host, port) as server: server.port``.

    `setting` is the variable that the operator would change when the port is taken. `allowed_hosts` are as for
    :class:`Guard`, `max_connections` as for :class:`ConnectionLimit`. With a `certificate` it speaks HTTPS alone.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        setting: str = "PORT",
        allowed_hosts: Iterable[str] = (),
        max_connections: int = 0,
        certificate: Certificate | None = None,
    ) -> None:
        self._requests = _Requests(Guard(app, host, allowed_hosts))
        self._limit = ConnectionLimit(max_connections)
        self._host = host
        self._wanted_port = port
        self._setting = setting
        self._certificate = certificate
        self.port = port

    @classmethod
    def of(cls, app: ASGIApp, settings: ServiceSettings, *, setting: str = "PORT") -> "HttpServer":
        """As the operator of a service wants it. Raises StartupError where it would be open to everybody."""
        if settings.unprotected is not None:
            raise StartupError(settings.unprotected)
        return cls(
            app,
            settings.host,
            settings.port,
            setting=setting,
            allowed_hosts=settings.host_names,
            max_connections=settings.max_connections,
            certificate=Certificate.of(settings.tls_certificate_file, settings.tls_key_file),
        )

    async def _start(self, stack: AsyncExitStack) -> None:
        protocol: Any = partial(BoundedHttpProtocol, self._limit)
        listener = await _bind(self._host, self._wanted_port, self._setting)
        self.port = listener.getsockname()[1]
        server = _Server(
            uvicorn.Config(
                self._requests,
                http=protocol,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                proxy_headers=False,
                server_header=False,
                headers=DEFAULT_HEADERS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        stack.callback(listener.close)
        task = background(stack, server.serve(sockets=[]), f"HTTP server on port {self.port}")
        stack.push_async_callback(self._stop, server, task)
        await _listening(server, task)
        if self._certificate is not None:
            background(stack, self._certificate.follow(), "certificate")
        let_in = partial(self._let_in, server)
        await stack.enter_async_context(Acceptor(listener, let_in, self._limit, KEEP_ALIVE_SECONDS))

    async def _let_in(self, server: "_Server", connection: socket.socket) -> None:
        protocol: Any = server.config.http_protocol_class
        make_protocol = partial(protocol, config=server.config, server_state=server.server_state, app_state={})
        if self._certificate is None:
            await asyncio.get_running_loop().connect_accepted_socket(make_protocol, connection)
        else:
            connections: Any = server.server_state.connections
            await shake_hands(connection, self._certificate.context, make_protocol, self._limit, connections)

    async def _stop(self, server: "_Server", task: "asyncio.Task[None]") -> None:
        server.should_exit = True
        await self._requests.drain(DRAIN_SECONDS)
        await asyncio.wait([task], timeout=2 * CLOSE_SECONDS)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and sockets (ours decide), and with an event for when it can serve."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set_result(None)


class _Requests:
    """Keeps track of the requests in progress, so that a stop need not wait for a client that holds one open."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                add_page_headers(message)
            await send(message)

        try:
            await self._guard.answer(scope)(scope, receive, watched_send)
        except asyncio.CancelledError:
            if started or not self._stopping:
                raise
            headers = {"Connection": "close", "Retry-After": "1"}
            await problem_response(503, "stopping", "This process is stopping; ask again.", headers)(
                scope, receive, send
            )
        finally:
            self._running.discard(task)

    async def drain(self, seconds: float) -> None:
        """Waits for the requests in progress, then answers 503 to the others."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)
        self._stopping = True
        for task in self._running:
            task.cancel()


async def _listening(server: _Server, task: "asyncio.Task[None]") -> None:
    either: list[asyncio.Future[None]] = [server.listening, task]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not server.listening.done():
        task.result()
        raise RuntimeError("the HTTP server ended before it listened")


async def _bind(host: str, port: int, setting: str) -> socket.socket:
    try:
        addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartupError(f"host {host!r} cannot be resolved ({error.strerror}); set HOST to an address") from None
    family, kind, protocol, _, address = addresses[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, host, port, setting) from None
    listener.setblocking(False)
    return listener


def _cannot_listen(error: OSError, host: str, port: int, setting: str) -> StartupError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {port} on {host} is used by another process; stop that one, or set {setting} to a free port"
        )
    if error.errno == errno.EACCES:
        return StartupError(f"port {port} needs more rights than this user has; set {setting} to a port above 1023")
    return StartupError(
        f"cannot listen on {host} port {port} ({error.strerror}); set HOST to an address of this machine"
    )
