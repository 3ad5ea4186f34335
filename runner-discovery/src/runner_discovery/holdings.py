"""Storage of the registry, within bounds: live runners, their offers, and algorithms without a runner. Pure."""

import heapq
from collections.abc import Callable

from runner_discovery.errors import RegistryFull
from runner_discovery.records import Offer, RunnerRecord

MAX_RUNNERS = 1000
MAX_ALGORITHMS = 5000
#: One token takes no more than this part of the runners.
PART_OF_ONE_NAME = 0.25
#: Size of the whole catalogue; its readers accept more than this and hold it in memory.
MAX_BYTES = 16 * 1024 * 1024


class Holdings:
    """Stores equal descriptions once and keeps count of the bytes of all descriptions."""

    def __init__(
        self,
        clock: Callable[[], float],
        max_runners: int = MAX_RUNNERS,
        max_algorithms: int = MAX_ALGORITHMS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._max_runners = max_runners
        self._max_algorithms = max_algorithms
        self._max_bytes = max_bytes
        self.runners: dict[str, RunnerRecord] = {}
        #: every algorithm ever registered, as its owner last described it
        self.known: dict[str, Offer] = {}
        self.total_bytes = 0
        self._offering: dict[str, dict[str, RunnerRecord]] = {}
        #: algorithm → bytes of its descriptions
        self._bytes: dict[str, int] = {}
        #: algorithm → start of the current period in which it is offered, and total of the earlier periods
        self._offered_since: dict[str, float] = {}
        self._offered_seconds: dict[str, float] = {}

    def offering(self, name: str) -> list[RunnerRecord]:
        """Returns the live runners that offer an algorithm."""
        return list(self._offering.get(name, {}).values())

    def offered_seconds(self, name: str) -> float:
        """Returns how long an algorithm has been offered in total. The shortest is evicted first."""
        now = self._clock()
        return self._offered_seconds.get(name, 0.0) + now - self._offered_since.get(name, now)

    def description_bytes(self, name: str) -> int:
        return self._bytes.get(name, 0)

    def put(self, record: RunnerRecord) -> None:
        """Adds a runner, or replaces the one with the same id. Call `make_room_for` first."""
        if record.id in self.runners:
            self.take(self.runners[record.id])
        for name, offer in record.offers.items():
            record.offers[name] = self._shared(name, offer)
            self._offering.setdefault(name, {})[record.id] = record
            self._offered_since.setdefault(name, self._clock())
            self.describe(name, self.known.get(name, record.offers[name]))
        self.runners[record.id] = record
        self.total_bytes += record.bytes

    def take(self, record: RunnerRecord) -> None:
        """Removes a runner. The algorithms that it offered stay known."""
        del self.runners[record.id]
        self.total_bytes -= record.bytes
        for name in record.offers:
            del self._offering[name][record.id]
            if not self._offering[name]:
                del self._offering[name]
                self._offered_seconds[name] = self.offered_seconds(name)
                del self._offered_since[name]
            self._measure(name)

    def describe(self, name: str, offer: Offer) -> None:
        """Sets the current description of an algorithm."""
        self.known[name] = offer
        self._measure(name)

    def remember(self, offer: Offer, offered_seconds: float) -> bool:
        """Adds an algorithm that may have no live runner. Returns False if there is no room for it."""
        name = offer.description.name
        kept = self._shared(name, offer)
        if name not in self.known and len(self.known) >= self._max_algorithms:
            return False
        if kept is offer and self.total_bytes + len(offer.json) > self._max_bytes:
            return False
        self._offered_seconds[name] = offered_seconds
        self.describe(name, kept)
        return True

    def make_room_for(self, record: RunnerRecord) -> list[str]:
        """Evicts algorithms without a runner until `record` fits, and returns their names. Raises RegistryFull."""
        if record.id not in self.runners and record.origin.key_id:
            of_name = sum(each.head.name == record.head.name for each in self.runners.values())
            if of_name >= self._max_runners * PART_OF_ONE_NAME:
                raise RegistryFull(f"{of_name} runners of the name {record.head.name!r} are registered already")
        if record.id not in self.runners and len(self.runners) >= self._max_runners:
            raise RegistryFull(f"{self._max_runners} runners are registered already; stop some, or run a registry more")
        surplus = len(self.known) + len(record.offers.keys() - self.known.keys()) - self._max_algorithms
        surplus_bytes = self.total_bytes + self._growth(record) - self._max_bytes
        if surplus <= 0 and surplus_bytes <= 0:
            return []
        idle = [name for name in self.known if name not in self._offering and name not in record.offers]
        forgotten: list[str] = []
        for name in heapq.nsmallest(len(idle), idle, key=self.offered_seconds):
            if surplus <= 0 and surplus_bytes <= 0:
                break
            forgotten.append(name)
            surplus, surplus_bytes = surplus - 1, surplus_bytes - self._bytes[name]
        if surplus > 0:
            raise RegistryFull(f"{self._max_algorithms} algorithms are registered already; remove runners first")
        if surplus_bytes > 0:
            raise RegistryFull(
                f"the catalogue would have more than {self._max_bytes} bytes; "
                "shorten schemas and docstrings, or remove runners first"
            )
        for name in forgotten:
            self._forget(name)
        return forgotten

    def _growth(self, record: RunnerRecord) -> int:
        before = self.runners.get(record.id)
        growth = record.bytes - (before.bytes if before is not None else 0)
        for name, offer in record.offers.items():
            if self._shared(name, offer) is not offer:
                continue
            growth += len(offer.json)
            if before is not None and name in before.offers and len(self._offering[name]) == 1:
                growth -= self._bytes[name]
        return growth

    def _forget(self, name: str) -> None:
        del self.known[name]
        self.total_bytes -= self._bytes.pop(name, 0)
        self._offered_seconds.pop(name, None)

    def _shared(self, name: str, offer: Offer) -> Offer:
        """Returns an equal offer that is stored already, or `offer` itself."""
        known = self.known.get(name)
        kept = [record.offers[name] for record in self._offering.get(name, {}).values()]
        return next((each for each in ([known] if known else []) + kept if each.json == offer.json), offer)

    def _measure(self, name: str) -> None:
        kept = [self.known[name], *(record.offers[name] for record in self._offering.get(name, {}).values())]
        size = sum(len(each.json) for each in {id(each): each for each in kept}.values())
        self.total_bytes += size - self._bytes.get(name, 0)
        self._bytes[name] = size
