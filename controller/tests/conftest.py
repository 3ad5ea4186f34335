"""A whole controller against real HTTP runners that do what a test tells them; queue and store on SQLite."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from servers import processes

from controller.build import build
from controller.settings import ControllerSettings
from runnerlib.contract import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    Limits,
    RunnerLevel,
    RunnerView,
    strict_json,
    task_digest,
)
from runnerlib.service.health import Health
from taskqueue.connect import open_embedded
from taskqueue.protocols import TaskQueue, TaskStore
from taskqueue.tasks import Delivery, NewTask, Published, TaskRow

LIMIT_SECONDS = 60.0


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits, bounded, until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[..., Coroutine[Any, Any, None]]:
    return until


@pytest.fixture
def go() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs one scenario on a fresh event loop, with a bound."""

    def call(scenario: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await scenario

        return asyncio.run(bounded())

    return call


class FakeSource:
    """A catalogue that a test sets; the controller sees it as it would see discovery's."""

    def __init__(self) -> None:
        self.catalogue: Catalogue | None = None
        self.is_sure = True
        self._changes = 0
        self._changed = asyncio.Event()

    async def wait_changed(self, since: int) -> int:
        while self._changes <= since:
            await self._changed.wait()
        return self._changes

    def publish(
        self,
        runners: Sequence[RunnerView],
        limits: dict[str, Limits],
        known: Sequence[str] = (),
        lease_seconds: float = 30.0,
    ) -> None:
        names = {name for runner in runners for name in runner.algorithms} | set(known)
        self._changes += 1
        self.catalogue = Catalogue(
            epoch="e",
            index=self._changes,
            uptime_seconds=1000,
            lease_seconds=lease_seconds,
            runners={runner.id: runner for runner in runners},
            algorithms={
                name: AlgorithmView(
                    description=AlgorithmDescription(name=name, limits=limits.get(name, Limits())),
                    schema_digest="d",
                    runners=[runner.id for runner in runners if name in runner.algorithms],
                )
                for name in names
            },
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class ScriptedRunner:
    """A runner over real sockets. A payload says what becomes of its run:

    {"do": "echo", "value": …} (default), "hold" (until `let_go`), {"do": "fail", "error": {…}}, "no_result",
    {"do": "fail_until", "attempt": n}.
    """

    def __init__(self, name: str = "r1", algorithms: Sequence[str] = ("echo",), level: str = "full") -> None:
        self.name = name
        self.algorithms = list(algorithms)
        self.level = level
        self.port = 0
        self.boots = itertools.count(1)
        self.boot = ""
        self.runs: dict[tuple[str, int], dict[str, Any]] = {}
        self.done: dict[tuple[str, int], asyncio.Event] = {}
        self.executions: list[tuple[str, int]] = []
        #: (ids, with payload, wait)
        self.calls: list[tuple[list[str], bool, float]] = []
        self.items: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        #: responses to give to the next calls with payload instead of working
        self.refusals: list[web.Response] = []
        #: cut the connection of the next calls with payload: "before" or "after" the runs started
        self.cuts: list[str] = []
        self.on_batch: Callable[[list[dict[str, Any]]], web.Response | None] = lambda items: None
        #: the answer to every call, with payload or without, once the runs have started
        self.says: Callable[[list[dict[str, Any]]], web.Response | None] = lambda items: None
        self.is_draining = False
        self._server: web.AppRunner | None = None

    @property
    def view(self) -> RunnerView:
        return RunnerView(
            id=self.name,
            name=self.name,
            host=f"http://127.0.0.1:{self.port}",
            boot=self.boot,
            level=RunnerLevel(self.level),
            algorithms=self.algorithms,
        )

    async def start(self) -> None:
        self.boot = f"{self.name}-boot{next(self.boots)}"
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/batch/{algorithm}", self._batch)
        app.router.add_post("/run/{algorithm}", self._run)
        app.router.add_delete("/tasks/{id}", self._delete)
        self._server = web.AppRunner(app, shutdown_timeout=0.01)
        await self._server.setup()
        site = web.TCPSite(self._server, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def kill(self) -> None:
        """As kill -9: connections are cut, all runs are gone."""
        if self._server is not None:
            server, self._server = self._server, None
            for connection in list(server.server.connections):  # type: ignore[union-attr]
                if connection.transport is not None:
                    connection.transport.abort()
            await server.cleanup()
        self.runs.clear()
        self.done.clear()

    def let_go(self, task_id: str, value: Any = "let go") -> None:
        for key, entry in self.runs.items():
            if key[0] == task_id and entry["state"] in ("running", "waiting"):
                entry.update(state="succeeded", result=value, seconds=2.0)
                self.done[key].set()

    def fail(self, task_id: str, error: dict[str, Any]) -> None:
        for key, entry in self.runs.items():
            if key[0] == task_id and entry["state"] == "running":
                entry.update(state="failed", error=error, seconds=2.0)
                self.done[key].set()

    def report(self, task_id: str, fraction: float) -> None:
        for key, entry in self.runs.items():
            if key[0] == task_id:
                entry["progress"] = {"fraction": fraction, "message": "at work"}

    def hand_back(self) -> None:
        """Draining: forgets what runs, so that it is `unknown`."""
        self.is_draining = True
        for key in [key for key, entry in self.runs.items() if entry["state"] == "running"]:
            del self.runs[key]
            self.done.pop(key).set()

    def started(self, task_id: str) -> bool:
        return any(each == task_id for each, _ in self.executions)

    def _headers(self) -> dict[str, str]:
        return {"Runner-Boot": self.boot}

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        items = await request.json()
        with_payload = any("payload" in item for item in items)
        wait = float(request.headers["Prefer"].removeprefix("wait="))
        self.calls.append(([item["id"] for item in items], with_payload, wait))
        if with_payload:
            self.items += items
            early = await self._instead(request, items)
            if early is not None:
                return early
        for item in items:
            self._accept(item)
        if with_payload and self.cuts and self.cuts.pop(0) == "after":
            return self._cut(request)
        said = self.says(items)
        if said is not None:
            return said
        events = [self.done[key] for item in items if (key := (item["id"], item["attempt"])) in self.done]
        if events:
            await asyncio.wait([asyncio.ensure_future(event.wait()) for event in events], timeout=wait)
        entries = [self._entry(item) for item in items]
        return web.json_response(entries, headers=self._headers())

    async def _instead(self, request: web.Request, items: list[dict[str, Any]]) -> web.Response | None:
        if self.cuts and self.cuts[0] == "before":
            self.cuts.pop(0)
            return self._cut(request)
        if self.is_draining:
            return web.Response(status=503, headers=self._headers())
        if self.refusals:
            return self.refusals.pop(0)
        return self.on_batch(items)

    def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def _entry(self, item: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.get((item["id"], item["attempt"]), {"state": "unknown"})
        return {"id": item["id"], "attempt": item["attempt"], **known}

    def _accept(self, item: dict[str, Any]) -> None:
        key = (item["id"], item["attempt"])
        if key in self.runs or "payload" not in item:
            return
        self.executions.append(key)
        payload = item["payload"] if isinstance(item["payload"], dict) else {}
        entry: dict[str, Any] = {"state": "succeeded", "seconds": 0.001}
        match payload.get("do", "echo"):
            case "echo":
                entry["result"] = payload.get("value")
            case "hold":
                entry = {"state": "running"}
            case "fail":
                entry = {"state": "failed", "error": payload["error"], "seconds": 0.001}
            case "fail_until" if item["attempt"] < payload["attempt"]:
                error = {"code": "handler_error", "message": "not yet", "retryable": True}
                entry = {"state": "failed", "error": error, "seconds": 0.001}
            case "fail_until":
                entry["result"] = item["attempt"]
        self.runs[key] = entry
        event = self.done[key] = asyncio.Event()
        if entry["state"] != "running":
            event.set()

    async def _run(self, request: web.Request) -> web.StreamResponse:
        task_id = request.headers["Task-Id"]
        self.executions.append((task_id, int(request.headers["Task-Attempt"])))
        if self.cuts:
            self.cuts.pop(0)
            return self._cut(request)
        if self.refusals:
            return self.refusals.pop(0)
        return web.json_response({"result": (await request.json()).get("value")})

    async def _delete(self, request: web.Request) -> web.Response:
        task_id = request.match_info["id"]
        self.deleted.append(task_id)
        for key, entry in self.runs.items():
            if key[0] == task_id and entry["state"] == "running":
                entry["state"] = "cancelled"
                self.done[key].set()
                return web.json_response({}, status=202)
        return web.json_response({}, status=404)


class World:
    """Queue, store, controller, runners of one test."""

    def __init__(self, queue: TaskQueue, store: TaskStore, sweeper: Any = None, open_door: Any = None) -> None:
        self.queue = queue
        self.store = store
        self.sweeper = sweeper or queue
        #: opens the ingress for each controller that starts
        self.open_door = open_door
        #: takes in what comes by it and waits in the store
        self.ledger: Any = None
        self.source = FakeSource()
        self.health = Health()
        self.registry = CollectorRegistry()
        self.limits: dict[str, Limits] = {}
        self.runners: list[ScriptedRunner] = []
        self.lease_seconds = 30.0
        self.settings = ControllerSettings(retry_steps_seconds=(0.05,), grace_seconds=0.3)
        self._stack = AsyncExitStack()

    async def start(self, *runners: ScriptedRunner, **settings: Any) -> None:
        for runner in runners:
            await runner.start()
            self.runners.append(runner)
        self.tell()
        await self.start_controller(**settings)

    async def start_controller(self, **settings: Any) -> None:
        self.settings = self.settings.model_copy(update=settings)
        self.registry = CollectorRegistry()
        await build(
            self._stack,
            self.settings,
            self.queue,
            self.store,
            self.source,
            self.health,
            self.registry,
            sweeper=self.sweeper,
            door=await self.open_door() if self.open_door else None,
            ledger=self.ledger or self.store,
        )

    def tell(self, *runners: ScriptedRunner, known: Sequence[str] = ()) -> None:
        """Discovery now knows these runners (all, when none is named)."""
        self.source.publish([each.view for each in runners or self.runners], self.limits, known, self.lease_seconds)

    def tell_none(self, known: Sequence[str] = ("echo",)) -> None:
        self.source.publish([], self.limits, known, self.lease_seconds)

    async def stop_controller(self) -> None:
        await self._stack.aclose()

    async def close(self) -> None:
        await self.stop_controller()
        for runner in self.runners:
            await runner.kill()

    async def send(self, *tasks: tuple[str, Any], algorithm: str = "echo", **more: Any) -> list[Published]:
        return await self.queue.publish(
            [
                NewTask(id, algorithm, strict_json.dumps(payload), task_digest(algorithm, payload), **more)
                for id, payload in tasks
            ]
        )

    async def ended(self, task_id: str, seconds: float = 30.0) -> TaskRow:
        row = await self.store.wait_finished(task_id, seconds)
        assert row is not None, f"{task_id} is unknown"
        assert row.state.is_terminal, f"{task_id} is still {row.state.value}"
        return row

    async def ended_soon(self, task_id: str, seconds: float = 30.0) -> TaskRow:
        """The same for a task of which the store may know nothing yet."""
        async with asyncio.timeout(seconds):
            while (row := await self.store.get(task_id)) is None or not row.state.is_terminal:
                await asyncio.sleep(0.01)
        return row

    async def row(self, task_id: str) -> TaskRow:
        row = await self.store.get(task_id)
        assert row is not None
        return row

    async def until_row(self, task_id: str, condition: Callable[[TaskRow], Any], seconds: float = 30.0) -> TaskRow:
        async with asyncio.timeout(seconds):
            while not condition(row := await self.row(task_id)):
                await asyncio.sleep(0.02)
        return row

    async def handed_out(self, task_id: str, algorithm: str = "echo") -> Delivery:
        """Takes the task as a controller would that is then killed."""
        feed = await self.queue.feed(algorithm)
        await feed.set_prefetch(1)
        (delivery,) = await feed.take(1)
        assert delivery.id == task_id
        return delivery

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


Worlds = Callable[..., Any]


@pytest.fixture
def worlds(tmp_path: Path) -> Worlds:
    """``async with worlds() as world``: on a new file; ``worlds(path)``: on that; ``worlds(parts=…)``: on others."""
    numbers = itertools.count()

    @asynccontextmanager
    async def opened(path: Path | None = None, parts: tuple[Any, ...] = ()) -> AsyncIterator[World]:
        async with AsyncExitStack() as stack:
            if parts:
                world = World(*parts)
            else:
                file = path or tmp_path / f"world-{next(numbers)}.db"
                world = World(*(await stack.enter_async_context(open_embedded(file))))
            stack.push_async_callback(world.close)
            yield world

    return opened


@pytest.fixture
def make_runner() -> Callable[..., ScriptedRunner]:
    return ScriptedRunner


@pytest.fixture
def problem() -> Callable[..., web.Response]:
    def make(
        status: int, code: str = "", detail: str = "no", headers: dict[str, str] | None = None, **more: Any
    ) -> Any:
        body = {"title": "t", "status": status, "code": code, "detail": detail, **more}
        return web.Response(
            status=status, body=json.dumps(body), content_type="application/problem+json", headers=headers
        )

    return make


@pytest.fixture
def free_port() -> int:
    return processes.free_port()
