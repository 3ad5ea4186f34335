"""Gateway clients for any number of threads: each is lent to one thread at a time."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from producer.client import GatewayClient
from producer.errors import GatewayUnreachable


class ClientPool:
    """As many connections as calls are under way; they are kept open for the next calls."""

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self._url = url
        self._patience_seconds = patience_seconds
        self._free: deque[GatewayClient] = deque()
        self._closed = False

    @contextmanager
    def lent(self) -> Iterator[GatewayClient]:
        if self._closed:
            raise GatewayUnreachable("this client was closed; make another one")
        try:
            client = self._free.pop()
        except IndexError:
            client = GatewayClient(self._url, patience_seconds=self._patience_seconds)
        try:
            yield client
        finally:
            self._free.append(client)
            if self._closed:
                self._close_free()

    def close(self) -> None:
        """Those that are lent out are closed when they come back. Idempotent."""
        self._closed = True
        self._close_free()

    def _close_free(self) -> None:
        while self._free:
            try:
                self._free.pop().close()
            except IndexError:  # another thread closes them, too
                return
