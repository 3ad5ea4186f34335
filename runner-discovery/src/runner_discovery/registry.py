"""Who serves what: leases, conflicts, remembered algorithms. Pure; time comes from the clock it is given."""

from collections.abc import Callable

from runner_discovery.admission import PLAIN_BOOT, check_registration, check_runner_id, plain_runner_id
from runner_discovery.errors import OtherBoot, RegistryFull, UnknownRunner
from runner_discovery.records import Conflict, KnownAlgorithm, RunnerRecord, RunnerStatus, SavedRunner, Snapshot
from runner_discovery.views import algorithm_view, view_fields
from runnerlib.contract import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    PlainRegistration,
    RunnerLevel,
    RunnerRegistration,
    RunnerView,
    schema_digest,
)

MAX_RUNNERS = 1000
MAX_ALGORITHMS = 5000
#: Runners that left in order are remembered for their tasks' sake; the latest are enough.
MAX_LEFT = 500


class Registry:
    """Runners with leases and the algorithms they offer. `index` grows whenever the catalogue changes."""

    def __init__(
        self,
        *,
        epoch: str,
        clock: Callable[[], float],
        lease_seconds: float,
        max_runners: int = MAX_RUNNERS,
        max_algorithms: int = MAX_ALGORITHMS,
        max_left: int = MAX_LEFT,
    ) -> None:
        self.epoch = epoch
        self.index = 0
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._started_at = clock()
        self._max_runners = max_runners
        self._max_algorithms = max_algorithms
        self._max_left = max_left
        self._sequence = 0
        self._runners: dict[str, RunnerRecord] = {}
        #: runners whose lease ran out; when the same boot comes back it is not taken for a newer one
        self._lapsed: dict[str, RunnerRecord] = {}
        #: runner → boot of its process that left in order last, unless that came back
        self._left: dict[str, str] = {}
        self._known: dict[str, KnownAlgorithm] = {}
        self._views: dict[str, AlgorithmView] = {}

    # -- what runners do

    def register(self, runner_id: str, registration: RunnerRegistration) -> bool:
        """Registers a runner or renews its lease; tells whether the catalogue changed. Raises RegistryError."""
        check_runner_id(runner_id)
        expires_at = self._clock() + self.lease_seconds
        known = self._runners.get(runner_id)
        if known is not None and known.registration == registration:
            known.expires_at = expires_at
            return False
        self._check(runner_id, registration)
        self._admit(RunnerRecord(runner_id, registration, registration.host, expires_at))
        self._drop_plain(registration.host, {description.name for description in registration.algorithms})
        self._changed()
        return True

    def register_plain(self, registration: PlainRegistration, shown_host: str | None = None) -> bool:
        """The original pattern's registration: no lease, the last host of an algorithm wins. Raises RegistryError."""
        name, host = registration.algorithm, registration.host
        if any(record.registration.host == host and name in record.digests for record in self._leased()):
            return False
        runner_id = plain_runner_id(host)
        shown = shown_host or host
        known = self._runners.get(runner_id)
        if known is not None and name in known.digests and known.shown_host == shown:
            return False
        names = sorted({name, *(known.digests if known else ())})
        whole = RunnerRegistration(
            name=host.partition("://")[2][:100],
            host=host,
            boot=PLAIN_BOOT,
            level=RunnerLevel.PLAIN,
            algorithms=[AlgorithmDescription(name=each) for each in names],
        )
        self._check(runner_id, whole)
        self._admit(RunnerRecord(runner_id, whole, shown, None))
        self._drop_plain(None, {name}, keep=runner_id)
        self._changed()
        return True

    def remove(self, runner_id: str, boot: str | None = None) -> None:
        """Forgets a live runner, if `boot` is None or its own. Its algorithms stay known. Raises RegistryError."""
        record = self._runners.get(runner_id)
        if record is None:
            raise UnknownRunner(f"no runner {runner_id[:250]!r} is registered; GET /runners lists those that are")
        if boot is not None and boot != record.registration.boot:
            raise OtherBoot(f"runner {runner_id!r} has been started anew since; its newer registration stays")
        del self._runners[runner_id]
        self._has_left(runner_id, record.registration.boot)
        self._changed()

    # -- time

    def next_expiry(self) -> float | None:
        """When, on the clock, the first lease runs out; None without leases."""
        return min((r.expires_at for r in self._runners.values() if r.expires_at is not None), default=None)

    def expire(self) -> list[str]:
        """Removes the runners whose lease has run out; returns their ids."""
        now = self._clock()
        gone = [r.id for r in self._runners.values() if r.expires_at is not None and r.expires_at <= now]
        for runner_id in gone:
            self._lapsed[runner_id] = self._runners.pop(runner_id)
        while len(self._lapsed) > self._max_runners:
            del self._lapsed[next(iter(self._lapsed))]
        if gone:
            self._changed()
        return gone

    def renew_all(self) -> None:
        """Gives every runner a fresh lease: after a time in which this process could not hear renewals."""
        expires_at = self._clock() + self.lease_seconds
        for record in self._leased():
            record.expires_at = expires_at

    # -- what others see

    @property
    def uptime_seconds(self) -> float:
        return self._clock() - self._started_at

    def catalogue(self) -> Catalogue:
        return Catalogue(
            epoch=self.epoch,
            index=self.index,
            uptime_seconds=self.uptime_seconds,
            lease_seconds=self.lease_seconds,
            runners={record.id: RunnerView(**view_fields(record)) for record in self._runners.values()},
            algorithms=dict(self._views),
            left=dict(self._left),
        )

    def hosts(self) -> dict[str, str]:
        """Algorithm → host of one live runner with the current schema, the newest one."""
        return {
            name: self._runners[view.runners[0]].shown_host
            for name, view in sorted(self._views.items())
            if view.runners
        }

    def runners(self) -> list[RunnerStatus]:
        now = self._clock()
        return [
            RunnerStatus(
                **view_fields(record),
                lease_left_seconds=None if record.expires_at is None else max(0.0, record.expires_at - now),
            )
            for record in self._runners.values()
        ]

    def conflicts(self) -> list[Conflict]:
        """One for each live runner whose schema of an algorithm is not the current one."""
        return [
            Conflict(name, view.runners[0], outdated)
            for name, view in sorted(self._views.items())
            for outdated in view.outdated
        ]

    @property
    def runner_count(self) -> int:
        return len(self._runners)

    @property
    def algorithm_count(self) -> int:
        return len(self._known)

    # -- memory

    def snapshot(self) -> Snapshot:
        return Snapshot(
            sequence=self._sequence,
            algorithms=[known.description for known in self._known.values()],
            runners=[
                SavedRunner(
                    id=record.id,
                    shown_host=record.shown_host,
                    has_lease=record.expires_at is not None,
                    registration=record.registration,
                    orders=record.orders,
                )
                for record in self._runners.values()
            ],
            left=dict(self._left),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Takes up what an earlier process knew; its runners get one fresh lease to renew in."""
        expires_at = self._clock() + self.lease_seconds
        self._sequence = snapshot.sequence
        self._left = dict(snapshot.left)
        for description in snapshot.algorithms:
            self._known[description.name] = KnownAlgorithm(description, schema_digest(description))
        for saved in snapshot.runners:
            record = RunnerRecord(
                saved.id, saved.registration, saved.shown_host, expires_at if saved.has_lease else None
            )
            record.digests = {each.name: schema_digest(each) for each in saved.registration.algorithms}
            record.orders = {name: saved.orders.get(name, 0) for name in record.digests}
            self._runners[record.id] = record
        self._changed()

    # -- inside

    def _has_left(self, runner_id: str, boot: str) -> None:
        self._left.pop(runner_id, None)
        self._left[runner_id] = boot
        while len(self._left) > self._max_left:
            del self._left[next(iter(self._left))]

    def _leased(self) -> list[RunnerRecord]:
        return [record for record in self._runners.values() if record.expires_at is not None]

    def _check(self, runner_id: str, registration: RunnerRegistration) -> None:
        if runner_id not in self._runners and len(self._runners) >= self._max_runners:
            raise RegistryFull(f"{self._max_runners} runners are registered already; stop some, or run a registry more")
        check_registration(registration)
        names = {description.name for description in registration.algorithms}
        self._make_room(names - self._known.keys())

    def _make_room(self, new_names: set[str]) -> None:
        """Forgets algorithms that nobody offers, oldest first, when there are too many."""
        surplus = len(self._known) + len(new_names) - self._max_algorithms
        if surplus <= 0:
            return
        idle = [name for name, view in self._views.items() if not view.runners]
        if len(idle) < surplus:
            raise RegistryFull(f"{self._max_algorithms} algorithms are registered already; remove runners first")
        for name in idle[:surplus]:
            del self._known[name]

    def _admit(self, record: RunnerRecord) -> None:
        if self._left.get(record.id) == record.registration.boot:
            del self._left[record.id]
        before = self._runners.get(record.id) or self._lapsed.pop(record.id, None)
        same_boot = before is not None and before.registration.boot == record.registration.boot
        record.registration = self._shared(record.registration)
        for description in record.registration.algorithms:
            name, digest = description.name, schema_digest(description)
            record.digests[name] = digest
            if before is not None and same_boot and before.digests.get(name) == digest:
                record.orders[name] = before.orders[name]
            else:
                self._sequence += 1
                record.orders[name] = self._sequence
        self._runners[record.id] = record

    def _shared(self, registration: RunnerRegistration) -> RunnerRegistration:
        """Replicas describe the same things: equal descriptions are kept in memory once."""
        shared = []
        for description in registration.algorithms:
            known = self._known.get(description.name)
            shared.append(known.description if known and known.description == description else description)
        return registration.model_copy(update={"algorithms": shared})

    def _drop_plain(self, host: str | None, names: set[str], keep: str = "") -> None:
        """Takes `names` from plain registrations (of `host`, or of all) that another registration replaces."""
        for record in [r for r in self._runners.values() if r.expires_at is None and r.id != keep]:
            taken = names & record.digests.keys()
            if not taken or host not in (None, record.registration.host):
                continue
            rest = [each for each in record.registration.algorithms if each.name not in taken]
            if not rest:
                del self._runners[record.id]
                continue
            record.registration = record.registration.model_copy(update={"algorithms": rest})
            for name in taken:
                del record.digests[name], record.orders[name]

    def _changed(self) -> None:
        self.index += 1
        offers: dict[str, list[RunnerRecord]] = {}
        for record in self._runners.values():
            for name in record.digests:
                offers.setdefault(name, []).append(record)
        for name, records in offers.items():
            records.sort(key=lambda record: -record.orders[name])
            self._known[name] = self._described(name, records[0])
        self._views = {name: algorithm_view(name, known, offers.get(name, [])) for name, known in self._known.items()}

    def _described(self, name: str, record: RunnerRecord) -> KnownAlgorithm:
        description = next(each for each in record.registration.algorithms if each.name == name)
        return KnownAlgorithm(description, record.digests[name])
