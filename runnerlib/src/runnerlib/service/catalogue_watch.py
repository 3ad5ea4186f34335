"""Follows discovery's catalogue by blocking queries, and keeps the last answer when discovery is away."""

import asyncio
import ssl
import time
from contextlib import AsyncExitStack

import aiohttp
from pydantic import ValidationError

from runnerlib.contract import Catalogue
from runnerlib.service.backoff import Backoff
from runnerlib.service.component import Component
from runnerlib.service.lifecycle import background
from runnerlib.service.logs import get_logger

log = get_logger(__name__)

#: Requested length of one blocking query; discovery may use less.
WAIT_SECONDS = 30.0
#: After so long without an answer, a missing name proves nothing.
SURE_FOR_SECONDS = 60.0
BEYOND_LEASE_SECONDS = 0.1
#: Pause after a change, so that those that follow are handled together: each costs a look at every name.
BETWEEN_CHANGES_SECONDS = 0.2
LEAST_RETRY_SECONDS = 0.02
FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 5.0
#: Beyond this an answer is not a catalogue.
MAX_CATALOGUE_BYTES = 64 * 1024 * 1024


class BadAnswer(Exception):
    """Discovery answered, but not with a catalogue."""


class CatalogueWatch(Component):
    """The catalogue as last known: ``async with CatalogueWatch(url) as watch: watch.catalogue``.

    `token`: of a service, where discovery asks for one. `tls`: whom to trust where it speaks HTTPS; True: the system's.
    """

    def __init__(
        self,
        discovery_url: str,
        token: str = "",
        *,
        tls: ssl.SSLContext | bool = True,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._url = f"{discovery_url.rstrip('/')}/catalogue"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        self._wait_seconds = wait_seconds
        self._catalogue: Catalogue | None = None
        self._answered_at: float | None = None
        self._changes = 0
        self._changed = asyncio.Event()
        #: full jitter: clients that lost the same discovery do not all come back at once
        self._backoff = Backoff(FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, least=0.0)

    async def _start(self, stack: AsyncExitStack) -> None:
        timeout = aiohttp.ClientTimeout(total=self._wait_seconds + 10, sock_connect=2)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        await stack.enter_async_context(session)
        background(stack, self._follow(session), "catalogue watch")

    @property
    def catalogue(self) -> Catalogue | None:
        """The last known catalogue; None before the first answer of discovery."""
        return self._catalogue

    @property
    def last_answer_age_seconds(self) -> float | None:
        """Seconds since the last answer of discovery; None before the first."""
        return None if self._answered_at is None else time.monotonic() - self._answered_at

    @property
    def is_sure(self) -> bool:
        """Whether a name missing from the catalogue is really unknown.

        A discovery that has just started may not have heard of every runner yet, so it must have been up for longer
        than one lease and have answered lately.
        """
        age = self.last_answer_age_seconds
        if self._catalogue is None or self._catalogue.more or age is None or age > SURE_FOR_SECONDS:
            return False
        return self._catalogue.uptime_seconds > self._catalogue.lease_seconds

    async def wait_changed(self, since: int) -> int:
        """Waits until there were more than `since` changes, and returns their number; start with 0."""
        while self._changes <= since:
            await self._changed.wait()
        return self._changes

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                changes = self._changes
                self._accept(await self._ask(session))
                if self._changes > changes:
                    await asyncio.sleep(BETWEEN_CHANGES_SECONDS)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, BadAnswer) as error:
                await self._pause(error)

    async def _ask(self, session: aiohttp.ClientSession) -> Catalogue:
        query: dict[str, str | int | float] = {}
        if self._catalogue is not None and not self._backoff.failures:
            wait = self._seconds_to_wait(self._catalogue)
            query = {"index": self._catalogue.index, "epoch": self._catalogue.epoch, "wait": wait, "changes": "true"}
        async with session.get(self._url, params=query) as answer:
            if answer.status == 401:
                raise BadAnswer("it does not accept this service's token: RUNNER_KEYS must be the same for both")
            if answer.status != 200:
                raise BadAnswer(f"status {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(256 * 1024):
                body += chunk
                if len(body) > MAX_CATALOGUE_BYTES:
                    raise BadAnswer(f"more than {MAX_CATALOGUE_BYTES} bytes")
        try:
            said = Catalogue.model_validate_json(bytes(body))
        except ValidationError as error:
            raise BadAnswer(f"not a catalogue: {error.error_count()} mistakes") from None
        return self._joined(said)

    def _joined(self, answer: Catalogue) -> Catalogue:
        """The known catalogue with the changes of `answer` applied; without `since` the answer is complete."""
        known = self._catalogue
        if answer.since is None:
            return answer
        if known is None or (answer.epoch, answer.since) != (known.epoch, known.index):
            raise BadAnswer("changes of a catalogue that was not asked for")
        runners, algorithms = known.runners | answer.runners, known.algorithms | answer.algorithms
        for name in answer.gone_runners:
            runners.pop(name, None)
        for name in answer.gone_algorithms:
            algorithms.pop(name, None)
        return answer.model_copy(update={"runners": runners, "algorithms": algorithms})

    def _seconds_to_wait(self, catalogue: Catalogue) -> float:
        """At most until a young discovery has been up for a lease: from then on :attr:`is_sure` holds."""
        left = catalogue.lease_seconds - catalogue.uptime_seconds
        return self._wait_seconds if left < 0 else min(self._wait_seconds, left + BEYOND_LEASE_SECONDS)

    def _accept(self, catalogue: Catalogue) -> None:
        if self._backoff.failures:
            log.info("discovery answers again", url=self._url)
        self._backoff.reset()
        self._answered_at = time.monotonic()
        known = self._catalogue
        self._catalogue = catalogue
        if known is None or (known.epoch, known.index) != (catalogue.epoch, catalogue.index):
            self._changes += 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _pause(self, error: Exception) -> None:
        if not self._backoff.failures:
            reason = str(error) or type(error).__name__
            log.warning("discovery does not answer; the last catalogue stays in use", url=self._url, reason=reason)
        await asyncio.sleep(max(LEAST_RETRY_SECONDS, self._backoff.next_seconds()))
