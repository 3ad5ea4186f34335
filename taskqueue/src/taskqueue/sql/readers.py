"""Reads in a few threads, each with short transactions on a connection that cannot write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ResourceClosedError

Value = TypeVar("Value")

#: More threads would only contend: a read takes well under a millisecond.
READERS = 2


class Readers:
    """`value = await readers.run(function)` calls function(connection) in a thread."""

    def __init__(
        self,
        engine: Engine,
        threads: int = READERS,
        *,
        is_worth_repeating: Callable[[DBAPIError], bool] = lambda _: True,
    ) -> None:
        """`is_worth_repeating`: whether a read whose connection was lost is tried once more on a new one."""
        self._engine = engine
        self._is_worth_repeating = is_worth_repeating
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
        try:
            return self._read(function)
        except DBAPIError as error:
            if not error.connection_invalidated or not self._is_worth_repeating(error):
                raise
        # The connection had been cut, maybe long ago; all others that are as old have been dropped with it.
        return self._read(function)

    def _read(self, function: Callable[[Connection], Value]) -> Value:
        with self._engine.connect() as connection:
            return function(connection)
