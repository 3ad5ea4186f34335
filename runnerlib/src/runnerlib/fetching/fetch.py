"""What authors call: ``fetch(url)``, ``fetch.many(urls)``, ``await fetch.aio(url)``."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from runnerlib.fetching.download import Downloader
from runnerlib.fetching.errors import FetchFailed, FetchRefused
from runnerlib.fetching.limits import Fetched, Limits
from runnerlib.fetching.rules import FetchRules

Download = Callable[[str, Limits], Fetched]

#: As many downloads at once for coroutines as there are by default coroutines at once.
_COROUTINES = 32


class Fetch:
    """Downloads what senders name by URL: ``http:``, ``https:`` and ``data:``, from public addresses.

    All ways to call it take `max_bytes` and `timeout_seconds` (for all of one download; default: what the operator set,
    20 MiB and 15 s) and `accept`, types that will do, e.g. ``"image/*"``.

    What it raises needs no handling: FetchRefused fails the task at once with a sentence for its sender (bad or private
    address, 404, too large, wrong type), FetchFailed has it tried again (500, 429, time-outs, connections). To handle
    them, write ``except fetch.Refused`` and ``except fetch.Failed``.
    """

    Refused: ClassVar[type[FetchRefused]] = FetchRefused
    Failed: ClassVar[type[FetchFailed]] = FetchFailed

    def __init__(self, rules: FetchRules, download: Download | None = None) -> None:
        self._rules = rules
        self._download = download or Downloader(rules)
        #: By process id: a process that a handler forks has none of its parent's threads.
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def __call__(
        self,
        url: str,
        *,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        accept: str | Sequence[str] = (),
    ) -> Fetched:
        """Downloads one. In an ``async def`` it would hold up all others: await :meth:`aio` there."""
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
        """Downloads one without holding up the loop; for several, ``asyncio.gather``."""
        limits = self._limits(max_bytes, timeout_seconds, accept)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._own_threads(), self._one, url, limits)
        finally:
            # A cancelled handler takes its download with it.
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
        """Downloads several at once, for ``batch_*``: for each URL, in order, a Fetched or the exception it met.

        `then` is called with each as it comes, in the thread that fetched it, and what it returns (or raises) stands in
        its place: pictures are decoded while others are on their way, and their files need not all be kept.
        """

        def one(url: str) -> Any:
            fetched = self._one(url, self._limits(max_bytes, timeout_seconds, accept))
            return fetched if then is None else then(fetched)

        with ThreadPoolExecutor(at_once, thread_name_prefix="fetch") as threads:
            futures = [threads.submit(one, url) for url in urls]
        return [_outcome(future) for future in futures]

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

    def _own_threads(self) -> ThreadPoolExecutor:
        threads = self._threads.get(os.getpid())
        if threads is None:
            fresh = ThreadPoolExecutor(_COROUTINES, thread_name_prefix="fetch")
            threads = self._threads.setdefault(os.getpid(), fresh)
        return threads


def _outcome(future: "Future[Any]") -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error
