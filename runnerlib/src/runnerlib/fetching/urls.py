"""Reads the addresses that senders wrote, and shows them without their secrets. Pure."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import idna

from runnerlib.fetching.errors import FetchRefused

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_LENGTH = 8192

_MAX_SHOWN = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}(?=:)", re.IGNORECASE)
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")
#: May stand in a path and a query as they are; "%", too, for what was quoted already.
_AS_IT_IS = "!$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class Target:
    """Where to ask for what: one parsing, used for the connection and for the request alike."""

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
        """For messages: values in the query are often keys."""
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
    path = _path(parts)
    return Target(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, path)


def follow(target: Target, location: str) -> Target:
    """Where a redirect leads. Raises FetchRefused."""
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


def _path(parts: SplitResult) -> str:
    path = parts.path or "/"
    return quote(f"{path}?{parts.query}" if parts.query else path, safe=_AS_IT_IS)
