"""Calls to runners. The only module that knows the HTTP library; its errors become ours here, once."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import orjson
from pydantic import TypeAdapter, ValidationError

from controller.errors import BadAnswer, Busy, Draining, LostAfterSending, NotSent, Refused, TimedOut
from runnerlib.contract import (
    HEADER_BOOT,
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    BatchEntry,
    EntryState,
    Problem,
)

CONNECT_SECONDS = 3.0
#: An answer may take this much longer than the wait that was asked for.
ANSWER_MARGIN_SECONDS = 15.0
CANCEL_SECONDS = 3.0
#: Servers close idle connections after 5 s by default; one that is reused just then looks like a lost runner.
KEEP_ALIVE_SECONDS = 4.0
#: When a busy runner does not say when to come back.
DEFAULT_RETRY_AFTER_SECONDS = 0.5
MAX_RETRY_AFTER_SECONDS = 60.0
#: Beside its result an entry has at most an error with its traceback, and progress.
ENTRY_BYTES = 64 * 1024
MAX_PROBLEM_BYTES = 64 * 1024

_ENTRIES = TypeAdapter(list[BatchEntry])
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Item:
    """One run to start, or without `payload` to ask for. `payload` is compact JSON."""

    id: str
    attempt: int
    deadline_seconds: float | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runner knows, by task id and attempt, and which process said so."""

    entries: dict[tuple[str, int], BatchEntry]
    boot: str | None


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    boot: str | None
    retry_after: str | None
    body: bytes


class RunnerClient:
    """A context. Every method raises the errors of `controller.errors` and no others."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._kept: aiohttp.ClientSession
        self._single: aiohttp.ClientSession

    async def __aenter__(self) -> "RunnerClient":
        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        self._kept = await self._stack.enter_async_context(_session(kept))
        # Without attaching, a connection that was just being closed would cost an attempt.
        single = aiohttp.TCPConnector(limit=0, force_close=True)
        self._single = await self._stack.enter_async_context(_session(single))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def batch(
        self,
        host: str,
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
        response = await self._post(
            self._kept,
            f"{host}/batch/{algorithm}",
            orjson.dumps([_batch_item(item) for item in items]),
            headers={"Prefer": f"wait={wait_seconds:g}"},
            timeout_seconds=wait_seconds + ANSWER_MARGIN_SECONDS,
            most_bytes=len(items) * (result_bytes + ENTRY_BYTES),
            on_connected=on_connected,
        )
        if response.status != 200:
            raise _error(response)
        try:
            entries = _ENTRIES.validate_python(orjson.loads(response.body))
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise BadAnswer(
                f"the runner's answer is not a list of entries: {_short(error)}", boot=response.boot
            ) from None
        return Answer({(entry.id, entry.attempt): entry for entry in entries}, response.boot)

    async def run(
        self,
        host: str,
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
        response = await self._post(
            self._single,
            f"{host}/run/{algorithm}",
            item.payload or b"null",
            headers=headers,
            timeout_seconds=timeout_seconds,
            most_bytes=result_bytes + ENTRY_BYTES,
            on_connected=on_connected,
        )
        if response.status != 200:
            raise _error(response)
        try:
            body = orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            raise BadAnswer(f"the runner's answer is not JSON: {_short(error)}", boot=response.boot) from None
        fields: dict[str, Any] = {"id": item.id, "attempt": item.attempt, "state": EntryState.SUCCEEDED}
        if isinstance(body, dict) and "result" in body:
            fields["result"] = body["result"]
        return Answer({(item.id, item.attempt): BatchEntry(**fields)}, response.boot)

    async def cancel(self, host: str, task_id: str) -> None:
        """``DELETE /tasks/{id}``. A runner that does not know the task, or has ended it, is no error."""
        timeout = aiohttp.ClientTimeout(total=CANCEL_SECONDS, sock_connect=CONNECT_SECONDS)
        url = f"{host}/tasks/{task_id}"
        async with _translated(), self._kept.delete(url, timeout=timeout, allow_redirects=False) as answer:
            await answer.content.read(MAX_PROBLEM_BYTES)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        url: str,
        body: bytes,
        *,
        headers: dict[str, str],
        timeout_seconds: float,
        most_bytes: int,
        on_connected: Callable[[], None] | None,
    ) -> _Response:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=CONNECT_SECONDS)
        headers = {"Content-Type": _JSON, "Accept-Encoding": "identity", **headers}
        async with (
            _translated(),
            session.post(
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=on_connected,
            ) as answer,
        ):
            boot = answer.headers.get(HEADER_BOOT)
            limit = most_bytes if answer.status == 200 else MAX_PROBLEM_BYTES
            content = await _read(answer, limit, boot)
            return _Response(answer.status, boot, answer.headers.get("Retry-After"), content)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        trace_configs=[_telling_connections()],
    )


def _telling_connections() -> aiohttp.TraceConfig:
    """Calls what a request brought as its context when the request has a connection, a new one or a kept one."""

    async def connected(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
        raise NotSent(f"cannot reach the runner: {_short(error)}") from None
    except TimeoutError:
        raise TimedOut("the runner did not answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise LostAfterSending(f"the connection to the runner was lost: {_short(error)}") from None


async def _read(answer: aiohttp.ClientResponse, most_bytes: int, boot: str | None) -> bytes:
    if (answer.content_length or 0) > most_bytes:
        raise BadAnswer(f"the runner's answer has {answer.content_length} bytes, the limit is {most_bytes}", boot=boot)
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > most_bytes:
            raise BadAnswer(f"the runner's answer has more than {most_bytes} bytes", boot=boot)
        parts.append(part)
    return b"".join(parts)


def _batch_item(item: Item) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": item.id, "attempt": item.attempt}
    if item.deadline_seconds is not None:
        fields["deadline"] = item.deadline_seconds
    if item.payload is not None:
        fields["payload"] = orjson.Fragment(item.payload)
    return fields


def _error(response: _Response) -> NotSent | LostAfterSending | Busy | Draining | Refused:
    status, boot = response.status, response.boot
    if status == 429:
        return Busy("the runner has no free slot", _retry_after(response.retry_after), boot=boot)
    if status == 503:
        return Draining("the runner takes nothing new", boot=boot)
    if status in (502, 504):
        return LostAfterSending(f"a gateway before the runner answered {status}", boot=boot)
    return Refused(_problem(status, response.body), boot=boot)


def _retry_after(header: str | None) -> float:
    try:
        seconds = float(header or DEFAULT_RETRY_AFTER_SECONDS)
    except ValueError:
        seconds = DEFAULT_RETRY_AFTER_SECONDS
    return min(max(seconds, 0.01), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else DEFAULT_RETRY_AFTER_SECONDS


def _problem(status: int, body: bytes) -> Problem:
    """The runner's own words where it has any, e.g. of a framework that answers with ``detail`` alone."""
    try:
        known = orjson.loads(body)
    except orjson.JSONDecodeError:
        known = {}
    fields = dict(known) if isinstance(known, dict) else {}
    detail = fields.get("detail")
    if detail is not None and not isinstance(detail, str):
        detail = orjson.dumps(detail).decode()
    fields |= {"status": status, "detail": (detail or f"the runner answered {status}")[:4000]}
    fields["title"] = str(fields.get("title", "refused by the runner"))
    fields["code"] = str(fields.get("code", ""))
    fields.pop("type", None)
    if not isinstance(fields.get("errors"), list | None):
        fields.pop("errors")
    try:
        return Problem.model_validate(fields)
    except ValidationError:
        return Problem(title="refused by the runner", status=status, code="", detail=fields["detail"])


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
