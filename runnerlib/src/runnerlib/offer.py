"""Which algorithms discovery is told of. Pure."""

from collections.abc import Collection

#: An algorithm that cannot run for so long is taken off the list; until then it may come back at once.
UNREADY_SECONDS = 15.0


class Offer:
    """Those that can run, and for a moment those that just could. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._working: frozenset[str] = frozenset()
        #: algorithm that no longer works → when that was first seen
        self._lost_at: dict[str, float] = {}

    def at(self, now: float, working: Collection[str]) -> frozenset[str]:
        """What to offer now that these can run."""
        for name in self._working.difference(working):
            self._lost_at[name] = now
        self._working = frozenset(working)
        self._lost_at = {
            name: lost_at
            for name, lost_at in self._lost_at.items()
            if name not in self._working and now < lost_at + UNREADY_SECONDS
        }
        return self._working.union(self._lost_at)

    def unchanged_seconds(self, now: float) -> float | None:
        """How long the same is to be offered while the same can run; None when nothing will be taken off."""
        if not self._lost_at:
            return None
        return min(self._lost_at.values()) + UNREADY_SECONDS - now
