"""Which runner serves which algorithm: leases, owners, conflicts. Pure; the clock is injected."""

from collections.abc import Callable, Collection, Iterable, Mapping

from runner_discovery.admission import admitted, check_runner_id, known_as, plain_runner, plain_runner_id
from runner_discovery.catalogue import Changes, catalogue_json
from runner_discovery.conflicts import Conflicts
from runner_discovery.errors import (
    BootMissing,
    OtherBoot,
    OtherOwner,
    RegistryError,
    UnknownAlgorithm,
    UnknownRunner,
)
from runner_discovery.holdings import MAX_ALGORITHMS, MAX_BYTES, MAX_RUNNERS, Holdings
from runner_discovery.ownership import Owners
from runner_discovery.records import (
    NO_ORIGIN,
    Offer,
    Origin,
    RunnerRecord,
    RunnerStatus,
    SavedRunner,
    Snapshot,
    offers,
)
from runnerlib.contract import (
    AlgorithmView,
    Catalogue,
    PlainRegistration,
    RunnerRegistration,
    unregistrable,
)
from runnerlib.contract.registry import PLAIN_PREFIX

#: Remembered runners whose lease ran out: they do not count as newer when they come back.
MAX_LAPSED = 200
#: Remembered runners that left in order; controllers need the latest to give their tasks to others.
MAX_LEFT = 500
#: An owner loses its algorithms this long after its last runner left.
KEEP_SECONDS = 7 * 86_400.0


class Registry:
    """Runners with leases and the algorithms they offer. `index` grows whenever the catalogue changes."""

    def __init__(
        self,
        *,
        epoch: str,
        clock: Callable[[], float],
        lease_seconds: float,
        keep_seconds: float = KEEP_SECONDS,
        max_runners: int = MAX_RUNNERS,
        max_algorithms: int = MAX_ALGORITHMS,
        max_bytes: int = MAX_BYTES,
        max_left: int = MAX_LEFT,
    ) -> None:
        self.epoch = epoch
        self.index = 0
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._started_at = clock()
        self._max_left = max_left
        self._sequence = 0
        self._holdings = Holdings(clock, max_runners, max_algorithms, max_bytes)
        #: runners whose lease ran out; the same boot does not count as newer when it comes back
        self._lapsed: dict[str, tuple[str, dict[str, str], dict[str, int]]] = {}
        #: runner → boot id of the last process that left in order and has not come back
        self._left: dict[str, str] = {}
        self._owners = Owners(clock, keep_seconds)
        self._views: dict[str, AlgorithmView] = {}
        self._changes = Changes()
        self.conflicts = Conflicts()
        #: evicted algorithms and changed plain runners, to be published with the next change
        self._forgotten: list[str] = []
        self._dropped: list[str] = []

    # -- what runners do

    def register(
        self,
        runner_id: str,
        registration: RunnerRegistration,
        offered: Mapping[str, Offer] | None = None,
        origin: Origin = NO_ORIGIN,
    ) -> bool:
        """Registers a runner or renews its lease. Returns whether the catalogue changed. Raises RegistryError.

        `offered` is the result of `admitted`, if the caller has it already.
        """
        check_runner_id(runner_id)
        runner_id = known_as(runner_id, registration.name, origin.key_id)
        offered = admitted(registration) if offered is None else dict(offered)
        expires_at = self._clock() + self.lease_seconds
        known = self._holdings.runners.get(runner_id)
        if self.would_renew(runner_id, registration, offered) and known and known.origin.is_as_good_as(origin):
            known.expires_at, known.origin = expires_at, origin
            return self._settle(self.clashes(runner_id))
        head = registration.model_copy(update={"algorithms": []})
        record = RunnerRecord(runner_id, head, registration.host, expires_at, offered, origin=origin)
        self._make_room_for(record)
        affected = self._put(record)
        affected |= self._drop_plain(head.host, offered.keys(), record)
        self._settle(affected, changed=[runner_id])
        return True

    def would_renew(self, runner_id: str, registration: RunnerRegistration, offered: Mapping[str, Offer]) -> bool:
        """Returns whether the registration equals the known one, so that `register` only renews the lease."""
        known = self._holdings.runners.get(runner_id)
        return known is not None and known.says_the_same(registration.model_copy(update={"algorithms": []}), offered)

    def origin_of(self, runner_id: str, host: str) -> Origin | None:
        """Where the runner that is known for this host came from."""
        known = self._holdings.runners.get(runner_id)
        return None if known is None or known.head.host != host else known.origin

    def register_plain(
        self,
        registration: PlainRegistration,
        shown_host: str | None = None,
        runner_name: str = "",
        origin: Origin = NO_ORIGIN,
    ) -> bool:
        """Registers an algorithm at a host: no lease, the last host wins. Raises RegistryError.

        Without a `runner_name`, which a token gives it, it replaces only others without: OtherOwner if the algorithm
        belongs to a name. With one it is as good as a runner of that name.
        """
        name, host = registration.algorithm, registration.host
        if any(r.expires_at is not None and r.head.host == host for r in self._holdings.offering(name)):
            return False
        self._settle([name])
        owner = self._owners.get(name)
        if owner not in (None, runner_name) and not owner.startswith(PLAIN_PREFIX):
            raise OtherOwner(name, owner, runner_name)
        runner_id = known_as(plain_runner_id(host), runner_name, origin.key_id)
        shown = shown_host or host
        known = self._holdings.runners.get(runner_id)
        if known is not None and name in known.offers and known.shown_host == shown and known.origin == origin:
            return False
        head, offered = plain_runner(host, runner_name, sorted({name, *(known.offers if known else ())}))
        record = RunnerRecord(runner_id, head, shown, None, offered, origin=origin)
        self._make_room_for(record)
        affected = self._put(record) | self._drop_plain(None, {name}, record)
        self._owners.give(name, record.owner_name)
        self._settle(affected, changed=[runner_id])
        return True

    def remove(self, runner_id: str, boot: str | None = None) -> None:
        """Removes a live runner if its boot id is `boot`; plain registrations need none. Raises RegistryError.

        Its algorithms stay known and keep their owner, except those of plain registrations.
        """
        record = self._holdings.runners.get(runner_id)
        if record is None:
            raise UnknownRunner(f"no runner {runner_id[:250]!r} is registered; GET /runners lists those that are")
        if boot is None and record.expires_at is not None:
            raise BootMissing
        if boot is not None and boot != record.head.boot:
            raise OtherBoot(f"runner {runner_id!r} has been started anew since; its newer registration stays")
        affected = self._take(record)
        if record.expires_at is None:
            for name in self._owners.owned(record.owner_name).intersection(record.offers):
                if not self._owners.has_live(record.owner_name, name):
                    self._owners.give(name, None)
        else:
            self._has_left(runner_id, record.head.boot)
        self._settle(affected, changed=[runner_id])

    # -- owners

    def clashes(self, runner_id: str) -> dict[str, str]:
        """Returns algorithm → owner for the algorithms that the runner offers and another name owns."""
        record = self._holdings.runners.get(runner_id)
        if record is None:
            return {}
        owners = {name: self._owners.get(name) for name in record.offers}
        return {name: owner for name, owner in owners.items() if owner is not None and owner != record.owner_name}

    def take_over(self, algorithm: str, name: str) -> None:
        """Makes runner `name`, which must offer the algorithm now, its owner. Raises RegistryError."""
        if algorithm not in self._holdings.known:
            raise UnknownAlgorithm(f"no runner ever registered {algorithm[:80]!r}; GET /catalogue lists what there is")
        if not self._owners.offers(name, algorithm):
            offering = sorted({record.owner_name for record in self._holdings.offering(algorithm)})
            raise UnknownRunner(
                f"no live runner named {name[:100]!r} offers {algorithm!r}; "
                + (f"those who do are {', '.join(map(repr, offering[:10]))}" if offering else "start it first")
            )
        self._owners.give(algorithm, name)
        self._settle([algorithm])

    def release(self, name: str) -> list[str]:
        """Removes `name` as owner of what none of its live runners has, and returns those algorithms."""
        released = sorted(each for each in self._owners.owned(name) if not self._owners.has_live(name, each))
        for algorithm in released:
            self._owners.give(algorithm, None)
        self._settle(released)
        return released

    def owns_something(self, name: str) -> bool:
        return bool(self._owners.owned(name))

    # -- time

    def next_expiry(self) -> float | None:
        """Returns the clock time at which the first lease runs out, or None without leases."""
        return min((r.expires_at for r in self._holdings.runners.values() if r.expires_at is not None), default=None)

    def expire(self) -> list[str]:
        """Removes the runners whose lease has run out and returns their ids."""
        now = self._clock()
        gone = [r for r in self._holdings.runners.values() if r.expires_at is not None and r.expires_at <= now]
        affected: set[str] = set()
        for record in gone:
            affected |= self._take(record)
            self._lapsed[record.id] = (record.head.boot, record.digests, record.orders)
        while len(self._lapsed) > MAX_LAPSED:
            del self._lapsed[next(iter(self._lapsed))]
        if gone:
            self._settle(affected, changed=[record.id for record in gone])
        return [record.id for record in gone]

    def renew_all(self) -> None:
        """Gives every runner a fresh lease, after a time in which this process could not receive renewals."""
        expires_at = self._clock() + self.lease_seconds
        for record in self._holdings.runners.values():
            if record.expires_at is not None:
                record.expires_at = expires_at

    # -- what others see

    @property
    def uptime_seconds(self) -> float:
        return self._clock() - self._started_at

    def catalogue(self) -> Catalogue:
        return Catalogue.model_validate_json(self.catalogue_json())

    def catalogue_json(self, since: int | None = None) -> bytes:
        """Returns the catalogue, or only what changed after index `since` if all those changes are remembered."""
        delta = None if since is None else self._changes.since(since, self.index, self._holdings.description_bytes)
        head = Catalogue(
            epoch=self.epoch,
            index=self.index if delta is None else delta.index,
            uptime_seconds=self.uptime_seconds,
            lease_seconds=self.lease_seconds,
            runners={},
            algorithms={},
            left=self._left,
            since=None if delta is None else since,
            more=delta is not None and delta.index < self.index,
        )
        if delta is None:
            return catalogue_json(head, self._holdings.runners, self._views, self._holdings.known)
        head.gone_runners = [each for each in delta.runners if each not in self._holdings.runners]
        head.gone_algorithms = [each for each in delta.algorithms if each not in self._holdings.known]
        runners = {each: self._holdings.runners[each] for each in delta.runners if each in self._holdings.runners}
        views = {each: self._views[each] for each in delta.algorithms if each in self._holdings.known}
        return catalogue_json(head, runners, views, self._holdings.known)

    def hosts(self) -> dict[str, str]:
        """Returns algorithm → host of the newest live runner with the current schema."""
        return {
            name: self._holdings.runners[view.runners[0]].shown_host
            for name, view in sorted(self._views.items())
            if view.runners
        }

    def runners(self) -> list[RunnerStatus]:
        now = self._clock()
        return [
            RunnerStatus(
                **record.view().model_dump(),
                lease_left_seconds=None if record.expires_at is None else max(0.0, record.expires_at - now),
            )
            for record in self._holdings.runners.values()
        ]

    @property
    def has_owners_away(self) -> bool:
        return bool(self._owners.saved()[1])

    @property
    def total_bytes(self) -> int:
        return self._holdings.total_bytes

    @property
    def runner_count(self) -> int:
        return len(self._holdings.runners)

    @property
    def algorithm_count(self) -> int:
        return len(self._holdings.known)

    # -- memory

    def snapshot(self) -> Snapshot:
        owners, away_seconds = self._owners.saved()
        return Snapshot(
            sequence=self._sequence,
            algorithms=[known.description for known in self._holdings.known.values()],
            runners=[record.saved() for record in self._holdings.runners.values()],
            left=dict(self._left),
            owners=owners,
            away_seconds=away_seconds,
            offered_seconds={name: self._holdings.offered_seconds(name) for name in self._holdings.known},
        )

    def restore(self, snapshot: Snapshot, keeps: Callable[[SavedRunner], bool] = lambda _: True) -> list[str]:
        """Restores the state of an earlier process. Its runners get one fresh lease in which to renew.

        `keeps` says whether a runner may be remembered; others must register again.
        Returns messages about what was left out because it exceeds the present limits.
        """
        expires_at = self._clock() + self.lease_seconds
        left_out: list[str] = []
        self._sequence = snapshot.sequence
        self._left = dict(list(snapshot.left.items())[-self._max_left :])
        self._owners.restore(snapshot.owners, snapshot.away_seconds)
        names, dropped = set[str](), list[SavedRunner]()
        for saved in snapshot.runners:
            if not keeps(saved):
                left_out.append(f"runner {saved.id}: by the present keys and RUNNER_HOSTS it must register again")
                dropped.append(saved)
                continue
            try:
                offered = admitted(saved.registration)
                head = saved.registration.model_copy(update={"algorithms": []})
                lease_ends_at = expires_at if saved.has_lease else None
                record = RunnerRecord(saved.id, head, saved.shown_host, lease_ends_at, offered, origin=saved.origin)
                self._make_room_for(record)
            except RegistryError as error:
                left_out.append(f"runner {saved.id}: {error}")
                continue
            names |= self._put(record, {name: saved.orders.get(name, 0) for name in offered})
        self._owners.forget_dropped(dropped)
        refused = unregistrable(snapshot.algorithms, together=False)
        left_out += [f"algorithm {name}: {reason}" for name, reason in refused.items()]
        known = [offer for name, offer in offers(snapshot.algorithms).items() if name not in refused]
        seconds = snapshot.offered_seconds
        for offer in sorted(known, key=lambda each: -seconds.get(each.description.name, 0.0)):
            if not self._holdings.remember(offer, seconds.get(offer.description.name, 0.0)):
                left_out.append(f"algorithm {offer.description.name}: nobody offers it, and there is no room for it")
        self._settle({*names, *self._holdings.known}, changed=list(self._holdings.runners))
        return left_out

    # -- inside

    def _has_left(self, runner_id: str, boot: str) -> None:
        self._left.pop(runner_id, None)
        self._left[runner_id] = boot
        while len(self._left) > self._max_left:
            del self._left[next(iter(self._left))]

    def _put(self, record: RunnerRecord, orders: Mapping[str, int] | None = None) -> set[str]:
        """Returns the affected algorithms."""
        if self._left.get(record.id) == record.head.boot:
            del self._left[record.id]
        before = self._holdings.runners.get(record.id)
        boot, digests, known_orders = self._lapsed.pop(record.id, ("", {}, {}))
        affected: set[str] = set()
        if before is not None:
            boot, digests, known_orders = before.head.boot, before.digests, before.orders
            affected = self._take(before)
        for name, offer in record.offers.items():
            if orders is not None:
                record.orders[name] = orders[name]
            elif boot == record.head.boot and digests.get(name) == offer.digest:
                record.orders[name] = known_orders[name]
            else:
                self._sequence += 1
                record.orders[name] = self._sequence
        self._holdings.put(record)
        self._owners.came(record)
        return affected | record.offers.keys() | self._owners.owned(record.owner_name)

    def _take(self, record: RunnerRecord) -> set[str]:
        """Returns the affected algorithms."""
        affected = {*record.offers, *self._owners.owned(record.owner_name)}
        self._holdings.take(record)
        self._owners.went(record)
        return affected

    def _make_room_for(self, record: RunnerRecord) -> None:
        """Raises RegistryFull."""
        for name in self._holdings.make_room_for(record):
            self._owners.give(name, None)
            self._views.pop(name, None)
            self._forgotten.append(name)

    def _drop_plain(self, host: str | None, names: Collection[str], taker: RunnerRecord) -> set[str]:
        """Removes `names` from plain registrations (of `host`, or all) but those of other names; `taker` owns them."""
        plain = {
            record.id: record
            for name in names
            for record in self._holdings.offering(name)
            if record.expires_at is None
            and record.id != taker.id
            and host in (None, record.head.host)
            and (not record.origin.key_id or record.owner_name == taker.owner_name)
        }
        affected: set[str] = set()
        for record in plain.values():
            affected |= self._take(record)
            for name in names & record.offers.keys():
                del record.offers[name], record.orders[name]
                if self._owners.get(name) == record.owner_name:
                    self._owners.give(name, taker.owner_name)
            if record.offers:
                affected |= self._put(record, record.orders)
            self._dropped.append(record.id)
        return affected

    def _settle(self, names: Iterable[str], changed: Iterable[str] = ()) -> bool:
        """Records a change of these runners and algorithms; returns whether the catalogue differs."""
        runners = [*changed, *self._dropped]
        algorithms = [*self._forgotten, *(name for name in names if self._refresh(name))]
        self._dropped, self._forgotten = [], []
        if not runners and not algorithms:
            return False
        self.index += 1
        self._changes.note(self.index, runners, algorithms)
        return True

    def _refresh(self, name: str) -> bool:
        """Recomputes the owner of an algorithm and the runners that get its tasks; returns whether they changed."""
        records = sorted(self._holdings.offering(name), key=lambda record: -record.orders[name])
        owner = self._owners.settle(name, records[-1] if records else None)
        theirs = [record for record in records if record.owner_name == owner]
        if theirs or name not in self._holdings.known:
            if not records:
                self._owners.give(name, None)
                return False
            self._holdings.describe(name, (theirs or records)[0].offers[name])
        known = self._holdings.known[name]
        view = AlgorithmView(
            description=known.description,
            schema_digest=known.digest,
            runners=[record.id for record in theirs if record.offers[name].digest == known.digest],
            outdated=[record.id for record in theirs if record.offers[name].digest != known.digest],
            owner=owner,
            clashing=[record.id for record in records if record.owner_name != owner],
        )
        before = self._views.get(name)
        self._views[name] = view
        self.conflicts.note(name, view)
        return before is None or before.description is not view.description or before != view
