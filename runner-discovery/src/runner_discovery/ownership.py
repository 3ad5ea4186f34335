"""Ownership of algorithms: an algorithm belongs to the first runner name that registered it. Pure."""

from collections.abc import Callable, Collection, Mapping

from runner_discovery.records import RunnerRecord, SavedRunner


class Owners:
    """Maps algorithms to owners, and owners to their live runners.

    Replicas share one name and own their algorithms together. While one of its runners is live, a name owns what its
    live runners have. After the last one is gone, it keeps its algorithms for `keep_seconds`.
    """

    def __init__(self, clock: Callable[[], float], keep_seconds: float) -> None:
        self._clock = clock
        self._keep_seconds = keep_seconds
        self._owners: dict[str, str] = {}
        self._owned: dict[str, set[str]] = {}
        #: name → its live runners
        self._live: dict[str, dict[str, RunnerRecord]] = {}
        #: name that owns something and has no live runner → since when
        self._away_since: dict[str, float] = {}

    def get(self, algorithm: str) -> str | None:
        return self._owners.get(algorithm)

    def owned(self, name: str) -> frozenset[str]:
        return frozenset(self._owned.get(name, ()))

    def came(self, record: RunnerRecord) -> None:
        """Records that a runner is live, or has changed its registration."""
        self._live.setdefault(record.owner_name, {})[record.id] = record
        self._away_since.pop(record.owner_name, None)

    def went(self, record: RunnerRecord) -> None:
        name = record.owner_name
        live = self._live.get(name, {})
        live.pop(record.id, None)
        if not live:
            self._live.pop(name, None)
            if name in self._owned:
                self._away_since[name] = self._clock()

    def settle(self, algorithm: str, first: RunnerRecord | None) -> str | None:
        """Returns the current owner. An algorithm without an owner goes to `first`, its longest-standing runner."""
        owner = self._owners.get(algorithm)
        if owner is None or self._has_ended(owner, algorithm):
            self.give(algorithm, None if first is None else first.owner_name)
        return self._owners.get(algorithm)

    def give(self, algorithm: str, name: str | None) -> None:
        """Makes `name` the owner; None removes the owner."""
        before = self._owners.pop(algorithm, None)
        if before is not None:
            self._owned[before].discard(algorithm)
            if not self._owned[before]:
                del self._owned[before]
                self._away_since.pop(before, None)
        if name is not None:
            self._owners[algorithm] = name
            self._owned.setdefault(name, set()).add(algorithm)
            if name not in self._live:
                self._away_since.setdefault(name, self._clock())

    def offers(self, name: str, algorithm: str) -> bool:
        """Returns whether a live runner of that name offers the algorithm."""
        return any(algorithm in record.offers for record in self._live.get(name, {}).values())

    def has_live(self, name: str, algorithm: str) -> bool:
        """Returns whether a live runner of that name has the algorithm, even if it cannot run it at the moment."""
        return any(record.has(algorithm) for record in self._live.get(name, {}).values())

    def _has_ended(self, owner: str, algorithm: str) -> bool:
        if owner in self._live:
            return not self.has_live(owner, algorithm)
        return self._clock() - self._away_since.get(owner, self._clock()) > self._keep_seconds

    def forget_dropped(self, dropped: Collection[SavedRunner]) -> None:
        """Takes algorithms from those who can be nobody any more: plain ones, and who had a key that is none now.

        A name that never had a token keeps its own: a runner of that name comes back with one.
        """
        gone = {each.id for each in dropped} | {each.registration.name for each in dropped if each.origin.key_id}
        for algorithm, owner in list(self._owners.items()):
            if owner in gone and not self.has_live(owner, algorithm):
                self.give(algorithm, None)

    # -- memory

    def saved(self) -> tuple[dict[str, str], dict[str, float]]:
        """Returns the owners, and for each owner without live runners the seconds since its last one left."""
        now = self._clock()
        return dict(self._owners), {name: now - since for name, since in self._away_since.items()}

    def restore(self, owners: Mapping[str, str], away_seconds: Mapping[str, float]) -> None:
        now = self._clock()
        for algorithm, name in owners.items():
            self.give(algorithm, name)
            if name not in self._live:
                self._away_since[name] = now - away_seconds.get(name, 0.0)
