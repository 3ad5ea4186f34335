"""Pauses between attempts at something that fails."""

import random


class Backoff:
    """Pauses that double from `first_seconds` up to `most_seconds`.

    Each is random between `least` (0 to 1) and the whole of its length, so that processes which failed together do
    not all come back at the same moment; with 1 it is exact.
    """

    def __init__(self, first_seconds: float, most_seconds: float, *, least: float = 1.0) -> None:
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._least = least
        #: pauses since the start, or since :meth:`reset`
        self.failures = 0

    def next_seconds(self) -> float:
        """The next pause."""
        longest = min(self._most_seconds, self._first_seconds * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return longest * random.uniform(self._least, 1.0)  # noqa: S311 - spreads retries, hides nothing

    def reset(self) -> None:
        """It worked: the next pause is a first one again."""
        self.failures = 0
