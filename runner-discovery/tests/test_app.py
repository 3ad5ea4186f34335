"""The HTTP contract, through a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner_discovery.app import create_discovery_app
from runner_discovery.live_registry import LiveRegistry
from runner_discovery.snapshot_file import SnapshotFile
from runner_discovery.turns import MOST_WAITING_BYTES, SMALL_BYTES
from runnerlib.contract import Catalogue
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.health import Health
from runnerlib.service.http_server import HttpServer

Make = Callable[..., dict[str, Any]]
Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]
Serve = Callable[..., None]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    def run(scenario: Scenario, lease_seconds: float = 30) -> None:
        async def main() -> None:
            async with (
                LiveRegistry(SnapshotFile(tmp_path / "d.json"), lease_seconds=lease_seconds) as live,
                HttpServer(create_discovery_app(live, Health()), "127.0.0.1", 0) as server,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client,
            ):
                client.live = live  # type: ignore[attr-defined]
                await scenario(client)

        asyncio.run(main())

    return run


def test_the_original_pattern_is_intact_at_both_places(serve: Serve) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for path, algorithm in (("/algorithms", "ocr"), ("/", "language_detection")):
            body = {"algorithm": algorithm, "host": "runner:8000"}
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()) == (200, body)
        for path in ("/algorithms", "/"):
            assert (await client.get(path)).json() == {"language_detection": "runner:8000", "ocr": "runner:8000"}

    serve(scenario)


def test_renewals_pass_registrations_that_wait_for_their_turn(serve: Serve, registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        turns = client.live.turns  # type: ignore[attr-defined]
        assert (await client.put("/runners/text-h-1", json=registration(upper=1))).status_code == 200
        large = registration(host="h:2", large=1)
        large["algorithms"][0]["description"] = "x" * SMALL_BYTES
        async with turns.turn(1):
            others = [
                asyncio.ensure_future(client.put(f"/runners/{name}", json=said))
                for name, said in (("new", registration(host="h:3", lower=1)), ("large", large))
            ]
            for _ in range(3):
                assert (await client.put("/runners/text-h-1", json=registration(upper=1))).status_code == 200
            assert not any(each.done() for each in others)
        assert [each.status_code for each in await asyncio.gather(*others)] == [200, 200]
        async with turns.turn(MOST_WAITING_BYTES):
            for said in (registration(host="h:4", title=1), large):
                refused = await client.put("/runners/more", json=said)
                assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert {each["id"] for each in (await client.get("/runners")).json()} == {"text-h-1", "new", "large"}

    serve(scenario)


def test_a_body_that_is_too_large_is_refused_also_without_its_length(serve: Serve) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 64 * 1024

        answer = await client.put("/runners/large", content=chunks())
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert (await client.get("/runners")).json() == []

    serve(scenario)


def test_a_runner_registers_renews_and_leaves(serve: Serve, registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        first = await client.put("/runners/text-h-1", json=registration(upper=1))
        assert first.status_code == 200
        assert (first.json()["index"], first.json()["lease_seconds"]) == (1, 30)
        assert (await client.put("/runners/text-h-1", json=registration(upper=1))).json() == first.json()
        (runner,) = (await client.get("/runners")).json()
        assert (runner["id"], runner["algorithms"]) == ("text-h-1", ["upper"])
        assert 25 < runner["lease_left_seconds"] <= 30
        assert (await client.get("/algorithms")).json() == {"upper": "http://127.0.0.1:9001"}
        other = await client.delete("/runners/text-h-1", params={"boot": "b0"})
        assert (other.status_code, other.json()["code"]) == (409, "other_boot")
        assert (await client.delete("/runners/text-h-1", params={"boot": "b1"})).status_code == 204
        gone = await client.delete("/runners/text-h-1")
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_runner")
        catalogue = Catalogue.model_validate((await client.get("/catalogue")).json())
        assert catalogue.runners == {}
        assert catalogue.algorithms["upper"].runners == []

    serve(scenario)


@pytest.mark.serial
def test_a_blocking_query_answers_at_a_change_an_expiry_and_after_its_wait(serve: Serve, registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        known = (await client.get("/catalogue")).json()
        query = {"epoch": known["epoch"], "index": known["index"], "wait": 30}
        waiting = asyncio.ensure_future(client.get("/catalogue", params=query))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await client.put("/runners/a", json=registration(upper=1))
        changed = (await asyncio.wait_for(waiting, 1)).json()
        assert list(changed["runners"]) == ["a"]
        expired = (await client.get("/catalogue", params={**query, "index": changed["index"]})).json()
        assert expired["runners"] == {}
        began = time.monotonic()
        same = await client.get("/catalogue", params={**query, "index": expired["index"], "wait": 0.2})
        assert same.json()["index"] == expired["index"]
        assert 0.2 <= time.monotonic() - began < 2

    serve(scenario, lease_seconds=1)


@pytest.mark.serial
def test_another_epoch_is_answered_at_once(serve: Serve) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        began = time.monotonic()
        await client.get("/catalogue", params={"epoch": "old", "index": 0, "wait": 30})
        assert time.monotonic() - began < 2

    serve(scenario)


@pytest.mark.serial
def test_a_watch_sees_a_new_runner_at_once(serve: Serve, registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        async with CatalogueWatch(str(client.base_url)) as watch:
            changes = await asyncio.wait_for(watch.wait_changed(0), 5)
            began = time.monotonic()
            await client.put("/runners/a", json=registration(upper=1))
            await asyncio.wait_for(watch.wait_changed(changes), 5)
            assert time.monotonic() - began < 0.5
            assert watch.catalogue is not None and "a" in watch.catalogue.runners
            assert not watch.is_sure

    serve(scenario)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed"),
        (b'{"name": "a", "name": "b"}', 400, "malformed"),
        (b'{"name": NaN}', 400, "malformed"),
        (b"[]", 422, "invalid_payload"),
        (b"{}", 422, "invalid_payload"),
        (b'{"name":"n","host":"file:///etc","boot":"b","algorithms":[]}', 422, "invalid_payload"),
        (b'{"name":"n","host":"h:1","boot":"b","algorithms":[{"name":"Upper"}]}', 422, "invalid_payload"),
        (b'{"name":"n","host":"h:1","boot":"b","algorithms":[{"name":"a"},{"name":"a"}]}', 422, "invalid_registration"),
        (b" " * 1_100_000, 413, "too_large"),
    ],
)
def test_a_bad_registration_is_a_problem(serve: Serve, body: bytes, status: int, code: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.put("/runners/a", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/runners")).json() == []

    serve(scenario)


@pytest.mark.parametrize(
    "body", [{"algorithm": "OCR", "host": "h:1"}, {"algorithm": "ocr"}, {"algorithm": "ocr", "host": 5}]
)
def test_a_bad_plain_registration_is_a_problem(serve: Serve, body: dict[str, Any]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/algorithms", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_payload")

    serve(scenario)


def test_health_metrics_and_docs_are_there(serve: Serve, registration: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await client.put("/runners/a", json=registration(upper=1))
        await client.put("/runners/b", json=registration(upper=2, host="h:2"))
        assert (await client.get("/healthz/live")).status_code == 200
        assert (await client.get("/healthz/ready")).status_code == 200
        assert "swagger" in (await client.get("/docs")).text
        metrics = (await client.get("/metrics")).text
        for line in ("runners 2.0", "algorithms 1.0", "conflicts 1.0", "index 2.0"):
            assert f"runner_discovery_{line}" in metrics
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {"/algorithms", "/runners", "/runners/{runner_id}", "/catalogue"} <= paths.keys()

    serve(scenario)
