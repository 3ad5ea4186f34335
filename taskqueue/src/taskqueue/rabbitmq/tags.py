"""Which delivery tags of one channel are unsettled. Pure.

A tag that is settled twice closes the channel (406), so each is given out for settling once. A prefix of the oldest
tags becomes one settling call with `multiple` set; tags beyond a gap are settled one by one.
"""

from collections import deque
from collections.abc import Iterable


class Tags:
    """Tags arrive in rising order, as a channel numbers them."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._reserved: set[int] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self._reserved)

    def arrived(self, tag: int) -> None:
        self._order.append(tag)
        self._open.add(tag)

    def reserve(self, tag: int) -> bool:
        """From now on only `settle_reserved` settles it; False when it was settled or reserved before."""
        if tag not in self._open:
            return False
        self._open.remove(tag)
        self._reserved.add(tag)
        return True

    def settle(self, tags: Iterable[int], *, reserved: bool = False) -> tuple[list[int], list[tuple[int, bool]]]:
        """Those of `tags` that are open (or were reserved), and the (tag, multiple) calls that settle just these."""
        waiting = self._reserved if reserved else self._open
        settled = waiting.intersection(tags)
        waiting -= settled
        return sorted(settled), self._calls(settled)

    def _calls(self, settled: set[int]) -> list[tuple[int, bool]]:
        """`settled` are in neither set any more."""
        prefix: list[int] = []
        while self._order and self._order[0] not in self._open and self._order[0] not in self._reserved:
            tag = self._order.popleft()
            if tag in settled:
                prefix.append(tag)
        calls = [(prefix[-1], len(prefix) > 1)] if prefix else []
        calls += [(tag, False) for tag in sorted(settled.difference(prefix))]
        return calls
