"""Reads the URLs that senders wrote, ``data:`` URLs with their content, and shows them without secrets. Pure."""

import binascii
import re
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv6Address
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import idna

from runnerlib.fetching.errors import FetchRefused

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_LENGTH = 8192

_MAX_SHOWN = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}(?=:)", re.IGNORECASE)
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")
#: Characters of a path and a query that are not quoted; "%", too, since they may be quoted already.
_UNQUOTED = "!$%&'()*+,/:;=?@[]~"

_TOKEN = r"[a-z0-9!#$&^_.+-]{1,100}"  # noqa: S105 - no password
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}\Z", re.IGNORECASE)
#: Characters of a ``data:`` URL between its scheme and its comma.
_MAX_DATA_HEAD = 300
_BAD_PERCENT = re.compile(r"%(?![0-9a-f]{2})", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A URL, parsed once: the same parts are used to connect and to send the request."""

    scheme: str
    #: A name in ASCII, or an address without brackets.
    host: str
    port: int
    #: Path and query, as they are sent.
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """For messages: without the query, whose values are often keys."""
        path, question, _ = self.path.partition("?")
        text = f"{self.scheme}://{self.authority}{path}"
        return (text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…") + ("?…" if question else "")


def scheme_of(url: str) -> str:
    found = _SCHEME.match(url)
    return found.group().lower() if found else ""


def read_url(url: str) -> Target:
    """Raises FetchRefused."""
    url = url.strip(" ")
    if len(url) > MAX_URL_LENGTH:
        raise FetchRefused(f"the URL is longer than {MAX_URL_LENGTH} characters; send a shorter one")
    if _CONTROL.search(url):
        raise FetchRefused("the URL has a line break or another control character in it; write it without")
    scheme = scheme_of(url)
    if scheme not in DEFAULT_PORTS:
        what = f"{scheme}: URLs are not fetched" if scheme else "the URL does not say how to get there"
        raise FetchRefused(f"{what}; send one that begins with https://, http:// or data:")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _ascii_host(parts.hostname or "")
    except (ValueError, idna.IDNAError):
        raise FetchRefused(
            "the URL has no host that can be read; write it like https://example.com/picture.png"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise FetchRefused(f"the URL of {host} has a user name in it; send one that anybody may open")
    path = parts.path or "/"
    path = quote(f"{path}?{parts.query}" if parts.query else path, safe=_UNQUOTED)
    return Target(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, path)


def follow(target: Target, location: str) -> Target:
    """The target of a redirect. Raises FetchRefused."""
    try:
        joined = urljoin(target.url, location)
    except ValueError:
        joined = ""
    try:
        following = read_url(joined)
    except FetchRefused as error:
        raise FetchRefused(f"{target.shown} leads on to where it cannot be followed: {error}") from None
    if (target.scheme, following.scheme) == ("https", "http"):
        raise FetchRefused(f"{target.shown} leads from https to http; send the final address if that is meant")
    return following


def _ascii_host(host: str) -> str:
    """Raises ValueError or IDNAError."""
    if ":" in host and "%" not in host:
        return str(IPv6Address(host))
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    host = host.lower().removesuffix(".")
    if not _HOST.match(host):
        raise ValueError(host)
    return host


@dataclass(frozen=True)
class Fetched:
    """Something that was downloaded."""

    content: bytes = field(repr=False)
    #: In lower case, without parameters, e.g. ``image/png``; empty when the server did not say.
    content_type: str
    #: The final URL, after redirects; of a ``data:`` URL only its beginning.
    url: str


@dataclass(frozen=True)
class FetchLimits:
    """Of one fetch. `accept` are types or patterns (``image/*``); empty: any. Setting `stopped` ends it early."""

    max_bytes: int
    timeout_seconds: float
    accept: tuple[str, ...] = ()
    stopped: threading.Event = field(default_factory=threading.Event)

    def check_size(self, shown: str, size: int) -> None:
        """Raises FetchRefused."""
        if size > self.max_bytes:
            raise FetchRefused(f"{shown} is larger than {_readable(self.max_bytes)}; send a smaller one")

    def check_type(self, shown: str, content_type: str) -> None:
        """Raises FetchRefused."""
        if self.accept and not any(fnmatchcase(content_type, pattern.lower()) for pattern in self.accept):
            given = content_type[:100] or "of no stated type"
            raise FetchRefused(f"{shown} is {given}; send the address of {' or '.join(self.accept)}")


def bare_type(header: str) -> str:
    """A Content-Type without its parameters."""
    return header.partition(";")[0].strip().lower()


def _readable(size: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"


def read_data_url(url: str, limits: FetchLimits) -> Fetched:
    """Reads a ``data:`` URL (RFC 2397), strictly. Raises FetchRefused."""
    head, comma, body = url.strip(" ")[len("data:") :].partition(",")
    if not comma or len(head) > _MAX_DATA_HEAD or not url.isascii():
        raise FetchRefused("the data: URL cannot be read; write it like data:image/png;base64,iVBORw0…")
    media_type, _, last = head.rpartition(";")
    is_base64 = last.strip().lower() == "base64"
    # The RFC's default is text/plain.
    content_type = bare_type(media_type if is_base64 else head) or "text/plain"
    if not _MEDIA_TYPE.match(content_type):
        raise FetchRefused("the data: URL has no proper type; write it like data:image/png;base64,iVBORw0…")
    shown = f"data:{content_type}{';base64' if is_base64 else ''},…"
    limits.check_type(shown, content_type)
    # Estimated before anything is decoded, and checked to the byte after it.
    length = len(body) - 2 * body.count("%")
    limits.check_size(shown, length * 3 // 4 - 3 if is_base64 else length)
    if _BAD_PERCENT.search(body):
        raise FetchRefused(f"{shown} has a % that is not followed by two hexadecimal digits; write %25 for a %")
    content = unquote_to_bytes(body)
    if is_base64:
        try:
            content = b64decode(content, validate=True)
        except binascii.Error:
            raise FetchRefused(
                f"{shown} is not base64; encode it anew, with its = at the end and without spaces"
            ) from None
    limits.check_size(shown, len(content))
    return Fetched(content, content_type, shown)
