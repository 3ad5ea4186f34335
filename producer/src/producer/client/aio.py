"""The client for asyncio: ``async with AsyncTaskClient("http://127.0.0.1:8000") as client``."""

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import aiohttp

from producer.client import steps
from producer.client.calls import Calls
from producer.client.client import broker_sender, no_gateway
from producer.client.steps import Call
from producer.client.transport import CONNECT_SECONDS, READ_SECONDS, Endpoint, TryAgain

P = ParamSpec("P")
T = TypeVar("T")

#: At once; below what a process may have open by default.
_MAX_CONNECTIONS = 500
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)


def awaited(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate["AsyncTaskClient", P], Coroutine[Any, Any, T]]:
    """A client's method that performs the call and returns its outcome."""

    @steps.documented_by(call)
    async def method(self: "AsyncTaskClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await steps.outcome_of_async(call(self._calls, *args, **kwargs), self._perform)

    return method


class AsyncTaskClient:
    """``async with AsyncTaskClient(URL) as client: await client.result(await client.submit("upper", {"text": "a"}))``.

    Has the methods of TaskClient, to be awaited. One client may be used by any number of coroutines, on any
    number of event loops, and after a fork by each of the processes; `close` ends the connections of its own loop.
    """

    def __init__(
        self,
        gateway_url: str = "",
        *,
        queue_url: str = "",
        patience_seconds: float = 10.0,
        token: str = "",
        ca_file: str = "",
    ) -> None:
        self._broker = broker_sender(self, gateway_url, queue_url, patience_seconds)
        self._calls = Calls(by_broker=self._broker is not None)
        self._pool = _SessionPool(gateway_url, patience_seconds, token, ca_file)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections, and ends the broker's thread if there is one. Idempotent."""
        await self._pool.close()
        if self._broker is not None:
            await asyncio.to_thread(self._broker.close)

    submit = awaited(Calls.submit)
    submit_many = awaited(Calls.submit_many)
    get = awaited(Calls.get)
    wait = awaited(Calls.wait)
    wait_many = awaited(Calls.wait_many)
    result = awaited(Calls.result)
    cancel = awaited(Calls.cancel)
    tasks = awaited(Calls.tasks)
    dead_letters = awaited(Calls.dead_letters)
    replay = awaited(Calls.replay)
    replay_many = awaited(Calls.replay_many)
    discard = awaited(Calls.discard)
    discard_many = awaited(Calls.discard_many)

    async def _perform(self, step: steps.Step) -> Any:
        match step:
            case steps.Request():
                if not self._pool.url:
                    raise no_gateway(self)
                return await self._pool.send(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return await asyncio.to_thread(self._broker.send, step.tasks)
            case steps.Sleep():
                await asyncio.sleep(step.seconds)
        return None


class _SessionPool(Endpoint):
    """A session for each event loop of each process: no other loop can use its connections."""

    def __init__(self, url: str, patience_seconds: float, token: str, ca_file: str) -> None:
        super().__init__(url, patience_seconds=patience_seconds, token=token, ca_file=ca_file)
        self._middlewares = (_with_token(token),) if token else ()
        self._sessions: dict[int, dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]] = {}

    async def send(self, request: steps.Request) -> Any:
        """As `producer.client.transport.Transport.send`."""
        pauses = self.pauses()
        while True:
            self.require_open()
            try:
                return await self._send_once(request)
            except TryAgain as again:
                pause = self.pause_before_retry(again, pauses)
            await asyncio.sleep(pause)

    async def _send_once(self, request: steps.Request) -> Any:
        try:
            async with self._session().request(
                request.method,
                self.url + request.path,
                params=request.query,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as answer:
                status, body, retry_after = answer.status, await answer.read(), answer.headers.get("Retry-After")
        except aiohttp.ConnectionTimeoutError:
            raise self.lost_connection(has_connected=False) from None
        except TimeoutError:
            raise self.too_slow() from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            # An InvalidURL itself only repeats the address.
            raise self.bad_address(error.__cause__ or "it does not begin with http:// and a host") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise self.not_trusted(getattr(error.certificate_error, "verify_message", error)) from None
        except ValueError as error:
            raise self.bad_address(error) from None
        except aiohttp.ClientError as error:
            has_connected = not isinstance(error, aiohttp.ClientConnectorError)
            raise self.lost_connection(has_connected=has_connected) from None
        return self.read_answer(status, body, retry_after)

    def _session(self) -> aiohttp.ClientSession:
        sessions = self._sessions.setdefault(os.getpid(), {})
        _drop_ended(sessions)
        loop = asyncio.get_running_loop()
        session = sessions.get(loop)
        if session is None or session.closed:
            session = sessions[loop] = aiohttp.ClientSession(
                connector=_Connector(limit=_MAX_CONNECTIONS, tls=self.tls),
                timeout=_TIMEOUT,
                trust_env=self.uses_proxy,
                middlewares=self._middlewares,
            )
        return session

    async def close(self) -> None:
        self._closed = True
        session = self._sessions.get(os.getpid(), {}).pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


def _drop_ended(sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession]) -> None:
    """Drops sessions of loops that have ended; other threads may do the same at the same time.

    A session refers to its loop, so a weak reference would not do. It cannot be closed without its loop: its
    connections end when nothing refers to them any more.
    """
    for loop in [each for each in list(sessions) if each.is_closed()]:
        session = sessions.pop(loop, None)
        if session is not None:
            session.detach()


def _with_token(token: str) -> aiohttp.ClientMiddlewareType:
    """Not as a header of the request, next to which ``~/.netrc`` would be an error."""

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers["Authorization"] = f"Bearer {token}"
        return await handler(request)

    return send


class _Connector(aiohttp.TCPConnector):
    """Is not closed at the end of a forked process: that would make its parent's loop deaf to the connections.

    Nor when its loop has ended: closing needs the loop.
    """

    def __init__(self, *, limit: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=limit, ssl=tls if tls is not None else True)
        self._process = os.getpid()

    def __del__(self, *more: Any) -> None:
        if self._process == os.getpid() and not self._loop.is_closed():
            super().__del__(*more)
