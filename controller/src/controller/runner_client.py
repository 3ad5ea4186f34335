"""Calls to runners. The only module that knows the HTTP library; its errors are translated here, once."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
import orjson
from yarl import URL

from controller.errors import (
    BadAnswer,
    Busy,
    Draining,
    LostAfterSending,
    NoRoomForAnswer,
    NotSent,
    Refused,
    RunnerError,
    TimedOut,
)
from controller.runner_answers import (
    MAX_PROBLEM_BYTES,
    Answer,
    most_bytes,
    read_boot,
    read_entries,
    read_problem,
    read_result,
    read_retry_after,
)
from runnerlib.contract import (
    HEADER_BOOT,
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    RunnerView,
)
from runnerlib.contract.identity import RunnerIdentity, RunnerKeys

CONNECT_SECONDS = 3.0
#: An answer may take this much longer than the wait that was asked for.
ANSWER_MARGIN_SECONDS = 15.0
CANCEL_SECONDS = 3.0
#: Servers close idle connections after 5 s by default; one that is reused just then looks like a lost runner.
KEEP_ALIVE_SECONDS = 4.0
#: Larger answers are parsed in a thread, so that calls to other runners continue meanwhile.
LARGE_ANSWER_BYTES = 256 * 1024
#: Most bytes of all answers that are being received or parsed.
MAX_BODIES_BYTES = 256 * 1024 * 1024
#: Statuses by which ``POST /batch`` refuses the tasks of a call; any other refusal says nothing about them.
_BATCH_VERDICTS = frozenset({400, 404, 409, 413, 422})
_DROPPED = "its answer was dropped: too many large ones came at once"
#: Runners that are called without a look at who they are.
MAX_TARGETS = 2048
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
#: Nothing was sent. A host that is not a DNS name fails in the resolver as text that cannot be encoded.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    UnicodeError,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One run to start, or without `payload` to ask for. `payload` is compact JSON."""

    id: str
    attempt: int
    deadline_seconds: float | None = None
    payload: bytes | None = None


class _Target(NamedTuple):
    """Where a runner is, and what it asks of its callers."""

    url: str
    headers: Mapping[str, str]
    #: whose certificate it must have; None: that of the URL's host
    tls_name: str | None = None

    @property
    def has_token(self) -> bool:
        return "Authorization" in self.headers


class _Body:
    """The received part of one answer's body. `is_kept`: its runner cannot be asked for it again."""

    def __init__(self, *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self.parts: list[bytes] = []
        self.size = 0
        self.is_dropped = False

    def whole(self) -> bytes:
        parts = self.parts  # before the look: a thread may be reading while this is dropped
        if self.is_dropped:
            raise NoRoomForAnswer(_DROPPED)
        return b"".join(parts)


class _Bodies:
    """The bodies that are being received or read, bounded together: the largest is dropped, to be asked for again.

    One that cannot be asked for again is dropped only when there are no others.
    """

    def __init__(self) -> None:
        self._open: set[_Body] = set()
        self._size = 0

    @contextmanager
    def receive(self, *, is_kept: bool = False) -> Iterator[_Body]:
        body = _Body(is_kept=is_kept)
        self._open.add(body)
        try:
            yield body
        finally:
            self._open.discard(body)
            self._size -= body.size

    def add(self, body: _Body, part: bytes) -> None:
        body.parts.append(part)
        body.size += len(part)
        self._size += len(part)
        while self._size > MAX_BODIES_BYTES:
            largest = max(self._open, key=lambda each: (each.size > 0 and not each.is_kept, each.size))
            self._size -= largest.size
            largest.is_dropped = True
            largest.parts, largest.size = [], 0
        if body.is_dropped:
            raise NoRoomForAnswer(_DROPPED)


class RunnerClient:
    """A context. Every method raises the errors of `controller.errors` and no others.

    `tls`: whom to trust where a runner speaks HTTPS; True: the system's authorities.
    """

    def __init__(
        self,
        answer_margin_seconds: float = ANSWER_MARGIN_SECONDS,
        keys: RunnerKeys | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        self._tls = tls
        self._answer_margin_seconds = answer_margin_seconds
        self._keys = keys
        self._target_at = lru_cache(maxsize=MAX_TARGETS)(self._make_target)
        self._stack = AsyncExitStack()
        #: one large answer is parsed at a time: as objects it may need twenty times its size
        self._large = asyncio.Semaphore(1)
        self._bodies = _Bodies()
        self._kept: aiohttp.ClientSession
        self._single: aiohttp.ClientSession

    async def __aenter__(self) -> "RunnerClient":
        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._tls)
        self._kept = await self._stack.enter_async_context(_session(kept))
        # Without attaching, a connection that was just being closed would cost an attempt.
        single = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._tls)
        self._single = await self._stack.enter_async_context(_session(single))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def batch(
        self,
        runner: RunnerView,
        algorithm: str,
        items: Sequence[Item],
        *,
        wait_seconds: float,
        result_bytes: int,
        on_connected: Callable[[], None] | None = None,
    ) -> Answer:
        """``POST /batch/{algorithm}``; answers when all items have ended, at the latest after `wait_seconds`.

        `on_connected` is called before anything is sent, once there is a connection.
        """
        asked = {(item.id, item.attempt) for item in items}
        return await self._post(
            self._kept,
            self._target(runner),
            f"/batch/{algorithm}",
            orjson.dumps([_batch_item(item) for item in items]),
            headers={"Prefer": f"wait={wait_seconds:g}"},
            timeout_seconds=wait_seconds + self._answer_margin_seconds,
            limit=most_bytes(len(items), result_bytes),
            verdicts=_BATCH_VERDICTS,
            read=lambda body, boot: read_entries(body, asked, boot),
            on_connected=on_connected,
        )

    async def run(
        self,
        runner: RunnerView,
        algorithm: str,
        item: Item,
        *,
        timeout_seconds: float,
        result_bytes: int,
        on_connected: Callable[[], None] | None = None,
    ) -> Answer:
        """``POST /run/{algorithm}`` of a plain runner, as an answer with one entry."""
        headers = {HEADER_TASK_ID: item.id, HEADER_TASK_ATTEMPT: str(item.attempt)}
        if item.deadline_seconds is not None:
            headers[HEADER_TASK_DEADLINE] = f"{item.deadline_seconds:.3f}"
        return await self._post(
            self._single,
            self._target(runner),
            f"/run/{algorithm}",
            item.payload or b"null",
            headers=headers,
            timeout_seconds=timeout_seconds,
            limit=most_bytes(1, result_bytes),
            verdicts=range(400, 600),
            read=lambda body, boot: Answer({(item.id, item.attempt): read_result(body, boot)}, boot),
            on_connected=on_connected,
            is_kept=True,
        )

    async def cancel(self, runner: RunnerView, task_id: str) -> None:
        """``DELETE /tasks/{id}``. A runner that does not know the task, or has ended it, is no error."""
        timeout = aiohttp.ClientTimeout(total=CANCEL_SECONDS, sock_connect=CONNECT_SECONDS)
        target = self._target(runner)
        async with (
            _translated(),
            self._kept.delete(
                f"{target.url}/tasks/{task_id}",
                headers=target.headers,
                timeout=timeout,
                allow_redirects=False,
                server_hostname=target.tls_name,
            ) as answer,
        ):
            await answer.content.read(MAX_PROBLEM_BYTES)

    def _target(self, runner: RunnerView) -> "_Target":
        return self._target_at(runner.host, runner.address, RunnerIdentity(runner.name, runner.key_id))

    def _make_target(self, host: str, address: str, identity: RunnerIdentity) -> "_Target":
        """Under the address that discovery checked; a name could stand for another by now."""
        headers, tls_name = {}, None
        if address:
            try:
                named = URL(host)
            except ValueError as error:
                raise NotSent(f"{host[:100]!r} is no address: {error}") from None
            headers["Host"] = named.authority
            tls_name = named.host if named.scheme == "https" else None
            host = str(named.with_host(address)).rstrip("/")
        token = self._keys.run_token(identity) if self._keys is not None and identity.key_id else None
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return _Target(host, headers, tls_name)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        target: "_Target",
        path: str,
        data: bytes,
        *,
        headers: dict[str, str],
        timeout_seconds: float,
        limit: int,
        verdicts: Container[int],
        read: Callable[[bytes, str | None], Answer],
        on_connected: Callable[[], None] | None,
        is_kept: bool = False,
    ) -> Answer:
        """`verdicts`: statuses of refusals that can be meant for the tasks of the call."""
        with self._bodies.receive(is_kept=is_kept) as body:
            async with (
                _translated(),
                session.post(
                    target.url + path,
                    data=data,
                    headers={**_HEADERS, **target.headers, **headers},
                    timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS),
                    allow_redirects=False,
                    server_hostname=target.tls_name,
                    trace_request_ctx=on_connected,
                ) as answer,
            ):
                boot = read_boot(answer.headers.get(HEADER_BOOT))
                await self._receive(answer, body, limit if answer.status == 200 else MAX_PROBLEM_BYTES, boot)
            if answer.status == 401 and (401 not in verdicts or target.has_token):
                raise NotSent(_not_let_in(target), boot=boot)
            if answer.status != 200:
                raise _error(answer.status, boot, answer.headers.get("Retry-After"), body.whole(), verdicts)
            if body.size <= LARGE_ANSWER_BYTES:
                return read(body.whole(), boot)
            async with self._large:
                return await asyncio.to_thread(lambda: read(body.whole(), boot))

    async def _receive(self, answer: aiohttp.ClientResponse, body: _Body, limit: int, boot: str | None) -> None:
        if (answer.content_length or 0) > limit:
            message = f"the runner's answer has {answer.content_length} bytes, the limit is {limit}"
            raise BadAnswer(message, boot=boot, would_repeat=True)
        async for part in answer.content.iter_any():
            if body.size + len(part) > limit:
                message = f"the runner's answer has more than {limit} bytes"
                raise BadAnswer(message, boot=boot, would_repeat=True)
            self._bodies.add(body, part)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    async def connected(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        """Calls a request's `trace_request_ctx`, if it has one, once it has a connection, a new or a kept one."""
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        trace_configs=[trace],
    )


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except _NOT_SENT as error:
        raise NotSent(f"cannot reach the runner: {_short(error)}") from None
    except TimeoutError:
        raise TimedOut("the runner did not answer in time") from None
    except aiohttp.ClientResponseError as error:
        raise BadAnswer(f"the runner's answer is not HTTP: {_short(error)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise LostAfterSending(f"the connection to the runner was lost: {_short(error)}") from None


def _not_let_in(target: _Target) -> str:
    if target.has_token:
        return "the runner does not accept the token of this environment; its RUNNER_TOKEN is not made from RUNNER_KEYS"
    return "the runner asks for a token, and this controller has none for it; RUNNER_KEYS_FILE names its keys"


def _batch_item(item: Item) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": item.id, "attempt": item.attempt}
    if item.deadline_seconds is not None:
        fields["deadline"] = item.deadline_seconds
    if item.payload is not None:
        fields["payload"] = orjson.Fragment(item.payload)
    return fields


def _error(
    status: int, boot: str | None, retry_after: str | None, body: bytes, verdicts: Container[int]
) -> RunnerError:
    """What an answer without outcomes means."""
    if status == 429:
        return Busy("the runner has no free slot", read_retry_after(retry_after), boot=boot)
    if status == 503:
        return Draining("the runner takes nothing new", boot=boot)
    if status in (502, 504):
        return LostAfterSending(f"a gateway before the runner answered {status}", boot=boot)
    problem = read_problem(status, body)
    if status not in verdicts:
        return BadAnswer(f"the runner answered {status}: {problem.detail[:300]}", boot=boot)
    return Refused(problem, boot=boot)


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
