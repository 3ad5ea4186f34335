"""The registry against a naive model, for random sequences of what runners do."""

from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runner_discovery.errors import BootMissing, OtherBoot, OtherOwner, UnknownAlgorithm, UnknownRunner
from runner_discovery.records import Snapshot
from runner_discovery.registry import Registry
from runnerlib.contract import Catalogue, PlainRegistration, RunnerRegistration

LEASE = 30.0
KEEP = 100.0
#: Runner → its name: two are replicas, the third may clash with them.
NAMES = {"a": "n", "b": "n", "c": "m"}
ids = st.sampled_from(sorted(NAMES))
boots = st.sampled_from(["b1", "b2"])
offers = st.dictionaries(st.sampled_from(["upper", "lower"]), st.integers(1, 2), max_size=2)


class RegistryMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.epoch = 0
        self.sequence = 0
        self.live: dict[str, dict[str, Any]] = {}
        self.lapsed: dict[str, dict[str, Any]] = {}
        self.known: set[str] = set()
        self.owners: dict[str, str] = {}
        self.away_since: dict[str, float] = {}
        self.registry = self._new()
        self.read: tuple[str, int, dict[str, Any], dict[str, Any]] = ("", 0, {}, {})
        self.seen: tuple[int, object] = (0, None)

    def _new(self) -> Registry:
        self.epoch += 1
        return Registry(epoch=str(self.epoch), clock=lambda: self.now, lease_seconds=LEASE, keep_seconds=KEEP)

    def _owner_name(self, runner: str) -> str:
        return NAMES.get(runner, runner)

    def _settle_owners(self) -> None:
        """As a person would say it: an owner that is live has what its runners have; one that is not, keeps it."""
        live = {self._owner_name(runner) for runner in self.live}
        for name in {*live, *self.owners.values()}:
            if name in live:
                self.away_since.pop(name, None)
            else:
                self.away_since.setdefault(name, self.now)
        for algorithm in self.known:
            owner = self.owners.get(algorithm)
            having = [r for r in self.live if algorithm in {*self.live[r]["offer"], *self.live[r].get("keeps", ())}]
            if owner in live and owner not in {self._owner_name(runner) for runner in having}:
                del self.owners[algorithm]
            offering = [runner for runner in self.live if algorithm in self.live[runner]["offer"]]
            if algorithm not in self.owners and offering:
                first = min(offering, key=lambda runner: self.live[runner]["orders"][algorithm])
                self.owners[algorithm] = self._owner_name(first)

    @rule(runner=ids, boot=boots, offer=offers, keeps=st.sets(st.sampled_from(["upper", "lower"])))
    def register(self, runner: str, boot: str, offer: dict[str, int], keeps: set[str]) -> None:
        body = {
            "name": NAMES[runner],
            "keeps": sorted(keeps),
            "host": f"{runner}:1",
            "boot": boot,
            "algorithms": [{"name": name, "input_schema": {"v": version}} for name, version in offer.items()],
        }
        before = self.live.get(runner)
        changed = self.registry.register(runner, RunnerRegistration.model_validate(body))
        said = (boot, list(offer.items()), keeps)
        same = before is not None and (before["boot"], list(before["offer"].items()), before["keeps"]) == said
        # An owner that has been away for too long is found out by who renews what belongs to it.
        assert changed or same
        if same:
            assert before is not None
            before["until"] = self.now + LEASE
            self._expire_owners(offer)
            return
        before = before or self.lapsed.pop(runner, None)
        orders = {}
        for name, version in offer.items():
            self.sequence += 1
            is_old = before is not None and before["boot"] == boot and before["offer"].get(name) == version
            orders[name] = before["orders"][name] if is_old and before else self.sequence
        self.live[runner] = {"boot": boot, "offer": offer, "keeps": keeps, "orders": orders, "until": self.now + LEASE}
        self.known |= offer.keys()
        self._settle_owners()
        self._expire_owners(offer)

    def _expire_owners(self, algorithms: Iterable[str]) -> None:
        for algorithm in algorithms:
            since = self.away_since.get(self.owners.get(algorithm, ""))
            if since is not None and self.now - since > KEEP:
                del self.owners[algorithm]
        self._settle_owners()

    @rule(algorithm=st.sampled_from(["upper", "ocr"]), host=st.sampled_from(["p:1", "q:1"]))
    def register_plain(self, algorithm: str, host: str) -> None:
        self._expire_owners([algorithm] if algorithm in self.known else [])
        owner = self.owners.get(algorithm)
        try:
            self.registry.register_plain(PlainRegistration(algorithm=algorithm, host=host))
        except OtherOwner:
            assert owner in NAMES.values()
            return
        assert owner not in NAMES.values()
        before = self.live.get(f"plain:{host}", {"offer": {}, "orders": {}})
        if algorithm not in before["offer"]:
            self.sequence += 1
            for other in [each for each in self.live if each.startswith("plain:") and each != f"plain:{host}"]:
                self.live[other]["offer"].pop(algorithm, None)
                if not self.live[other]["offer"]:
                    del self.live[other]
            self.live[f"plain:{host}"] = {
                "boot": "plain",
                "offer": {**before["offer"], algorithm: None},
                "orders": {**before["orders"], algorithm: self.sequence},
                "until": float("inf"),
            }
            self.owners[algorithm] = f"plain:{host}"
        self.known.add(algorithm)
        self._settle_owners()

    @rule(algorithm=st.sampled_from(["upper", "lower", "ocr"]), name=st.sampled_from(["n", "m", "plain:p:1"]))
    def take_over(self, algorithm: str, name: str) -> None:
        offering = {self._owner_name(runner) for runner, each in self.live.items() if algorithm in each["offer"]}
        try:
            self.registry.take_over(algorithm, name)
        except (UnknownAlgorithm, UnknownRunner):
            assert name not in offering
            return
        assert name in offering
        self.owners[algorithm] = name
        self._settle_owners()

    @rule(name=st.sampled_from(["n", "m"]))
    def release(self, name: str) -> None:
        self.registry.release(name)
        having = {a for r, each in self.live.items() if self._owner_name(r) == name for a in each["offer"]}
        having |= {a for r, each in self.live.items() if self._owner_name(r) == name for a in each["keeps"]}
        self.owners = {a: owner for a, owner in self.owners.items() if owner != name or a in having}
        self._settle_owners()

    @rule(runner=ids, boot=st.none() | boots)
    def remove(self, runner: str, boot: str | None) -> None:
        try:
            self.registry.remove(runner, boot)
        except UnknownRunner:
            assert runner not in self.live
        except OtherBoot:
            assert self.live[runner]["boot"] != boot
        except BootMissing:
            assert boot is None and runner in self.live
        else:
            assert boot == self.live.pop(runner)["boot"]
            self._settle_owners()

    @rule(seconds=st.floats(0.5, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        gone = {runner for runner, each in self.live.items() if each["until"] <= self.now}
        assert set(self.registry.expire()) == gone
        for runner in gone:
            self.lapsed[runner] = self.live.pop(runner)
        if gone:
            self._settle_owners()

    @rule()
    def restart(self) -> None:
        snapshot = Snapshot.model_validate_json(self.registry.snapshot().model_dump_json())
        self.registry = self._new()
        self.registry.restore(snapshot)
        self.lapsed.clear()
        self.seen = (0, None)
        for each in self.live.values():
            if each["until"] != float("inf"):
                each["until"] = self.now + LEASE

    @invariant()
    def catalogue_is_that_of_the_model(self) -> None:
        catalogue = self.registry.catalogue()
        assert catalogue.runners.keys() == self.live.keys()
        assert catalogue.algorithms.keys() == self.known
        for name, view in catalogue.algorithms.items():
            offering = {runner: each for runner, each in self.live.items() if name in each["offer"]}
            theirs = {r: each for r, each in offering.items() if self._owner_name(r) == self.owners.get(name)}
            assert view.owner == self.owners.get(name)
            assert {*view.runners, *view.outdated} == theirs.keys()
            assert set(view.clashing) == offering.keys() - theirs.keys()
            if theirs:
                newest = max(theirs, key=lambda runner: theirs[runner]["orders"][name])
                current = theirs[newest]["offer"][name]
                assert view.runners[0] == newest
                assert {r for r in theirs if theirs[r]["offer"][name] == current} == set(view.runners)

    @invariant()
    def index_grows_with_every_change_and_only_then(self) -> None:
        catalogue = self.registry.catalogue()
        content = (catalogue.runners, catalogue.algorithms)
        index, before = self.seen
        assert catalogue.index >= index
        if before is not None and content != before:
            assert catalogue.index > index
        self.seen = (catalogue.index, content)

    @invariant()
    def who_is_told_changes_alone_knows_the_same(self) -> None:
        """A reader that asks now and then, for what changed since it asked last."""
        epoch, index, runners, algorithms = self.read
        if epoch != self.registry.epoch:
            index, runners, algorithms = 0, {}, {}
        answer = Catalogue.model_validate_json(self.registry.catalogue_json(index))
        assert answer.since == index and not answer.more
        for known, changed, gone in (
            (runners, answer.runners, answer.gone_runners),
            (algorithms, answer.algorithms, answer.gone_algorithms),
        ):
            known.update(changed)
            for each in gone:
                known.pop(each, None)
        whole = self.registry.catalogue()
        assert (runners, algorithms, answer.index) == (whole.runners, whole.algorithms, whole.index)
        self.read = (self.registry.epoch, answer.index, runners, algorithms)

    @invariant()
    def the_next_expiry_is_known(self) -> None:
        leases = [each["until"] for each in self.live.values() if each["until"] != float("inf")]
        assert self.registry.next_expiry() == min(leases, default=None)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
