import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from raw_http import Connection
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from runnerlib.contract.strict_json import MAX_VALUES
from runnerlib.service import body_budget
from runnerlib.service.body_budget import HUGE_BYTES, SMALL_BYTES, BodyBudget, parsed
from runnerlib.service.health import Health
from runnerlib.service.http_guard import Guard
from runnerlib.service.http_server import HttpServer
from runnerlib.service.problems import BodyLimit, ProblemError, announced_bytes
from runnerlib.service.web import create_app

MAX_BYTES = 4 * HUGE_BYTES


class Service:
    """Parses bodies for as long as `release` is not set; `begun` counts those that have begun."""

    def __init__(self) -> None:
        self.budget: BodyBudget
        self.release = threading.Event()
        self.begun: list[int] = []
        self.at_once = self.most_at_once = 0
        self.waits_on = asyncio.Event()
        self.app = create_app("Sample", health=Health())
        self.app.post("/parse")(self.parse)
        self.app.post("/wait")(self.wait)

    async def parse(self, request: Request) -> int:
        return await parsed(await request.body(), self._parse)

    async def wait(self, request: Request) -> int:
        size = await parsed(await request.body(), len)
        await self.waits_on.wait()
        return size

    def _parse(self, body: bytes) -> int:
        self.begun.append(len(body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if len(body) > SMALL_BYTES:
            assert self.release.wait(20)
        self.at_once -= 1
        return len(body)


def run(
    monkeypatch: pytest.MonkeyPatch,
    scenario: Callable[[httpx.AsyncClient, Service], Awaitable[None]],
    wait_seconds: float = 20,
    max_bytes: int = MAX_BYTES,
) -> None:
    """`wait_seconds`: how long bodies wait for a share of `max_bytes`."""

    service = Service()

    def budget(app: Any) -> BodyBudget:
        service.budget = BodyBudget(app, max_bytes, wait_seconds)
        return service.budget

    monkeypatch.setattr("runnerlib.service.http_guard.BodyBudget", budget)

    async def main() -> None:
        async with HttpServer(service.app, "127.0.0.1", 0) as server, httpx.AsyncClient(timeout=20) as client:
            client.base_url = httpx.URL(f"http://127.0.0.1:{server.port}")
            try:
                await asyncio.wait_for(scenario(client, service), 30)
            finally:
                service.release.set()
                service.waits_on.set()

    asyncio.run(main())


def send(client: httpx.AsyncClient, size: int, path: str = "/parse", **more: Any) -> "asyncio.Task[httpx.Response]":
    return asyncio.ensure_future(client.post(path, **{"content": b"x" * size, **more}))


async def until(condition: Callable[[], Any]) -> None:
    ends_at = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < ends_at
        await asyncio.sleep(0.01)


def test_a_body_beyond_the_budget_waits_until_others_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        sizes = [HUGE_BYTES] * 4 + [HUGE_BYTES - 1]
        answers = [send(client, size) for size in sizes[:4]]
        await until(lambda: service.begun)
        answers.append(send(client, sizes[4]))  # would be parsed at once, if it had a share
        assert (await client.post("/parse", content=b"x" * SMALL_BYTES)).json() == SMALL_BYTES
        service.release.set()
        assert [(await answer).json() for answer in answers] == sizes
        assert service.begun[-1] == sizes[4]

    run(monkeypatch, scenario)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_waits_too_long_is_refused_and_may_be_sent_again(
    monkeypatch: pytest.MonkeyPatch, is_chunked: bool
) -> None:
    async def parts() -> Any:
        for _ in range(8):
            yield b"x" * (HUGE_BYTES // 4)

    more = {"content": parts()} if is_chunked else {}

    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        first = send(client, MAX_BYTES)
        await until(lambda: service.begun)
        refused = await send(client, 2 * HUGE_BYTES, **more)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        service.release.set()
        assert (await first).json() == MAX_BYTES
        assert (await send(client, 2 * HUGE_BYTES)).json() == 2 * HUGE_BYTES

    run(monkeypatch, scenario, wait_seconds=0.1)


@pytest.mark.parametrize("length", ["%d ", "\t%d", "0" * 30 + "%d", "0" * 5000 + "%d"])
def test_a_length_counts_however_it_is_written(monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        first = send(client, MAX_BYTES)
        await until(lambda: service.begun)
        other = Connection(*await asyncio.open_connection("127.0.0.1", client.base_url.port))
        other.send(b"POST /parse HTTP/1.1\r\nContent-Length: %s\r\n\r\n" % (length % MAX_BYTES).encode())
        assert (await other.answer())[:1] == (503,)
        service.release.set()
        assert (await first).json() == MAX_BYTES
        assert announced_bytes({"headers": [(b"content-length", (length % 17_900_000).encode())]}) == 17_900_000

    run(monkeypatch, scenario, wait_seconds=0.1)


def test_several_who_wait_cut_a_slow_body_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def never() -> Any:
            await asyncio.Event().wait()

        budget = BodyBudget(never, MAX_BYTES)
        monkeypatch.setattr(budget, "hurry_seconds", -1.0)
        share = body_budget._Share(budget, MAX_BYTES, never, None)
        slow = asyncio.create_task(share.receive())
        await until(lambda: budget.receiving)
        share.hurry()
        await asyncio.sleep(0)
        for waiting in list(budget.receiving):
            waiting.hurry()
        with pytest.raises(ProblemError, match="comes slowly"):
            await slow

    asyncio.run(main())


def test_what_is_read_on_after_a_refusal_takes_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    async def parts() -> Any:
        for _ in range(8):
            yield b"x" * HUGE_BYTES

    taken, take_now = [], BodyBudget.take_now

    def note(budget: BodyBudget, size: int) -> None:
        taken.append(size)
        take_now(budget, size)

    monkeypatch.setattr(BodyBudget, "take_now", note)

    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        service.app.add_middleware(BodyLimit, max_bytes=HUGE_BYTES)
        refused = await client.post("/parse", content=parts())
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        assert HUGE_BYTES <= sum(taken) <= 2 * HUGE_BYTES

    run(monkeypatch, scenario, wait_seconds=0.1)


def test_a_slow_body_is_cut_when_others_wait_for_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BodyBudget, "hurry_seconds", 0.2)

    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        service.release.set()
        slow = Connection(*await asyncio.open_connection("127.0.0.1", client.base_url.port))
        slow.send(b"POST /parse HTTP/1.1\r\nContent-Length: %d\r\n\r\nx" % MAX_BYTES)
        await until(lambda: service.budget.receiving)
        refused = 0
        while (answer := await send(client, MAX_BYTES)).status_code == 503:
            refused += 1
        assert refused and answer.json() == MAX_BYTES
        assert await slow.refusal() == (408, "request_timeout")

    run(monkeypatch, scenario, wait_seconds=0.1)


def test_a_body_counts_only_until_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        service.release.set()
        waiting = [send(client, MAX_BYTES, "/wait") for _ in range(3)]
        assert (await send(client, MAX_BYTES)).json() == MAX_BYTES
        service.waits_on.set()
        assert [(await answer).json() for answer in waiting] == [MAX_BYTES] * 3

    run(monkeypatch, scenario)


def test_huge_bodies_are_parsed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        huge = [send(client, HUGE_BYTES + 1) for _ in range(3)]
        await until(lambda: service.begun)
        large = send(client, HUGE_BYTES // 2)
        await until(lambda: len(service.begun) == 2)
        service.release.set()
        await asyncio.gather(*huge, large)
        assert service.most_at_once == 2

    run(monkeypatch, scenario)


def test_senders_who_leave_give_their_shares_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        first = send(client, MAX_BYTES)
        await until(lambda: service.begun)
        gone = [send(client, MAX_BYTES) for _ in range(3)]
        await until(lambda: len(service.budget.waiting) == 3)
        for task in gone:
            task.cancel()
        service.release.set()
        assert (await first).json() == MAX_BYTES
        assert (await send(client, MAX_BYTES)).json() == MAX_BYTES

    run(monkeypatch, scenario)


def test_a_body_that_is_refused_unread_takes_no_share() -> None:
    async def unread(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the body is over the limit")

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def main() -> int:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        guard = Guard(BodyLimit(unread, 1000), "127.0.0.1")
        scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"9" * 12)]}
        await guard(scope, receive, send)
        return statuses[0]

    assert asyncio.run(main()) == 413


DENSE = b"[" + b"[]," * (MAX_VALUES // 2) + b"[]]"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_too_many_values_is_refused_before_it_is_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, is_chunked: bool
) -> None:
    async def parts() -> Any:
        for _ in range(3):
            yield DENSE

    monkeypatch.setattr(body_budget, "_PART_COUNTING", 1.0)

    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        refused = await client.post("/parse", content=parts() if is_chunked else DENSE * 3)
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed")
        assert f"more than {MAX_VALUES} values" in refused.json()["detail"]
        assert service.begun == []

    run(monkeypatch, scenario, max_bytes=4 * len(DENSE))


def test_values_are_counted_slowly_and_others_are_served_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        dense = asyncio.ensure_future(client.post("/parse", content=DENSE * 3))
        served = 0
        while not dense.done():
            assert (await client.post("/parse", content=b"x")).json() == 1
            served += 1
        assert (await dense).status_code == 400
        assert served >= 20

    run(monkeypatch, scenario, max_bytes=4 * len(DENSE))


def test_values_of_messages_in_lines_are_counted_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (b"[" + b"[]," * 1000 + b"[]]\n") * (MAX_VALUES // 1000)

    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        service.release.set()
        headers = {"Content-Type": "application/x-ndjson"}
        assert (await client.post("/parse", content=lines, headers=headers)).json() == len(lines)
        assert (await client.post("/parse", content=DENSE * 3, headers=headers)).status_code == 400

    run(monkeypatch, scenario, max_bytes=4 * len(DENSE))
