"""A database: one thread that owns the one writing connection, with group commit, and a few threads that only read.

SQLite before 3.51.3 can corrupt a WAL that two connections write; one writer is also the fastest there is. Functions
that wait at the same time share one transaction, so that one flush to the disk makes all of them durable.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from taskqueue.errors import QueueUnavailable, StoreUnavailable
from taskqueue.sql.errors import translate_errors

Value = TypeVar("Value")

#: Functions that share one transaction. More would hold the write lock longer than a person notices.
MAX_GROUP = 256
#: Functions that may wait; the next caller waits for room (back-pressure).
MAX_WAITING = 4096
#: Reading threads. More would only contend: a read takes well under a millisecond.
READERS = 2


class Stage(Enum):
    """How far a transaction came that failed."""

    #: it could not even begin: trying its functions one by one would only wait again
    BEGINNING = "beginning"
    INSIDE = "inside"
    #: it may have been committed all the same
    COMMITTING = "committing"


class WriterHooks:
    """What differs from one database to the next. Called in the writer's thread."""

    #: after so long without a write, `when_idle` is called (once)
    idle_seconds = 3600.0

    def before_group(self, connection: Connection, durable: bool) -> None:
        """Called before each transaction; `durable`: its commit must survive a power failure."""

    def after_group(self, connection: Connection) -> None:
        """Called after the callers have been told; must not raise."""

    def repeat_after(self, error: BaseException, stage: Stage, times: int) -> float | None:
        """Seconds until a transaction that failed `times` times is tried again; None: it is not."""
        return None

    def is_away(self, error: BaseException, stage: Stage) -> bool:
        """Whether the database cannot be reached, so that every waiting function fails with the same error."""
        return False

    def when_idle(self, connection: Connection) -> None:
        """Tidies up; must not raise."""


class Database:
    """Runs functions of a connection in threads and translates the driver's errors."""

    def __init__(
        self,
        connection: Connection,
        hooks: WriterHooks,
        reading_engine: Engine,
        *,
        is_worth_repeating: Callable[[DBAPIError], bool] = lambda _: True,
    ) -> None:
        """Takes over `connection`, for writing, and `reading_engine`; `close` closes both.

        `is_worth_repeating` says whether a read whose connection was lost is tried once more on a new one.
        """
        self._writer = Writer(connection, hooks)
        self._engine = reading_engine
        self._is_worth_repeating = is_worth_repeating
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="taskqueue-reader")
        self._closed = False

    async def read(self, function: Callable[[Connection], Value]) -> Value:
        """Calls `function` with a connection that cannot write. Raises StoreUnavailable."""
        with translate_errors(StoreUnavailable):
            if self._closed:
                raise ResourceClosedError("the readers are closed")
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, function)

    async def write(
        self,
        function: Callable[[Connection], Value],
        *,
        then: Callable[[Value], None] | None = None,
        durable: bool = True,
        unavailable: type[QueueUnavailable] | type[StoreUnavailable] = StoreUnavailable,
    ) -> Value:
        """See `Writer.run`. Raises `unavailable` when the database cannot serve."""
        with translate_errors(unavailable):
            return await self._writer.run(function, then=then, durable=durable)

    async def close(self) -> None:
        """Waits for the reads and writes under way. Idempotent."""
        self._closed = True
        try:
            await asyncio.to_thread(self._readers.shutdown)
            self._engine.dispose()
        finally:
            await self._writer.close()

    def _read(self, function: Callable[[Connection], Value]) -> Value:
        try:
            with self._engine.connect() as connection:
                return function(connection)
        except DBAPIError as error:
            if not error.connection_invalidated or not self._is_worth_repeating(error):
                raise
        # The connection had been cut, maybe long ago; all others that are as old have been dropped with it.
        with self._engine.connect() as connection:
            return function(connection)


@dataclass(slots=True)
class _Work:
    function: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    then: Callable[[Any], None] | None
    durable: bool
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Failure:
    cause: BaseException
    stage: Stage


class Writer:
    """Runs functions in transactions: `value = await writer.run(function)`."""

    def __init__(self, connection: Connection, hooks: WriterHooks) -> None:
        """Takes over the connection; `close` closes it."""
        self._connection = connection
        self._hooks = hooks
        #: None: the writer was closed, and nothing comes behind it
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="taskqueue-writer", daemon=True)
        self._thread.start()

    async def run(
        self,
        function: Callable[[Connection], Value],
        *,
        then: Callable[[Value], None] | None = None,
        durable: bool = True,
    ) -> Value:
        """Calls function(connection) inside a transaction and returns its value once that is committed.

        The function may be called twice (a group that fails is repeated one by one), so it changes nothing but the
        database. `then` is called with the value on the event loop after the commit, also when the caller has been
        cancelled meanwhile. `durable=False`: a power failure may undo it, a killed process never does.
        """
        async with self._room:
            if self._closed:
                raise ResourceClosedError("the writer is closed")
            loop = asyncio.get_running_loop()
            work = _Work(function, loop, loop.create_future(), then, durable)
            self._queue.put(work)
            result: Value = await work.future
            return result

    async def close(self) -> None:
        """Finishes what waits, then closes the connection. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        with self._connection as connection:
            while (first := self._next(connection)) is not None:
                group = [first, *self._waiting(MAX_GROUP - 1)]
                away = self._run_group(connection, group)
                if away is not None:
                    # What waits would only wait for the same. Taken out before the callers learn of the outage: a
                    # caller that asks again afterwards gets a try of its own.
                    refused = self._waiting(MAX_WAITING)
                    _fail(refused, away)
                    group += refused
                _announce(group)
                if away is None:
                    self._hooks.after_group(connection)
        self._connection.engine.dispose()

    def _next(self, connection: Connection) -> _Work | None:
        try:
            return self._queue.get(timeout=self._hooks.idle_seconds)
        except queue.Empty:
            self._hooks.when_idle(connection)
            return self._queue.get()

    def _waiting(self, most: int) -> list[_Work]:
        """Takes what is in the queue now, without waiting."""
        taken: list[_Work] = []
        while len(taken) < most:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._queue.put(None)
                break
            taken.append(work)
        return taken

    def _run_group(self, connection: Connection, group: list[_Work]) -> BaseException | None:
        """Returns the error if the database is away."""
        failure = self._attempt(connection, group)
        if failure is None:
            return None
        away = self._hooks.is_away(failure.cause, failure.stage)
        if away or failure.stage is Stage.BEGINNING or len(group) == 1:
            _fail(group, failure.cause)
            return failure.cause if away else None
        for index, work in enumerate(group):
            alone = self._attempt(connection, [work])
            if alone is None:
                continue
            work.error = alone.cause
            if self._hooks.is_away(alone.cause, alone.stage):
                _fail(group[index:], alone.cause)
                return alone.cause
        return None

    def _attempt(self, connection: Connection, group: list[_Work]) -> _Failure | None:
        times = 0
        while (failure := self._transaction(connection, group)) is not None:
            times += 1
            pause = self._hooks.repeat_after(failure.cause, failure.stage, times)
            if pause is None:
                return failure
            time.sleep(pause)
        return None

    def _transaction(self, connection: Connection, group: list[_Work]) -> _Failure | None:
        stage = Stage.BEGINNING
        try:
            self._hooks.before_group(connection, any(work.durable for work in group))
            with connection.begin():
                stage = Stage.INSIDE
                for work in group:
                    work.value = work.function(connection)
                stage = Stage.COMMITTING
        except Exception as error:
            # What a function raises belongs to its caller, which gets it from the future.
            return _Failure(error, stage)
        return None


def _fail(group: list[_Work], error: BaseException) -> None:
    for work in group:
        work.error = error


def _announce(group: list[_Work]) -> None:
    """Tells the waiting coroutines, with one wake-up of each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Work]] = {}
    for work in group:
        by_loop.setdefault(work.loop, []).append(work)
    for loop, works in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, works)


def _resolve(works: list[_Work]) -> None:
    for work in works:
        if work.error is None and work.then is not None:
            work.then(work.value)
        if work.future.done():
            continue
        if work.error is None:
            work.future.set_result(work.value)
        else:
            work.future.set_exception(work.error)
