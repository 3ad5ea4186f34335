"""The prober's HTTP: the only module here that knows the HTTP library."""

import io
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from runnerlib.contract import StrictJsonError, strict_json
from worker.conformance.errors import Broken, Unreachable

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and after how long."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Raises Broken when the body is no JSON that everybody reads alike."""
        try:
            return strict_json.loads(self.body)
        except StrictJsonError as error:
            raise Broken(f"the body of its answer is {error}") from None

    def __str__(self) -> str:
        shown = self.body[:200].decode(errors="replace").strip()
        return f"{self.status} {shown}".strip()


class Asker:
    """``async with Asker(url) as asker``. Raises Unreachable when nobody listens, Broken where no answer comes."""

    def __init__(self, url: str, answer_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._answer_seconds = answer_seconds
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> "Asker":
        # Each call has a connection of its own: what one check breaks must not show in another.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def get(self, path: str) -> Answer:
        return await self._ask("GET", path)

    async def delete(self, path: str) -> Answer:
        return await self._ask("DELETE", path)

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, *, wait_seconds: float = 0
    ) -> Answer:
        """`wait_seconds` is what the runner may take beyond its usual time."""
        return await self._ask("POST", path, body, headers, wait_seconds)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_seconds: float = 0,
    ) -> Answer:
        seconds = self._answer_seconds + wait_seconds
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        sent = {"Content-Type": "application/json", **(headers or {})} if body is not None else {}
        data = io.BytesIO(body) if body is not None else None
        started_at = time.monotonic()
        try:
            async with self._session.request(
                method, self.url + path, data=data, headers=sent, timeout=timeout, allow_redirects=False
            ) as answer:
                content = await _read(answer)
                return Answer(answer.status, answer.headers, content, time.monotonic() - started_at)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Unreachable(f"nobody answers at {self.url} ({error}); start the runner, or correct the URL") from None
        except TimeoutError:
            raise Broken(f"{method} {path} was not answered within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Broken(f"the connection ended without an answer to {method} {path}: {reason}") from None


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise Broken(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
