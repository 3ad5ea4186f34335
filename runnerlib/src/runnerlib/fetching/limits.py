"""What was fetched, and how much of what kind may be. Pure."""

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from runnerlib.fetching.errors import FetchRefused


@dataclass(frozen=True)
class Fetched:
    """Something that was downloaded."""

    content: bytes = field(repr=False)
    #: In lower case, without parameters, e.g. ``image/png``; empty when the server did not say.
    content_type: str
    #: Where it was in the end, after redirects; of a ``data:`` URL only its beginning.
    url: str


@dataclass(frozen=True)
class Limits:
    """Of one fetch. `accept` are types or patterns (``image/*``); empty: any. Setting `stopped` ends it early."""

    max_bytes: int
    timeout_seconds: float
    accept: tuple[str, ...] = ()
    stopped: threading.Event = field(default_factory=threading.Event)

    def check_size(self, shown: str, size: int) -> None:
        """Raises FetchRefused."""
        if size > self.max_bytes:
            raise FetchRefused(f"{shown} is larger than {_spelt(self.max_bytes)}; send a smaller one")

    def check_type(self, shown: str, content_type: str) -> None:
        """Raises FetchRefused."""
        if self.accept and not any(fnmatchcase(content_type, pattern.lower()) for pattern in self.accept):
            given = content_type[:100] or "of no stated type"
            raise FetchRefused(f"{shown} is {given}; send the address of {' or '.join(self.accept)}")


def bare_type(header: str) -> str:
    """A Content-Type without its parameters."""
    return header.partition(";")[0].strip().lower()


def _spelt(size: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"
