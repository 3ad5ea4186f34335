"""Processes learn of ended tasks from PostgreSQL's NOTIFY, and from a query each second if a notification is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, suppress

import psycopg

from runnerlib.service.backoff import Backoff
from taskqueue.errors import StoreUnavailable
from taskqueue.postgres.bulk import split
from taskqueue.postgres.engine import ANSWER_SECONDS, Parameters
from taskqueue.waiters import Waiters

_log = logging.getLogger(__name__)

CHANNEL = "plugplay_ended"
LISTEN = f"LISTEN {CHANNEL}"
#: One round trip, its own transaction, and no wait for the disk.
NOTIFY = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', %s)"
#: Stays below PostgreSQL's limit for a notification (8,000 bytes).
_MAX_BYTES = 7_800
_SEPARATOR = "\n"
POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 10.0


def payloads(ids: Sequence[str]) -> Iterator[str]:
    """The ids in as few notifications as possible."""
    for part in split(ids, lambda task_id: len(task_id.encode()) + 1, _MAX_BYTES):
        yield _SEPARATOR.join(part)


class EndListener:
    """Wakes the waiters of one process. Lives on the event loop; opens its connection on the first `start`."""

    def __init__(
        self,
        parameters: Parameters,
        waiters: Waiters,
        find_ended: Callable[[Sequence[str]], Awaitable[Collection[str]]],
    ) -> None:
        """`find_ended` returns those of the given ids that have ended, by one query."""
        self._parameters = parameters
        self._waiters = waiters
        self._find_ended = find_ended
        self._listener: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to listen, and polls as long as somebody waits. Idempotent."""
        if self._closed:
            return
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen_forever(), name="listen for ended tasks")
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_while_waited_for(), name="look for ended tasks")

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        tasks = [task for task in (self._listener, self._poller) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll_while_waited_for(self) -> None:
        while self._waiters.ids():
            await asyncio.sleep(POLL_SECONDS)
            await self._check_ended()

    async def _check_ended(self) -> None:
        ids = list(self._waiters.ids())
        if ids:
            # if the database is away, waiters learn of it when they read their row
            with suppress(StoreUnavailable):
                self._waiters.ended(await self._find_ended(ids))

    async def _listen_forever(self) -> None:
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS, least=0.5)
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)
                async with connection:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await connection.execute(LISTEN)
                    backoff.reset()
                    # what ended before it listened
                    await self._check_ended()
                    await self._listen(connection)
            except (psycopg.Error, TimeoutError) as error:
                _log.info("not listening for ended tasks, looking for them each second: %s", type(error).__name__)
            await asyncio.sleep(backoff.next_seconds())

    async def _listen(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        async with aclosing(connection.notifies()) as notifications:
            async for notification in notifications:
                self._waiters.ended(notification.payload.split(_SEPARATOR))
