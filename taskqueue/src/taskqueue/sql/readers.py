"""Reads in a few threads, each with short transactions on a connection that cannot write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ResourceClosedError

Value = TypeVar("Value")

#: More threads would only contend: a read takes well under a millisecond.
READERS = 2


class Readers:
    """`value = await readers.run(function)` calls function(connection) in a thread."""

    def __init__(self, engine: Engine, threads: int = READERS) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="taskqueue-reader")
        self._closed = False

    async def run(self, function: Callable[[Connection], Value]) -> Value:
        if self._closed:
            raise ResourceClosedError("the readers are closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, function)

    async def close(self) -> None:
        """Waits for the reads under way. Idempotent."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    def _call(self, function: Callable[[Connection], Value]) -> Value:
        with self._engine.connect() as connection:
            return function(connection)
