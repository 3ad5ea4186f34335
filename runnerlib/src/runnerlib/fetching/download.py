"""Downloads one thing over HTTP: follows redirects, looks at the answer's head, reads its body up to the limit.

On the standard library's client, since its `connect` is public: whatever else happens, the only sockets that it sees
are those of :mod:`connecting`. It knows no proxies, cookies or netrc.
"""

import contextlib
import functools
import http.client
import io
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import certifi

from runnerlib import __version__
from runnerlib.fetching.connecting import connect
from runnerlib.fetching.data_urls import read_data_url
from runnerlib.fetching.deadline import Deadline, TimedSocket
from runnerlib.fetching.errors import FetchFailed, FetchRefused, FetchTimedOut, for_status
from runnerlib.fetching.limits import Fetched, Limits, bare_type
from runnerlib.fetching.rules import FetchRules
from runnerlib.fetching.urls import Target, follow, read_url, scheme_of

MAX_REDIRECTS = 3
USER_AGENT = f"plugplay-runnerlib/{__version__}"

_CHUNK_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Downloader:
    """Safe to be used by many threads at once; keeps no connections."""

    def __init__(self, rules: FetchRules) -> None:
        self._addresses = rules.addresses

    def __call__(self, url: str, limits: Limits) -> Fetched:
        """Raises FetchRefused, FetchFailed."""
        if scheme_of(url.strip(" ")) == "data":
            return read_data_url(url, limits)
        target = first = read_url(url)
        deadline = Deadline(limits.timeout_seconds, limits.stopped)
        for _ in range(MAX_REDIRECTS + 1):
            found = self._ask(target, limits, deadline)
            if isinstance(found, Fetched):
                return found
            target = found
        raise FetchRefused(f"{first.shown} leads on more than {MAX_REDIRECTS} times; send the final address")

    def _ask(self, target: Target, limits: Limits, deadline: Deadline) -> Fetched | Target:
        """What is there, or where that leads to."""
        with _told(target, limits), contextlib.closing(self._connected(target, deadline)) as sock:
            connection = _Connection(target.host, sock, deadline)
            connection.request("GET", target.path, headers=_headers(target, limits))
            with connection.getresponse() as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    return follow(target, _utf8(location))
                if not 200 <= response.status < 300:
                    raise for_status(target.shown, response.status, _phrase(response.status))
                return _read(target, response, limits)

    def _connected(self, target: Target, deadline: Deadline) -> socket.socket:
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
        """The system's authorities, which know a company's own, and certifi's, where a system has none."""
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context


class _Connection(http.client.HTTPConnection):
    """On a socket that is connected already; another one it cannot get."""

    def __init__(self, host: str, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__(host)
        self.sock: Any = TimedSocket(sock, deadline)

    def connect(self) -> None:
        raise ConnectionError("the connection was closed")


def _headers(target: Target, limits: Limits) -> dict[str, str]:
    return {
        "Host": target.authority,
        "User-Agent": USER_AGENT,
        "Accept": ", ".join(limits.accept) or "*/*",
        # A few bytes could unfold to gigabytes.
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _read(target: Target, response: http.client.HTTPResponse, limits: Limits) -> Fetched:
    content_type = bare_type(response.headers.get("Content-Type", ""))
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise FetchRefused(
            f"{target.shown} comes compressed ({encoding[:40]}) unasked; send an address that gives it plain"
        )
    limits.check_type(target.shown, content_type)
    length = response.length
    limits.check_size(target.shown, length or 0)
    held = io.BytesIO()
    while length is None or held.tell() < length:
        # At most one wait for the network, so that the limits are looked at between any two.
        wanted = _CHUNK_BYTES if length is None else min(_CHUNK_BYTES, length - held.tell())
        chunk = response.read1(wanted)
        if not chunk:
            break
        held.write(chunk)
        limits.check_size(target.shown, held.tell())
    if length is not None and held.tell() < length:
        raise FetchFailed(f"{target.shown} broke off after {held.tell()} of {length} bytes")
    return Fetched(held.getvalue(), content_type, target.url)


@contextlib.contextmanager
def _told(target: Target, limits: Limits) -> Iterator[None]:
    """Turns what the network raises into what a sender understands."""
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
    """Headers are read as Latin-1; addresses in them are UTF-8, where they are not ASCII."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _phrase(status: int) -> str:
    """Not the server's own words: they go into messages."""
    return http.client.responses.get(status, "")
