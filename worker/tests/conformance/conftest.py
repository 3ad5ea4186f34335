"""A runner that fulfils the whole contract in memory, but for the one fault that it is made with."""

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

MAX_BYTES = 16 * 1024 * 1024
SCHEMA = {
    "type": "object",
    "properties": {"seconds": {"type": "number"}},
    "required": ["seconds"],
    "additionalProperties": False,
}


class Refused(Exception):
    def __init__(self, status: int, code: str, retry_after: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.retry_after = status, code, retry_after


@dataclass
class Run:
    id: str
    attempt: int
    payload: Any
    is_of_batch: bool
    state: str = "waiting"
    seconds: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    work: "asyncio.Task[None] | None" = None

    def end(self, state: str) -> None:
        if not self.ended.is_set():
            self.state = state
            self.ended.set()
            if self.work is not None:
                self.work.cancel()

    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = {"id": self.id, "attempt": self.attempt, "state": self.state}
        if self.state == "succeeded":
            found |= {"result": self.payload["seconds"], "seconds": self.seconds}
        return found


class Model:
    """One algorithm, `nap`, and one slot. `fault` is the name of the check that it must not pass.

    `token`: for runs; empty: it asks for none.
    """

    def __init__(self, fault: str = "", token: str = "") -> None:
        self.fault = fault
        self.token = token
        self.boot = uuid.uuid4().hex
        self.runs: dict[str, Run] = {}
        self.slot = asyncio.Semaphore(100 if fault in ("attach", "full") else 1)
        self.open = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=10 * MAX_BYTES, middlewares=[self.guard])
        app.add_routes(
            [
                web.post("/run/{name}", self.run),
                web.post("/batch/{name}", self.batch),
                web.get("/tasks/{id}", self.show),
                web.delete("/tasks/{id}", self.cancel),
                web.get("/schemas", self.schemas),
                web.get("/healthz/live", self.live),
                web.get("/healthz/ready", self.ready),
            ]
        )
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            self.let_in(request)
            answer = await handler(request)
        except Refused as refused:
            answer = self.problem(refused)
        if self.fault != "boot: none":
            answer.headers["Runner-Boot"] = uuid.uuid4().hex if self.fault == "boot" else self.boot
        return answer

    def let_in(self, request: web.Request) -> None:
        forgotten = {"token": "run", "token_tasks": "tasks", "token_batch": "batch"}.get(self.fault)
        part = request.path.split("/")[1]
        needs = {"run", "tasks", "batch"} - {forgotten} | ({"docs"} if self.fault == "open_to_all" else set())
        is_right = request.headers.get("Authorization") == f"Bearer {self.token}"
        if self.token and part in needs and not is_right:
            raise Refused(401, "unauthorized")

    def problem(self, refused: Refused) -> web.Response:
        body = {"title": "no", "status": refused.status, "code": refused.code, "detail": "a sentence"}
        if self.fault == "problems: no code":
            del body["code"]
        if self.fault == "problems: traceback":
            body["detail"] = "Traceback (most recent call last): ..."
        kind = "application/json" if self.fault == "problems" else "application/problem+json"
        answer = web.Response(status=refused.status, text=json.dumps(body), content_type=kind)
        if refused.retry_after is not None and self.fault != "busy":
            answer.headers["Retry-After"] = refused.retry_after
        return answer

    # one task a call

    async def run(self, request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > MAX_BYTES and self.fault != "too_large":
            if self.fault == "too_large: silent":
                await asyncio.sleep(60)
            raise Refused(413, "too_large")
        if request.match_info["name"] != "nap":
            raise Refused(500 if self.fault == "unknown_algorithm" else 404, "unknown_algorithm")
        if self.fault == "task_headers" and "Task-Deadline" in request.headers:
            raise Refused(400, "malformed")
        payload = self.read(body)
        if not self.fits(payload):
            raise Refused(500 if self.fault == "invalid_payload" else 422, "invalid_payload")
        id = request.headers.get("Task-Id", uuid.uuid4().hex)
        run = self.submit(id, int(request.headers.get("Task-Attempt", "1")), payload)
        await self.wait([run], request, None if self.fault == "later" else _wait(request, None))
        return self.answer(run)

    def answer(self, run: Run) -> web.Response:
        match run.state:
            case "succeeded":
                name = "output" if self.fault == "run" else "result"
                return web.json_response({name: run.payload["seconds"]})
            case "waiting" | "running":
                return web.json_response(run.entry(), status=202)
        raise Refused(409, run.state)

    def read(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            raise Refused(422 if self.fault == "malformed" else 400, "malformed") from None

    def fits(self, payload: Any) -> bool:
        return isinstance(payload, dict) and payload.keys() == {"seconds"}

    def submit(self, id: str, attempt: int, payload: Any, *, is_of_batch: bool = False) -> Run:
        known = self.runs.get(id)
        if known is not None:
            stale_fault = "stale" if is_of_batch else "attempts"
            if attempt < known.attempt:
                if self.fault == stale_fault:
                    return known
                raise Refused(409, "stale_attempt")
            if attempt == known.attempt:
                if known.payload != payload and self.fault not in ("conflict", "again: conflict"):
                    raise Refused(409, "id_conflict")
                runs_again = self.fault == ("again" if is_of_batch else "kept") and known.ended.is_set()
                if not runs_again and (self.fault != "attach" or known.ended.is_set()):
                    return known
            elif self.fault != "supersede":
                known.end("stale_attempt")
        if self.open >= 2 and self.fault != "full":
            raise Refused(429, "busy", "0.05")
        run = self.runs[id] = Run(id, attempt, payload, is_of_batch)
        self.open += 1
        run.work = asyncio.create_task(self.work(run))
        return run

    async def work(self, run: Run) -> None:
        try:
            async with self.slot:
                run.state = "running"
                started_at = time.monotonic()
                await asyncio.sleep(run.payload["seconds"])
                run.seconds = time.monotonic() - started_at
            run.end("succeeded")
        finally:
            self.open -= 1

    async def wait(self, runs: list[Run], request: web.Request, seconds: float | None) -> None:
        deadline = time.monotonic() + (3600 if seconds is None else seconds)
        while any(not run.ended.is_set() for run in runs) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            if self.fault == "disconnect" and (request.transport is None or request.transport.is_closing()):
                for run in runs:
                    run.end("cancelled")

    # what is known

    async def show(self, request: web.Request) -> web.Response:
        run = self.runs.get(request.match_info["id"])
        if run is None:
            raise Refused(404, "unknown_task")
        entry = run.entry()
        if self.fault == "task":
            entry.pop("result", None)
        return web.json_response(entry)

    async def cancel(self, request: web.Request) -> web.Response:
        run = self.runs.get(request.match_info["id"])
        if run is None and self.fault != "unknown_task":
            raise Refused(404, "unknown_task")
        if run is not None and run.ended.is_set():
            raise Refused(409, "already_finished")
        if run is not None and self.fault != "cancel":
            run.end("cancelled")
        return web.json_response({}, status=202)

    async def schemas(self, _: web.Request) -> web.Response:
        schema: Any = {"type": "nothing"} if self.fault == "schemas: no schema" else SCHEMA
        output = {"type": "string"} if self.fault == "schemas: other result" else {"type": "number"}
        described = {"name": "nap", "input_schema": schema, "output_schema": output}
        described["example"] = {"payload": {"seconds": 0.01}}
        return web.json_response([] if self.fault == "schemas" else [described])

    async def live(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=404 if self.fault == "live" else 200)

    async def ready(self, _: web.Request) -> web.Response:
        return web.json_response({}, status=503 if self.fault == "ready" else 200)

    # many tasks a call

    async def batch(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != "nap":
            raise Refused(404, "unknown_algorithm")
        items = self.read(await request.read())
        if self.fault == "refused" and isinstance(items, dict):
            return web.json_response([])
        if not isinstance(items, list) or not all({"id", "attempt"} <= item.keys() for item in items):
            raise Refused(400, "malformed")
        if self.fault == "neighbours" and not all(self.fits(item.get("payload", {"seconds": 0})) for item in items):
            raise Refused(422, "invalid_payload")
        if self.open >= 2 and any("payload" in item for item in items):
            raise Refused(429, "busy", "0.05")
        found = [self.admit(item) for item in items]
        runs = [each for each in found if isinstance(each, Run)]
        await self.wait(runs, request, None if self.fault == "wait" else _wait(request, 20))
        entries = [each.entry() if isinstance(each, Run) else each for each in found]
        return web.json_response(entries[::-1] if self.fault == "batch" else entries)

    def admit(self, item: dict[str, Any]) -> Run | dict[str, Any]:
        bare = {"id": item["id"], "attempt": item["attempt"]}
        if "payload" not in item:
            run = self.runs.get(item["id"])
            if run is None and self.fault == "unknown":
                return self.submit(item["id"], item["attempt"], {"seconds": 0}, is_of_batch=True)
            is_hidden = run is not None and not run.is_of_batch and self.fault == "ask"
            return {**bare, "state": "unknown"} if run is None or is_hidden else run
        if not self.fits(item["payload"]):
            return {**bare, "state": "failed", "error": {"code": "invalid_payload", "message": "no"}}
        open_before, self.open = self.open, 0
        try:
            return self.submit(item["id"], item["attempt"], item["payload"], is_of_batch=True)
        except Refused as refused:
            if refused.code == "stale_attempt":
                return {**bare, "state": "stale_attempt"}
            return {**bare, "state": "failed", "error": {"code": refused.code, "message": "no"}}
        finally:
            self.open += open_before


def _wait(request: web.Request, default: float | None) -> float | None:
    prefer = request.headers.get("Prefer")
    return default if prefer is None else float(prefer.removeprefix("wait="))


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def model() -> type[Model]:
    return Model


@pytest.fixture
def serve() -> Callable[[web.Application], contextlib.AbstractAsyncContextManager[str]]:
    return served


@pytest.fixture
def sound_runner() -> Iterator[str]:
    """The URL of a sound one, on a loop of its own: for tests that start processes."""
    loop = asyncio.new_event_loop()
    context = served(Model().app())
    url = loop.run_until_complete(context.__aenter__())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.close()
