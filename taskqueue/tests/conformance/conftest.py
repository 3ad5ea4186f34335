"""The implementations that every conformance test runs over.

Another queue or store joins by one more branch here. The suites take a queue and a store that need not know each
other: publishing makes no row, and recording settles nothing, as far as these tests are concerned.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from taskqueue.protocols import TaskQueue, TaskStore

OpenQueue = Callable[[], AbstractAsyncContextManager[TaskQueue]]
OpenStore = Callable[[], AbstractAsyncContextManager[TaskStore]]


@pytest.fixture
def open_queue(open_pair: Callable[[], AbstractAsyncContextManager[tuple[TaskQueue, TaskStore]]]) -> OpenQueue:
    @asynccontextmanager
    async def opened() -> AsyncIterator[TaskQueue]:
        async with open_pair() as (queue, _):
            yield queue

    return opened


@pytest.fixture
def open_store(open_pair: Callable[[], AbstractAsyncContextManager[tuple[TaskQueue, TaskStore]]]) -> OpenStore:
    @asynccontextmanager
    async def opened() -> AsyncIterator[TaskStore]:
        async with open_pair() as (_, store):
            yield store

    return opened
