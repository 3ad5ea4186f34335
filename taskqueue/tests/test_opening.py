"""A store that is not there yet is waited for; one that is wrongly configured is not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from runnerlib.service.health import Health
from runnerlib.service.lifecycle import StartupError
from taskqueue.errors import StoreUnavailable, TaskQueueError, UnsuitableAddress
from taskqueue.opening import opened, opened_when_there

Run = Callable[[Coroutine[Any, Any, None]], None]


class Server:
    """Fails as told, then opens."""

    def __init__(self, *errors: TaskQueueError) -> None:
        self.errors = list(errors)
        self.is_open = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Server"]:
        if self.errors:
            raise self.errors.pop(0)
        self.is_open = True
        try:
            yield self
        finally:
            self.is_open = False


def test_store_that_is_away_is_waited_for_and_reported(run: Run) -> None:
    async def scenario() -> None:
        health, server = Health("store"), Server(*[StoreUnavailable("no connection to the database")] * 2)
        async with AsyncExitStack() as stack:
            opening = asyncio.create_task(opened_when_there(stack, server.open, health.set))
            while health.reasons != {"store": "no connection to the database"}:
                await asyncio.sleep(0)
            assert await opening is server
            assert server.is_open and health.is_ready
        assert not server.is_open

    run(scenario())


def test_store_that_is_configured_wrongly_ends_the_start_with_its_sentence(run: Run) -> None:
    async def scenario() -> None:
        server = Server(UnsuitableAddress("set another password in DATABASE_URL"))
        async with AsyncExitStack() as stack:
            with pytest.raises(StartupError, match="set another password"):
                await opened_when_there(stack, server.open, Health().set)
            with pytest.raises(StartupError, match="no connection"):
                await opened(stack, Server(StoreUnavailable("no connection")).open())

    run(scenario())
