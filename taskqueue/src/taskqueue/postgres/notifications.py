"""Processes learn of ended tasks, and of new ones, from PostgreSQL's NOTIFY.

If a notification is lost, they learn of it by a query that is made each second.
"""

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

#: The channels; what is sent are ids of tasks, or names of algorithms.
ENDED, ARRIVED = "plugplay_ended", "plugplay_arrived"
LISTEN = "LISTEN {}"
#: One round trip, its own transaction, and no wait for the disk.
NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"
#: Stays below PostgreSQL's limit for a notification (8,000 bytes).
_MAX_BYTES = 7_800
_SEPARATOR = "\n"
POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 10.0


def payloads(words: Sequence[str]) -> Iterator[str]:
    """The words in as few notifications as possible."""
    for part in split(words, lambda word: len(word.encode()) + 1, _MAX_BYTES):
        yield _SEPARATOR.join(part)


class Listener:
    """Hears one channel. Lives on the event loop; opens its connection on the first `start`, and again if it is lost.

    Parameters:
        heard: called with the words of a notification.
        listening: awaited whenever it begins to listen: what came before that is to be looked for.
    """

    def __init__(
        self,
        parameters: Parameters,
        channel: str,
        heard: Callable[[list[str]], None],
        listening: Callable[[], Awaitable[None]],
    ) -> None:
        self._parameters = parameters
        self._channel = channel
        self._heard = heard
        self._listening = listening
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Idempotent."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._listen_forever(), name=f"listen to {self._channel}")

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen_forever(self) -> None:
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS, least=0.5)
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)
                async with connection:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await connection.execute(LISTEN.format(self._channel).encode())
                    backoff.reset()
                    await self._listening()
                    await self._listen(connection)
            except (psycopg.Error, TimeoutError) as error:
                _log.info("not listening to %s, looking each second: %s", self._channel, type(error).__name__)
            await asyncio.sleep(backoff.next_seconds())

    async def _listen(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        async with aclosing(connection.notifies()) as notifications:
            async for notification in notifications:
                self._heard(notification.payload.split(_SEPARATOR))


class EndListener:
    """Wakes the waiters of one process. Lives on the event loop."""

    def __init__(
        self,
        parameters: Parameters,
        waiters: Waiters,
        find_ended: Callable[[Sequence[str]], Awaitable[Collection[str]]],
    ) -> None:
        """`find_ended` returns those of the given ids that have ended, by one query."""
        self._waiters = waiters
        self._find_ended = find_ended
        self._listener = Listener(parameters, ENDED, waiters.ended, self._check_ended)
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to listen, and polls as long as somebody waits. Idempotent."""
        if self._closed:
            return
        self._listener.start()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_while_waited_for(), name="look for ended tasks")

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        await self._listener.close()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

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
