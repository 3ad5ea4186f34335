"""The registry against a naive model, for random sequences of what runners do."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runner_discovery.errors import OtherBoot, UnknownRunner
from runner_discovery.records import Snapshot
from runner_discovery.registry import Registry
from runnerlib.contract import PlainRegistration, RunnerRegistration

LEASE = 30.0
ids = st.sampled_from(["a", "b", "c"])
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
        self.registry = self._new()
        self.seen: tuple[int, object] = (0, None)

    def _new(self) -> Registry:
        self.epoch += 1
        return Registry(epoch=str(self.epoch), clock=lambda: self.now, lease_seconds=LEASE)

    @rule(runner=ids, boot=boots, offer=offers)
    def register(self, runner: str, boot: str, offer: dict[str, int]) -> None:
        body = {
            "name": "n",
            "host": f"{runner}:1",
            "boot": boot,
            "algorithms": [{"name": name, "input_schema": {"v": version}} for name, version in offer.items()],
        }
        before = self.live.get(runner)
        changed = self.registry.register(runner, RunnerRegistration.model_validate(body))
        same = before is not None and (before["boot"], list(before["offer"].items())) == (boot, list(offer.items()))
        assert changed is not same
        if same:
            assert before is not None
            before["until"] = self.now + LEASE
            return
        before = before or self.lapsed.pop(runner, None)
        orders = {}
        for name, version in offer.items():
            self.sequence += 1
            is_old = before is not None and before["boot"] == boot and before["offer"].get(name) == version
            orders[name] = before["orders"][name] if is_old and before else self.sequence
        self.live[runner] = {"boot": boot, "offer": offer, "orders": orders, "until": self.now + LEASE}
        self.known |= offer.keys()

    @rule(algorithm=st.sampled_from(["upper", "ocr"]), host=st.sampled_from(["p:1", "q:1"]))
    def register_plain(self, algorithm: str, host: str) -> None:
        self.registry.register_plain(PlainRegistration(algorithm=algorithm, host=host))
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
        self.known.add(algorithm)

    @rule(runner=ids, boot=st.none() | boots)
    def remove(self, runner: str, boot: str | None) -> None:
        try:
            self.registry.remove(runner, boot)
        except UnknownRunner:
            assert runner not in self.live
        except OtherBoot:
            assert self.live[runner]["boot"] != boot
        else:
            assert boot in (None, self.live.pop(runner)["boot"])

    @rule(seconds=st.floats(0.5, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        gone = {runner for runner, each in self.live.items() if each["until"] <= self.now}
        assert set(self.registry.expire()) == gone
        for runner in gone:
            self.lapsed[runner] = self.live.pop(runner)

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
            assert {*view.runners, *view.outdated} == offering.keys()
            if offering:
                newest = max(offering, key=lambda runner: offering[runner]["orders"][name])
                current = offering[newest]["offer"][name]
                assert view.runners[0] == newest
                assert {r for r in offering if offering[r]["offer"][name] == current} == set(view.runners)

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
    def the_next_expiry_is_known(self) -> None:
        leases = [each["until"] for each in self.live.values() if each["until"] != float("inf")]
        assert self.registry.next_expiry() == min(leases, default=None)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
