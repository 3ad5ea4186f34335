"""What authors call: ``fetch(url)``, ``fetch.many(urls)``, ``await fetch.aio(url)``."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.download import Downloader
from runnerlib.fetching.errors import FetchFailed, FetchRefused
from runnerlib.fetching.urls import Fetched, Limits

#: Downloads of coroutines at the same time: as many as there are concurrent calls by default.
_COROUTINES = 32


class Fetch:
    """Downloads what senders name by URL: ``http:``, ``https:`` and ``data:``, from public addresses.

    All ways to call it take `max_bytes` and `timeout_seconds` (for all of one download; default: what the operator set,
    20 MiB and 15 s) and `accept`, the types that are accepted, e.g. ``"image/*"``.

    Its errors need no handling: FetchRefused fails the task at once with a sentence for its sender (bad or private
    address, 404, too large, wrong type), FetchFailed has it retried (500, 429, time-outs, connections). To handle them,
    write ``except fetch.Refused`` and ``except fetch.Failed``.
    """

    Refused: ClassVar[type[FetchRefused]] = FetchRefused
    Failed: ClassVar[type[FetchFailed]] = FetchFailed

    def __init__(self, rules: FetchRules, download: Callable[[str, Limits], Fetched] | None = None) -> None:
        self._rules = rules
        self._download = download or Downloader(rules)
        #: By process id: a process that a handler forks has none of its parent's threads.
        self._executors: dict[int, ThreadPoolExecutor] = {}

    def __call__(
        self,
        url: str,
        *,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        accept: str | Sequence[str] = (),
    ) -> Fetched:
        """Downloads one URL. Not for an ``async def``, where it would block all others: await :meth:`aio` there."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._one(url, self._limits(max_bytes, timeout_seconds, accept))
        raise RuntimeError(
            "fetch() would block every task of this process; write `await fetch.aio(...)` in an async def"
        )

    async def aio(
        self,
        url: str,
        *,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        accept: str | Sequence[str] = (),
    ) -> Fetched:
        """Downloads one URL without blocking the event loop; for several, use ``asyncio.gather``."""
        limits = self._limits(max_bytes, timeout_seconds, accept)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor(), self._one, url, limits)
        finally:
            # When the handler is cancelled, its download ends, too.
            limits.stopped.set()

    def many(
        self,
        urls: Iterable[str],
        then: Callable[[Fetched], Any] | None = None,
        *,
        at_once: int = 8,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        accept: str | Sequence[str] = (),
    ) -> list[Any]:
        """Downloads several at once, for ``batch_*``: for each URL, in order, a Fetched or the exception it raised.

        `then` is called with each as it arrives, in the thread that downloaded it, and its return value (or exception)
        takes the place of the Fetched: pictures are decoded while others are on their way, and their files need not all
        be kept.
        """

        def one(url: str) -> Any:
            fetched = self._one(url, self._limits(max_bytes, timeout_seconds, accept))
            return fetched if then is None else then(fetched)

        with ThreadPoolExecutor(at_once, thread_name_prefix="fetch") as executor:
            futures = [executor.submit(one, url) for url in urls]
        return [_value_or_exception(future) for future in futures]

    def _limits(self, max_bytes: int | None, timeout_seconds: float | None, accept: str | Sequence[str]) -> Limits:
        return Limits(
            self._rules.max_bytes if max_bytes is None else max_bytes,
            self._rules.timeout_seconds if timeout_seconds is None else timeout_seconds,
            (accept,) if isinstance(accept, str) else tuple(accept),
        )

    def _one(self, url: str, limits: Limits) -> Fetched:
        if not isinstance(url, str):
            raise FetchRefused(f"a URL is a text, not {type(url).__name__}; pass it as str(url)")
        return self._download(url, limits)

    def _executor(self) -> ThreadPoolExecutor:
        executor = self._executors.get(os.getpid())
        if executor is None:
            fresh = ThreadPoolExecutor(_COROUTINES, thread_name_prefix="fetch")
            executor = self._executors.setdefault(os.getpid(), fresh)
        return executor


def _value_or_exception(future: "Future[Any]") -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error
