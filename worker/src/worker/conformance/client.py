"""A client for the runner under test: the calls of the contract, and assertions about its answers."""

import asyncio
import contextlib
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
from pydantic import TypeAdapter, ValidationError

from runnerlib.contract import (
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_ID,
    PROBLEM_MEDIA_TYPE,
    AlgorithmDescription,
    BatchEntry,
    EntryState,
    StrictJsonError,
    new_task_id,
    strict_json,
)
from worker.errors import WorkerError

_CONNECT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_POLL_SECONDS = 0.05
T = TypeVar("T")
#: Stands for "not given": None is a valid payload.
NOT_GIVEN: Any = object()


class Unreachable(WorkerError):
    """Nothing listens at the URL."""


class CheckFailed(Exception):
    """What the runner did instead of what the contract wants. The message ends a sentence: "…; <message>"."""


def require(condition: object, otherwise: str) -> None:
    """Raises CheckFailed unless the condition holds."""
    if not condition:
        raise CheckFailed(otherwise)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds."""

    #: any answer that waits for nothing; also until a full runner has room again
    answer: float = 30
    #: a slow run, on top of that
    slow: float = 60
    #: a wait that ends before a slow run does
    short_wait: float = 0.3
    #: between the first and the second caller of one run
    second_caller: float = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """What to test with. `unfit` does not match the algorithm's schema, `slow` takes seconds; both may be NOT_GIVEN.

    As the command line gives it, any part may be missing.
    """

    algorithm: str = ""
    payload: Any = NOT_GIVEN
    unfit: Any = NOT_GIVEN
    slow: Any = NOT_GIVEN
    slots: int = 1

    @property
    def run_path(self) -> str:
        return f"/run/{self.algorithm}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Its methods raise CheckFailed if it is not what the contract wants."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.status} {self.body[:200].decode(errors='replace').strip()}".strip()

    def json(self) -> Any:
        try:
            return strict_json.loads(self.body)
        except StrictJsonError as error:
            raise CheckFailed(f"the body of its answer is {error}") from None

    def expect(self, *statuses: int) -> "Answer":
        require(self.status in statuses, f"it answered {self}")
        return self

    def result(self) -> Any:
        """The result of ``POST /run/{algorithm}``."""
        body = self.expect(200).json()
        require(isinstance(body, dict) and "result" in body, f"it answered {self}")
        return body["result"]

    def problem(self) -> dict[str, Any]:
        """The body of an error, as application/problem+json."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        require(kind == PROBLEM_MEDIA_TYPE, f"an answer {self.status} has the media type {kind or 'none'!r}")
        body: Any = self.json()
        require(isinstance(body, dict), f"an answer {self} is no object")
        for field in ("code", "detail"):
            require(isinstance(body.get(field), str) and body[field], f"an answer {self} has no {field!r}")
        leak = "Traceback (most recent" in self.body.decode(errors="replace")
        require(not leak, f"an answer {self.status} shows a traceback")
        return dict(body)

    def refusal(self, status: int, code: str) -> None:
        """Requires an error with this status and problem code."""
        found = self.expect(status).problem()["code"]
        require(found == code, f"the code of its answer {self.status} is {found!r}")

    def turned_away(self, *statuses: int) -> None:
        """Requires one of these statuses, with a usable Retry-After."""
        text = self.expect(*statuses).headers.get("Retry-After")
        with contextlib.suppress(ValueError):
            if float(text or "") >= 0:
                return
        raise CheckFailed(f"an answer {self.status} has the Retry-After {text!r}")


def validated(kind: type[T], answer: Answer, otherwise: str) -> T:
    """The body of an answer as this type. Raises CheckFailed, with `otherwise` and the first mistake."""
    try:
        return TypeAdapter(kind).validate_python(answer.json())
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckFailed(": ".join([otherwise, *map(str, first["loc"]), first["msg"]])) from None


def expect_state(entry: BatchEntry, *wanted: EntryState) -> BatchEntry:
    why = f" ({entry.error.code}: {entry.error.message[:200]})" if entry.error else ""
    require(entry.state in wanted, f"the state of an entry is {entry.state.value}{why}")
    return entry


def item(payload: Any, id: str | None = None, attempt: int = 1) -> dict[str, Any]:
    """One run of a batch."""
    return {"id": id or new_task_id(), "attempt": attempt, "payload": payload}


class Client:
    """``async with Client(url) as client``. Set `target` before the calls that run the algorithm.

    `token`: the one with which the runner takes runs; empty: it asks for none.

    Raises Unreachable if nothing listens, and CheckFailed where the runner does not answer as the contract wants.
    """

    target: Target

    def __init__(self, url: str, timing: Timing | None = None, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.timing = timing or Timing()
        self.token = token
        self._slow_ids: list[str] = []
        self._slow_calls: list[asyncio.Task[Answer]] = []

    async def __aenter__(self) -> "Client":
        # One connection for each call: what one check breaks must not affect the next.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def described(self) -> list[AlgorithmDescription]:
        """``GET /schemas``: the algorithms that the runner offers."""
        answer = (await self.get("/schemas")).expect(200)
        return validated(list[AlgorithmDescription], answer, "its list cannot be read")

    async def run(
        self, payload: Any, id: str = "", attempt: int = 1, wait_seconds: float | None = None, *, insists: bool = True
    ) -> Answer:
        """``POST /run/{algorithm}``; if it `insists`, asks a full runner again, as a controller would."""
        headers = {HEADER_TASK_ID: id, HEADER_TASK_ATTEMPT: str(attempt)} if id else {}
        if wait_seconds is not None:
            headers["Prefer"] = f"wait={wait_seconds:g}"
        post = self._post_until_room if insists else self.post
        return await post(self.target.run_path, strict_json.dumps(payload), headers, wait_seconds or 0)

    async def finished_run(self) -> tuple[str, Any]:
        """Runs the payload to its end; returns id and result."""
        id = new_task_id()
        return id, (await self.run(self.target.payload, id)).result()

    async def batch(self, items: list[dict[str, Any]], wait_seconds: float = 20) -> list[BatchEntry]:
        """``POST /batch/{algorithm}``: one entry for each item, in the same order."""
        path, headers = f"/batch/{self.target.algorithm}", {"Prefer": f"wait={wait_seconds:g}"}
        answer = (await self._post_until_room(path, strict_json.dumps(items), headers, wait_seconds)).expect(200)
        entries = validated(list[BatchEntry], answer, "its answer is no list of entries")
        same = [(entry.id, entry.attempt) for entry in entries] == [(item["id"], item["attempt"]) for item in items]
        require(same, "its entries are not those of the items, in their order")
        return entries

    async def batch_to_end(self, items: list[dict[str, Any]]) -> list[BatchEntry]:
        """The same, but asks again, without payloads, until all runs have ended."""
        entries = await self.batch(items)
        deadline = time.monotonic() + self.timing.slow
        while any(not entry.state.is_final for entry in entries):
            require(time.monotonic() <= deadline, f"a run has not ended within {self.timing.slow:g} s")
            entries = await self.batch([{"id": entry.id, "attempt": entry.attempt} for entry in entries])
        return entries

    async def task(self, id: str) -> BatchEntry:
        """``GET /tasks/{id}`` of a task that the runner must know."""
        answer = await self.get(f"/tasks/{id}")
        require(answer.status == 200, f"GET /tasks/{{id}} of a run that it has was answered {answer}")
        return validated(BatchEntry, answer, "GET /tasks/{id} gave no entry")

    async def task_ended(self, id: str, seconds: float) -> BatchEntry:
        """Polls the task until it has ended."""
        deadline = time.monotonic() + seconds
        while not (entry := await self.task(id)).state.is_final:
            late = f"the run did not end within {seconds:g} s; its state is {entry.state.value}"
            require(time.monotonic() <= deadline, late)
            await asyncio.sleep(_POLL_SECONDS)
        return entry

    # runs that take seconds

    def slow_id(self) -> str:
        """An id for a run that :meth:`clean_up` cancels."""
        self._slow_ids.append(new_task_id())
        return self._slow_ids[-1]

    async def begin_slow(self) -> tuple[str, "asyncio.Task[Answer]"]:
        """Runs the slow payload; returns its id and the call that waits for it, once the run has started."""
        id = self.slow_id()
        call = asyncio.create_task(self.run(self.target.slow, id, 1, self.timing.slow))
        self._slow_calls.append(call)
        deadline = time.monotonic() + self.timing.answer
        while (answer := await self.get(f"/tasks/{id}")).status != 200 or answer.json().get("state") == "waiting":
            if call.done():
                raise CheckFailed(f"a run of the slow payload was answered {call.result()} before anybody saw it run")
            require(time.monotonic() <= deadline, f"GET /tasks/{{id}} does not show a run that was begun: {answer}")
            await asyncio.sleep(_POLL_SECONDS)
        require(not call.done(), "the slow payload was done at once; give one that takes 3 to 20 seconds")
        return id, call

    async def clean_up(self) -> None:
        """After each check: cancels slow runs and waits until they have ended, since the next check needs the room."""
        ids, self._slow_ids = self._slow_ids, []
        calls, self._slow_calls = self._slow_calls, []
        for call in calls:
            call.cancel()
        for id in ids:
            with contextlib.suppress(CheckFailed):
                await self.delete(f"/tasks/{id}")
        for id in ids:
            with contextlib.suppress(CheckFailed):
                await self.task_ended(id, self.timing.answer)
        await asyncio.gather(*calls, return_exceptions=True)

    # HTTP

    async def get(self, path: str) -> Answer:
        return await self._request("GET", path)

    async def delete(self, path: str) -> Answer:
        return await self._request("DELETE", path)

    async def without_token(self, method: str, path: str, body: bytes | None = None) -> Answer:
        return await self._stranger(method, path, body, {})

    async def refuse_strangers(self, method: str, path: str, body: bytes | None = None) -> None:
        """Requires 401 without the token, and with another."""
        for who, token in (("without the token", ""), ("with another token", f"{self.token[:-1]}-")):
            answer = await self._stranger(method, path, body, _bearer(token))
            require(answer.status == 401, f"{method} {path} {who} was answered {answer}")

    async def _stranger(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        kind = {} if body is None else {"Content-Type": "application/json"}
        return await self._request(method, path, token="", data=body, headers={**kind, **headers})

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({}), wait_seconds: float = 0
    ) -> Answer:
        """`wait_seconds`: how much longer than usual the answer may take."""
        # A stream: aiohttp warns of large bodies that are bytes.
        options: dict[str, Any] = {"data": io.BytesIO(body), "headers": {"Content-Type": "application/json", **headers}}
        return await self._request("POST", path, wait_seconds, **options)

    async def _post_until_room(self, path: str, body: bytes, headers: Mapping[str, str], wait_seconds: float) -> Answer:
        deadline = time.monotonic() + self.timing.answer
        while (answer := await self.post(path, body, headers, wait_seconds)).status in (429, 503):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL_SECONDS)
        return answer

    async def _request(
        self, method: str, path: str, wait_seconds: float = 0, token: str | None = None, **options: Any
    ) -> Answer:
        seconds = self.timing.answer + wait_seconds
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        headers = {**_bearer(self.token if token is None else token), **options.pop("headers", {})}
        options |= {"timeout": timeout, "allow_redirects": False, "headers": headers}
        try:
            async with self._session.request(method, self.url + path, **options) as answer:
                return Answer(answer.status, answer.headers, await _body(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Unreachable(f"nobody answers at {self.url} ({error}); start the runner, or correct the URL") from None
        except TimeoutError:
            raise CheckFailed(f"{method} {path} was not answered within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise CheckFailed(f"the connection ended without an answer to {method} {path}: {reason}") from None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in answer.content.iter_any():
        content += part
        require(len(content) <= _MAX_ANSWER_BYTES, f"its answer has more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(content)
