import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from component_check import check_component
from fastapi import FastAPI, Request
from starlette.responses import Response

from runnerlib.contract import AlgorithmDescription, AlgorithmView, Catalogue
from runnerlib.service.catalogue_watch import CatalogueWatch
from runnerlib.service.http_server import HttpServer

Eventually = Callable[..., Any]


class Discovery:
    """Answers what the test says, and keeps the queries it got."""

    def __init__(self) -> None:
        self.answer: Catalogue | bytes = catalogue(index=1)
        self.queries: list[dict[str, str]] = []
        self.changed = asyncio.Event()
        self.app = FastAPI()
        self.app.add_api_route("/catalogue", self.reply)

    def say(self, answer: "Catalogue | bytes") -> None:
        self.answer = answer
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def reply(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.queries.append(query)
        known = (query.get("epoch"), query.get("index"))
        if isinstance(self.answer, Catalogue) and known == (self.answer.epoch, str(self.answer.index)):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.changed.wait(), float(query["wait"]))
        body = self.answer if isinstance(self.answer, bytes) else self.answer.model_dump_json().encode()
        return Response(body, media_type="application/json")


def catalogue(*, index: int, epoch: str = "e1", uptime: float = 100.0) -> Catalogue:
    return Catalogue(epoch=epoch, index=index, uptime_seconds=uptime, lease_seconds=30.0, runners={}, algorithms={})


def url(server: HttpServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.serial
def test_the_catalogue_is_known_and_changes_arrive_at_once(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        async with HttpServer(discovery.app, "127.0.0.1", 0) as server, CatalogueWatch(url(server)) as watch:
            assert await asyncio.wait_for(watch.wait_changed(0), 5) == 1
            assert watch.catalogue is not None and watch.catalogue.index == 1
            waiting = asyncio.ensure_future(watch.wait_changed(1))
            await eventually(lambda: len(discovery.queries) == 2)
            began = time.monotonic()
            discovery.say(catalogue(index=2))
            assert await asyncio.wait_for(waiting, 5) == 2
            assert time.monotonic() - began < 1
            assert discovery.queries[:2] == [{}, {"index": "1", "epoch": "e1", "wait": "30.0", "changes": "true"}]

    asyncio.run(scenario())


def test_an_answer_without_a_change_is_no_change_but_keeps_us_informed(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        async with (
            HttpServer(discovery.app, "127.0.0.1", 0) as server,
            CatalogueWatch(url(server), wait_seconds=0.1) as watch,
        ):
            await eventually(lambda: len(discovery.queries) > 4)
            assert await watch.wait_changed(0) == 1
            age = watch.last_answer_age_seconds
            assert age is not None and age < 1

    asyncio.run(scenario())


def test_the_last_catalogue_stays_when_discovery_is_away_or_talks_nonsense(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(HttpServer(discovery.app, "127.0.0.1", 0))
            watch = await stack.enter_async_context(CatalogueWatch(url(server), wait_seconds=0.1))
            await watch.wait_changed(0)
            for nonsense in (b"{", b'{"epoch": 5}', b"\xff"):
                seen = len(discovery.queries)
                discovery.say(nonsense)
                await eventually(lambda seen=seen: len(discovery.queries) > seen + 1)
            assert watch.catalogue is not None and watch.catalogue.index == 1
            await server.__aexit__(None, None, None)
            await asyncio.sleep(0.2)
            assert watch.catalogue is not None and watch.catalogue.index == 1
            discovery.say(catalogue(index=1, epoch="e2"))
            await stack.enter_async_context(HttpServer(discovery.app, "127.0.0.1", server.port))
            assert await asyncio.wait_for(watch.wait_changed(1), 10) == 2
            assert watch.catalogue.epoch == "e2"

    asyncio.run(scenario())


def test_an_unknown_name_is_only_sure_after_one_lease(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        discovery.answer = catalogue(index=1, uptime=5)
        async with HttpServer(discovery.app, "127.0.0.1", 0) as server, CatalogueWatch(url(server)) as watch:
            assert not watch.is_sure
            assert watch.last_answer_age_seconds is None
            await watch.wait_changed(0)
            assert not watch.is_sure
            discovery.say(catalogue(index=2, uptime=31))
            await watch.wait_changed(1)
            assert watch.is_sure

    asyncio.run(scenario())


@pytest.mark.serial
def test_a_young_discovery_is_asked_again_as_soon_as_its_lease_is_over(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        discovery.answer = catalogue(index=1, uptime=29.9)
        async with HttpServer(discovery.app, "127.0.0.1", 0) as server, CatalogueWatch(url(server)) as watch:
            await watch.wait_changed(0)
            discovery.answer = catalogue(index=1, uptime=30.1)
            await eventually(lambda: watch.is_sure, 3)
            assert 0 < float(discovery.queries[1]["wait"]) < 1
            await eventually(lambda: len(discovery.queries) > 2)
            assert discovery.queries[2]["wait"] == "30.0"

    asyncio.run(scenario())


def test_a_watch_without_discovery_starts_and_stops() -> None:
    async def scenario() -> None:
        await asyncio.wait_for(check_component(lambda: CatalogueWatch("http://127.0.0.1:9")), 5)

    asyncio.run(scenario())


def described(name: str, *runners: str) -> dict[str, AlgorithmView]:
    return {name: AlgorithmView(description=AlgorithmDescription(name=name), schema_digest="d", runners=list(runners))}


def test_changes_are_put_into_what_is_known_and_the_rest_stays_the_same_object() -> None:
    async def scenario() -> None:
        discovery = Discovery()
        discovery.answer = catalogue(index=1).model_copy(
            update={"algorithms": described("upper", "a") | described("lower", "a") | described("gone")}
        )
        async with HttpServer(discovery.app, "127.0.0.1", 0) as server, CatalogueWatch(url(server)) as watch:
            changes = await asyncio.wait_for(watch.wait_changed(0), 5)
            assert watch.catalogue is not None
            upper = watch.catalogue.algorithms["upper"]
            part = {"since": 1, "algorithms": described("lower", "b"), "gone_algorithms": ["gone"], "more": True}
            discovery.say(catalogue(index=2).model_copy(update=part))
            changes = await asyncio.wait_for(watch.wait_changed(changes), 5)
            assert set(watch.catalogue.algorithms) == {"upper", "lower"}
            assert watch.catalogue.algorithms["upper"] is upper
            assert watch.catalogue.algorithms["lower"].runners == ["b"]
            assert not watch.is_sure, "more changes are to come"
            discovery.say(catalogue(index=3).model_copy(update={"since": 2}))
            await asyncio.wait_for(watch.wait_changed(changes), 5)
            assert watch.is_sure

    asyncio.run(scenario())


def test_changes_that_do_not_follow_what_is_known_lead_to_the_whole(eventually: Eventually) -> None:
    async def scenario() -> None:
        discovery = Discovery()
        async with HttpServer(discovery.app, "127.0.0.1", 0) as server, CatalogueWatch(url(server)) as watch:
            await asyncio.wait_for(watch.wait_changed(0), 5)
            discovery.say(catalogue(index=9).model_copy(update={"since": 7, "algorithms": described("upper")}))
            await eventually(lambda: discovery.queries[-1] == {})
            assert watch.catalogue is not None and watch.catalogue.algorithms == {}
            discovery.say(catalogue(index=9))
            await eventually(lambda: watch.catalogue is not None and watch.catalogue.index == 9)

    asyncio.run(scenario())
