"""A runner that answers in wrong ways, byte by byte: one port, registration and algorithm for each way."""

import asyncio
import contextlib
import json
import re
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

#: Small, so that each way comes to its end soon.
TIMEOUT_SECONDS = 0.5
BATCH = 2
RESULT_BYTES = 16 * 1024 * 1024
RENEW_SECONDS = 1.5
BOOT = "adversary"
#: How its server ends what has no end of its own.
LONG_SECONDS = 600.0


@dataclass
class Call:
    """One request to a way."""

    method: str
    path: str
    items: list[dict[str, Any]]
    writer: asyncio.StreamWriter
    #: calls of this way so far
    number: int

    async def raw(self, data: bytes) -> None:
        """What is not wanted any more ends with an OSError."""
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, body: bytes, status: str = "200 OK", boot: str = BOOT, **headers: str) -> None:
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        length = "" if "Content_Length" in headers else f"Content-Length: {len(body)}\r\n"
        head = f"HTTP/1.1 {status}\r\nRunner-Boot: {boot}\r\nConnection: close\r\n{length}{more}\r\n"
        await self.raw(head.encode() + body)

    async def entries(self, make: Callable[[dict[str, Any]], dict[str, Any]], boot: str = BOOT) -> None:
        made = [{"id": item["id"], "attempt": item["attempt"], **make(item)} for item in self.items]
        await self.body(json.dumps(made).encode(), boot=boot)


Answer = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """How its runs are answered, and what becomes of its tasks: state or code, and a part of the reason."""

    name: str
    answer: Answer
    ends: frozenset[str]
    says: str = ""
    #: for ever: its tasks end when they are cancelled
    cancel: bool = False
    #: it takes tasks; others never start any
    takes: bool = True
    level: str = "full"

    @property
    def timeout_seconds(self) -> float:
        """What is to be cancelled must not be overdue before."""
        return 60.0 if self.cancel else TIMEOUT_SECONDS

    @property
    def algorithm(self) -> str:
        return f"wrong_{self.name}"


def _state(state: str, **more: Any) -> Answer:
    return lambda call: call.entries(lambda item: {"state": state, **more})


def _error(code: str, **more: Any) -> Answer:
    return _state("failed", error={"code": code, "message": "so it says", **more})


def _result(text: str) -> Answer:
    """A result that only bytes can say."""

    async def answer(call: Call) -> None:
        entries = [
            f'{{"id":"{item["id"]}","attempt":{item["attempt"]},"state":"succeeded","result":{text}}}'
            for item in call.items
        ]
        await call.body(f"[{','.join(entries)}]".encode())

    return answer


def _body(body: bytes, status: str = "200 OK", **headers: str) -> Answer:
    return lambda call: call.body(body, status, **headers)


def _raw(data: bytes) -> Answer:
    return lambda call: call.raw(data)


async def _endless(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
    while True:
        await call.raw(chunk)


async def _drip(call: Call) -> None:
    await call.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")
    while True:
        await call.raw(b" ")
        await asyncio.sleep(0.2)


async def _informational(call: Call) -> None:
    while True:
        await call.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 10)
        await asyncio.sleep(0.01)


async def _silent(call: Call) -> None:
    await asyncio.sleep(LONG_SECONDS)


async def _closes(call: Call) -> None:
    """Not a word."""


async def _others(call: Call) -> None:
    await call.body(json.dumps([{"id": "honest-1", "attempt": 1, "state": "succeeded", "result": "stolen"}]).encode())


async def _flood(call: Call) -> None:
    progress = {"fraction": 0.5, "message": f"{call.number}\x1b[2J" + "x" * 40_000}
    await call.entries(lambda item: {"state": "running", "progress": progress})


async def _new_boots(call: Call) -> None:
    await call.entries(lambda item: {"state": "unknown"}, boot=f"boot-{call.number}")


async def _huge_error(call: Call) -> None:
    error = {"code": "c" * 100_000, "message": "m" * 900_000, "traceback": "t" * 900_000}
    await call.entries(lambda item: {"state": "failed", "error": error})


async def _twice(call: Call) -> None:
    entries = [{"id": item["id"], "attempt": item["attempt"], "state": "succeeded"} for item in call.items]
    await call.body(json.dumps([{**entry, "result": n} for n in (1, 2) for entry in entries]).encode())


async def _huge_boot(call: Call) -> None:
    await call.entries(lambda item: {"state": "succeeded", "result": 1}, boot="b" * 4000)


async def _undeletable(call: Call) -> None:
    if call.method == "DELETE":
        await call.body(b"{}", "202 Accepted")
    else:
        await call.entries(lambda item: {"state": "running"})


_BOMB = zlib.compress(b"[" * 50_000_000)
_CANCELLED = frozenset({"cancelled"})
_TIMEOUT = frozenset({"timeout"})
_BAD = frozenset({"bad_result"})
_LOST = frozenset({"runner_lost"})
_FINE = frozenset({"succeeded"})
_NOWHERE = {"Location": "http://127.0.0.1:1/batch/wrong"}

WAYS: tuple[Way, ...] = (
    # claims
    Way("stale", _state("stale_attempt"), _BAD, "higher attempt of this task, of which the store knows nothing"),
    Way("cancelled", _state("cancelled"), _BAD, "the store knows nothing"),
    Way("conflict", _error("id_conflict"), _BAD, "the store knows nothing"),
    Way("expired", _error("expired"), _BAD, "the store knows nothing"),
    Way("unknown", _state("unknown"), _BAD, "again and again"),
    Way("running", _state("running"), _TIMEOUT, "has called it"),
    Way("waiting", _state("waiting"), _TIMEOUT, "has called it"),
    Way("undeletable", _undeletable, _CANCELLED, cancel=True),
    Way("others_ids", _others, _BAD, "leaves it out"),
    Way("no_entries", _body(b"[]"), _BAD, "leaves it out"),
    Way("no_result", _state("succeeded"), _BAD, 'no "result"'),
    Way("two_entries", _twice, _BAD, "two entries"),
    Way("strange_state", _state("finished"), _BAD, "no state 'finished'"),
    Way("our_code", _error("controller_lost"), frozenset({"handler_error"})),
    Way("too_large", _error("too_large"), frozenset({"invalid_payload"})),
    Way("retryable", _error("handler_error", retryable=True), frozenset({"handler_error"})),
    Way("lost", _error("runner_lost"), _LOST),
    Way("new_boots", _new_boots, _LOST),
    Way("no_error", _state("failed"), frozenset({"handler_error"}), "gave no reason"),
    # sizes and numbers
    Way("flood", _flood, _TIMEOUT, "has called it"),
    Way("huge_error", _huge_error, frozenset({"handler_error"}), "mmm"),
    Way("endless", _endless, _BAD, "more than"),
    Way("huge_length", _body(b"[", Content_Length=str(10**15)), _BAD, "the limit is"),
    Way("empty_lists", _result(f"[{'[],' * 3_000_000}[]]"), _BAD, "lists and objects"),
    Way("huge_integer", _result("9" * 30), _BAD, "64 bits"),
    Way("huge_float", _result("1e999"), _BAD, "64-bit float"),
    Way("not_a_number", _result("NaN"), _BAD, "NaN"),
    Way("duplicate_keys", _result('{"a":1,"a":2}'), _BAD, "duplicate key"),
    Way("surrogate", _result('"\\ud800"'), _BAD, "surrogate"),
    Way("deep", _result("[" * 2000 + "]" * 2000), _BAD, "deeper"),
    Way("eternal", _state("succeeded", result=1, seconds=1e300), _FINE),
    Way("huge_boot", _huge_boot, _FINE),
    # garbage
    Way("html", _body(b"<html>busy</html>", Content_Type="text/html"), _BAD, "not JSON"),
    Way("empty", _body(b""), _BAD, "not JSON"),
    Way("truncated", _body(b'[{"id": "'), _BAD, "not JSON"),
    Way("no_list", _body(b"{}"), _BAD, "not a list"),
    Way("zip_bomb", _body(_BOMB, Content_Encoding="deflate"), _BAD, "not UTF-8"),
    Way("no_http", _raw(b"SSH-2.0-OpenSSH_9.2\r\n"), _BAD, "not HTTP"),
    Way("header_flood", _raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n"), _BAD, "not HTTP"),
    Way("long_header", _raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), _BAD, "not HTTP"),
    Way("redirect", _body(b"", "307 Temporary Redirect", **_NOWHERE), _BAD, "answered 307"),
    Way("no_content", _raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), _BAD, "answered 204"),
    Way("server_error", _body(b"Internal Server Error", "500 Internal Server Error"), _BAD, "answered 500"),
    Way("short_length", _body(b"[{}]", Content_Length="2"), _BAD, "not HTTP"),
    Way("long_length", _body(b"[]", Content_Length="5000"), _LOST, "has not answered"),
    Way("bad_chunks", _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), _BAD | _LOST),
    Way("closes", _closes, _LOST, "has not answered"),
    Way("silent", _silent, _LOST, "has not answered"),
    Way("drip", _drip, _LOST, "has not answered"),
    Way("informational", _informational, _LOST, "has not answered"),
    # never taken
    Way("busy", _body(b"{}", "429 Too Many Requests", Retry_After="1e9"), _CANCELLED, cancel=True, takes=False),
    Way("draining", _body(b"{}", "503 Service Unavailable"), _CANCELLED, cancel=True, takes=False),
    Way("not_there", _body(b"{}", "404 Not Found"), _CANCELLED, cancel=True, takes=False),
    # plain runners
    Way("plain_html", _body(b"<html>"), _BAD, "not JSON", level="plain"),
    Way("plain_stale", _body(b'{"code": "stale_attempt"}', "409 Conflict"), _BAD, "the store knows", level="plain"),
    Way("plain_cancelled", _body(b'{"code": "cancelled"}', "409 Conflict"), _BAD, "the store knows", level="plain"),
)  # fmt: skip
#: These are found out by waiting alone, for minutes; a short run cancels their tasks, which must be possible too.
SLOW = frozenset({"long_length", "closes", "silent", "drip", "informational"})


@dataclass
class Adversary:
    """Runs in a thread of its own, on an event loop of its own."""

    discovery_url: str
    ways: Sequence[Way]
    ports: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator["Adversary"]:
        loop = asyncio.new_event_loop()
        ready, stop = threading.Event(), asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=[self._serve(ready, stop)], daemon=True)
        thread.start()
        assert ready.wait(20), "the adversary listens"
        leaving = threading.Event()
        renewing = threading.Thread(target=self._renew, args=[leaving], daemon=True)
        self._register()
        renewing.start()
        try:
            yield self
        finally:
            leaving.set()
            renewing.join(20)
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)

    async def _serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        servers = []
        for way in self.ways:
            server = await asyncio.start_server(self._handler(way), "127.0.0.1", 0)
            self.ports[way.name] = server.sockets[0].getsockname()[1]
            servers.append(server)
        ready.set()
        await stop.wait()
        for server in servers:
            server.close()
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not mine:
                task.cancel()
        await asyncio.sleep(0)

    def _handler(self, way: Way) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = await reader.readuntil(b"\r\n\r\n")
                method, path = head.decode().split(" ", 2)[:2]
                length = re.search(rb"content-length: (\d+)", head.lower())
                body = await reader.readexactly(int(length[1])) if length else b""
                self.calls[way.name] = self.calls.get(way.name, 0) + 1
                items = json.loads(body) if path.startswith("/batch/") else []
                await way.answer(Call(method, path, items, writer, self.calls[way.name]))
            writer.close()

        return handle

    def _renew(self, leaving: threading.Event) -> None:
        while not leaving.wait(RENEW_SECONDS):
            with contextlib.suppress(requests.RequestException):
                self._register()

    def _register(self) -> None:
        with requests.Session() as session:
            for way in self.ways:
                limits = {
                    "timeout_seconds": way.timeout_seconds,
                    "retries": 1,
                    "batch": BATCH,
                    "batched": True,
                    "slots": 2,
                    "result_bytes": RESULT_BYTES,
                }
                registration = {
                    "name": f"adversary-{way.name}",
                    "host": f"127.0.0.1:{self.ports[way.name]}",
                    "boot": BOOT,
                    "level": way.level,
                    "algorithms": [{"name": way.algorithm, "limits": limits}],
                }
                answer = session.put(
                    f"{self.discovery_url}/runners/adversary-{way.name}", json=registration, timeout=10
                )
                answer.raise_for_status()
