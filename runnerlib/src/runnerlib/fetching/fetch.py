"""What authors call, ``fetch(url)``, ``fetch.many(urls)`` and ``await fetch.aio(url)``, and how it downloads.

Connects to a checked address, follows redirects, reads the body up to the limit. Uses the standard library's HTTP
client, whose `connect` can be overridden: the only sockets it ever sees are those of :func:`connect`. It knows no
proxies, cookies or netrc.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import certifi

from runnerlib import __version__
from runnerlib.fetching.addresses import AddressRules, FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused, FetchTimedOut, for_status
from runnerlib.fetching.urls import Fetched, FetchLimits, Target, bare_type, follow, read_data_url, read_url, scheme_of
from runnerlib.service.logs import get_logger

MAX_REDIRECTS = 3
USER_AGENT = f"plugplay-runnerlib/{__version__}"

_CHUNK_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Address family and numeric address, as the system resolves a name.
_Resolved = tuple[socket.AddressFamily, Any]

#: Downloads of coroutines at the same time: as many as there are concurrent calls by default.
_COROUTINES = 32

log = get_logger(__name__)


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

    def __init__(self, rules: FetchRules, download: Callable[[str, FetchLimits], Fetched] | None = None) -> None:
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

    def _limits(self, max_bytes: int | None, timeout_seconds: float | None, accept: str | Sequence[str]) -> FetchLimits:
        return FetchLimits(
            self._rules.max_bytes if max_bytes is None else max_bytes,
            self._rules.timeout_seconds if timeout_seconds is None else timeout_seconds,
            (accept,) if isinstance(accept, str) else tuple(accept),
        )

    def _one(self, url: str, limits: FetchLimits) -> Fetched:
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


class Downloader:
    """Safe to use from many threads at once; keeps no connections."""

    def __init__(self, rules: FetchRules) -> None:
        self._addresses = rules.addresses

    def __call__(self, url: str, limits: FetchLimits) -> Fetched:
        """Raises FetchRefused, FetchFailed."""
        if scheme_of(url.strip(" ")) == "data":
            return read_data_url(url, limits)
        target = first = read_url(url)
        deadline = Deadline(limits.timeout_seconds, limits.stopped)
        for _ in range(MAX_REDIRECTS + 1):
            found = self._request(target, limits, deadline)
            if isinstance(found, Fetched):
                return found
            target = found
        raise FetchRefused(f"{first.shown} leads on more than {MAX_REDIRECTS} times; send the final address")

    def _request(self, target: Target, limits: FetchLimits, deadline: "Deadline") -> Fetched | Target:
        """The content, or the target of a redirect."""
        with _network_errors(target, limits), contextlib.closing(self._connected(target, deadline)) as sock:
            connection = _Connection(target.host, sock, deadline)
            headers = {
                "Host": target.authority,
                "User-Agent": USER_AGENT,
                "Accept": ", ".join(limits.accept) or "*/*",
                # A few compressed bytes could unfold to gigabytes.
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            connection.request("GET", target.path, headers=headers)
            with connection.getresponse() as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    return follow(target, _utf8(location))
                if not 200 <= response.status < 300:
                    # Not the server's own phrase: it would end up in messages.
                    phrase = http.client.responses.get(response.status, "")
                    raise for_status(target.shown, response.status, phrase)
                return _read(target, response, limits)

    def _connected(self, target: Target, deadline: "Deadline") -> socket.socket:
        sock = connect(target, self._addresses, deadline)
        if target.scheme == "http":
            return sock
        try:
            sock.settimeout(deadline.left())
            return self._tls.wrap_socket(sock, server_hostname=target.host)
        except BaseException:
            sock.close()
            raise

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Trusts the system's authorities, which include a company's own, and certifi's, where a system has none."""
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context


def connect(target: Target, rules: AddressRules, deadline: "Deadline") -> socket.socket:
    """Opens a socket to one of the target's addresses that may be connected to. Raises FetchRefused and OSError.

    The one place that connects. A name is resolved once, and the address that was checked is the address that is
    connected to: a server that answers the next query with another address (DNS rebinding) is not asked again. How an
    address was spelt makes no difference, since what the system reads from it is what is checked.
    """
    allowed = _allowed(target, _resolve(target, deadline), rules)
    while True:
        family, address = allowed.pop(0)
        # An address that does not answer must not use up the time of the others.
        patience = deadline.left() / (len(allowed) + 1)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(address)
            return sock
        except OSError:
            sock.close()
            if not allowed:
                raise


def _resolve(target: Target, deadline: "Deadline") -> list[_Resolved]:
    """Runs in a thread, which may be left behind: resolving a name has no time limit of its own. Raises OSError."""
    answer: concurrent.futures.Future[list[_Resolved]] = concurrent.futures.Future()

    def resolve() -> None:
        try:
            # As bytes: Python would change some names that are not ASCII.
            found = socket.getaddrinfo(target.host.encode(), target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            answer.set_exception(error)
        else:
            answer.set_result([(family, address) for family, _, _, _, address in found])

    left = deadline.left()
    threading.Thread(target=resolve, name="fetch-look-up", daemon=True).start()
    try:
        return answer.result(timeout=left)
    except concurrent.futures.TimeoutError:  # no OSError before Python 3.11
        raise TimeoutError(f"the name {target.host} was not looked up in time") from None


def _allowed(target: Target, found: list[_Resolved], rules: AddressRules) -> list[_Resolved]:
    public = [one for one in found if not rules.refuses_address(str(one[1][0]))]
    if not public:
        # Only the log names the addresses: senders must not learn what internal names resolve to.
        addresses = [str(address[0]) for _, address in found]
        log.warning("not fetched: not a public address", host=target.host, addresses=addresses)
        raise FetchRefused(
            f"{target.shown} is not at a public address; send one that is, or let the operator of the runner allow it "
            "in FETCH_ALLOW_PRIVATE"
        )
    allowed = [one for one in public if not rules.refuses_port(str(one[1][0]), target.port)]
    if not allowed:
        raise FetchRefused(
            f"{target.shown} is at port {target.port}; send one at port {' or '.join(map(str, sorted(rules.ports)))}, "
            "or let the operator of the runner allow it in FETCH_PORTS"
        )
    return allowed


class Deadline:
    """The time limit of a whole download, from now on. `stopped` ends it early."""

    def __init__(self, seconds: float, stopped: threading.Event) -> None:
        self._ends_at = time.monotonic() + seconds
        self._stopped = stopped

    def left(self) -> float:
        """Seconds; always more than 0. Raises TimeoutError."""
        left = self._ends_at - time.monotonic()
        if left <= 0 or self._stopped.is_set():
            raise TimeoutError("the time limit is over")
        return left


class _TimedSocket(io.RawIOBase):
    """The part of a socket that http.client needs; no wait is longer than what is left of the deadline.

    A socket's own time-out starts again with every byte, so that a server that sends one now and then could hold a slot
    for hours. `close` does nothing: whoever opened the socket closes it.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        return None


class _Connection(http.client.HTTPConnection):
    """Uses a socket that is connected already, and cannot open another."""

    def __init__(self, host: str, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__(host)
        self.sock: Any = _TimedSocket(sock, deadline)

    def connect(self) -> None:
        raise ConnectionError("the connection was closed")


def _read(target: Target, response: http.client.HTTPResponse, limits: FetchLimits) -> Fetched:
    content_type = bare_type(response.headers.get("Content-Type", ""))
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise FetchRefused(
            f"{target.shown} comes compressed ({encoding[:40]}) unasked; send an address that gives it plain"
        )
    limits.check_type(target.shown, content_type)
    length = response.length
    limits.check_size(target.shown, length or 0)
    body = io.BytesIO()
    while length is None or body.tell() < length:
        # At most one wait for the network per turn, so that the limits are checked between any two.
        wanted = _CHUNK_BYTES if length is None else min(_CHUNK_BYTES, length - body.tell())
        chunk = response.read1(wanted)
        if not chunk:
            break
        body.write(chunk)
        limits.check_size(target.shown, body.tell())
    if length is not None and body.tell() < length:
        raise FetchFailed(f"{target.shown} broke off after {body.tell()} of {length} bytes")
    return Fetched(body.getvalue(), content_type, target.url)


@contextlib.contextmanager
def _network_errors(target: Target, limits: FetchLimits) -> Iterator[None]:
    """Translates what the network raises into sentences for the sender."""
    try:
        yield
    except (FetchRefused, FetchFailed):
        raise
    except TimeoutError:
        raise FetchTimedOut(f"{target.shown} was not there within {limits.timeout_seconds:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise FetchRefused(f"{target.shown} has no valid certificate ({error.verify_message})") from None
    except http.client.HTTPException as error:
        raise FetchFailed(f"{target.shown} does not answer with proper HTTP ({type(error).__name__})") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FetchFailed(f"{target.shown} cannot be reached ({reason})") from None


def _utf8(header: str) -> str:
    """http.client reads headers as Latin-1; the URLs in them are UTF-8 where they are not ASCII."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header
