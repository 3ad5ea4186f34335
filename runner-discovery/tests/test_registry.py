from collections.abc import Callable
from typing import Any

import pytest

from runner_discovery.errors import BadRegistration, OtherBoot, RegistryFull, TooLarge, UnknownRunner
from runner_discovery.records import Conflict, Snapshot
from runner_discovery.registry import Registry
from runnerlib.contract import PlainRegistration, RunnerRegistration

Make = Callable[..., dict[str, Any]]


class Setup:
    def __init__(self, clock: Any, make: Make, **limits: int) -> None:
        self.clock = clock
        self.registry = Registry(epoch="e1", clock=clock, lease_seconds=30, **limits)
        self._make = make

    def put(self, runner_id: str, boot: str = "b1", **parts: Any) -> bool:
        return self.registry.register(runner_id, RunnerRegistration.model_validate(self._make(boot, **parts)))

    def post(self, algorithm: str, host: str) -> bool:
        return self.registry.register_plain(PlainRegistration(algorithm=algorithm, host=host), host)

    def after(self, seconds: float) -> list[str]:
        self.clock.now += seconds
        return self.registry.expire()

    def view(self, algorithm: str) -> tuple[list[str], list[str]]:
        view = self.registry.catalogue().algorithms[algorithm]
        return view.runners, view.outdated


@pytest.fixture
def setup(clock: Any, registration: Make) -> Setup:
    return Setup(clock, registration)


def test_a_registered_runner_is_in_the_catalogue(setup: Setup) -> None:
    assert setup.put("text-1", upper=1, lower=1)
    catalogue = setup.registry.catalogue()
    assert (catalogue.epoch, catalogue.index, catalogue.lease_seconds) == ("e1", 1, 30)
    assert catalogue.runners["text-1"].algorithms == ["upper", "lower"]
    assert catalogue.algorithms["upper"].runners == ["text-1"]
    assert catalogue.algorithms["upper"].description.input_schema == {"title": "v1"}
    assert setup.registry.hosts() == {"upper": "http://127.0.0.1:9001", "lower": "http://127.0.0.1:9001"}


def test_a_renewal_changes_nothing_but_the_lease(setup: Setup) -> None:
    setup.put("a", upper=1)
    assert setup.after(20) == []
    assert not setup.put("a", upper=1)
    assert setup.registry.index == 1
    assert setup.after(20) == []
    assert setup.after(10) == ["a"]
    assert setup.registry.index == 2


def test_an_expired_runner_leaves_its_algorithms_known(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.after(31)
    assert setup.registry.hosts() == {}
    view = setup.registry.catalogue().algorithms["upper"]
    assert view.runners == []
    assert view.description.input_schema == {"title": "v1"}


def test_the_next_expiry_is_the_first_lease_to_end(setup: Setup) -> None:
    assert setup.registry.next_expiry() is None
    setup.post("ocr", "old:1")
    assert setup.registry.next_expiry() is None
    setup.put("a", upper=1)
    setup.after(10)
    setup.put("b", upper=1, host="h:2")
    assert setup.registry.next_expiry() == 1030
    setup.registry.renew_all()
    assert setup.registry.next_expiry() == 1040


def test_replicas_share_an_algorithm(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.put("b", upper=1, host="h:2")
    assert sorted(setup.view("upper")[0]) == ["a", "b"]
    assert setup.registry.conflicts() == []


def test_a_new_boot_replaces_the_old_process(setup: Setup) -> None:
    setup.put("a", "b1", upper=1, lower=1)
    assert setup.put("a", "b2", upper=1)
    catalogue = setup.registry.catalogue()
    assert catalogue.runners["a"].boot == "b2"
    assert catalogue.algorithms["lower"].runners == []


def test_leaving_needs_the_right_boot_if_one_is_given(setup: Setup) -> None:
    setup.put("a", "b2", upper=1)
    with pytest.raises(OtherBoot, match="started anew"):
        setup.registry.remove("a", "b1")
    setup.registry.remove("a", "b2")
    with pytest.raises(UnknownRunner):
        setup.registry.remove("a")
    assert setup.registry.index == 2


def test_another_schema_is_a_conflict_and_the_newest_registration_is_current(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.put("b", upper=2, host="h:2")
    assert setup.view("upper") == (["b"], ["a"])
    assert setup.registry.conflicts() == [Conflict("upper", "b", "a")]
    assert setup.registry.hosts() == {"upper": "http://h:2"}
    setup.put("a", upper=1)
    assert setup.view("upper") == (["b"], ["a"])
    setup.put("a", "b2", upper=2)
    assert setup.view("upper") == (["a", "b"], [])


def test_when_the_newest_leaves_the_older_schema_is_current_again(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.put("b", upper=2, host="h:2")
    setup.registry.remove("b")
    assert setup.view("upper") == (["a"], [])
    assert setup.registry.catalogue().algorithms["upper"].description.input_schema == {"title": "v1"}


def test_a_runner_back_from_a_partition_is_not_taken_for_newer(setup: Setup) -> None:
    setup.put("old", upper=1)
    setup.put("new", upper=2, host="h:2")
    setup.after(20)
    setup.put("new", upper=2, host="h:2")
    assert setup.after(15) == ["old"]
    setup.put("old", upper=1)
    assert setup.view("upper") == (["new"], ["old"])


def test_a_changed_description_alone_is_no_conflict(setup: Setup, registration: Make) -> None:
    setup.put("a", upper=1)
    body = registration(host="h:2", upper=1)
    body["algorithms"][0]["summary"] = "Better words."
    setup.registry.register("b", RunnerRegistration.model_validate(body))
    assert setup.registry.conflicts() == []
    assert setup.registry.catalogue().algorithms["upper"].description.summary == "Better words."


def test_plain_registrations_have_no_lease_and_the_last_one_wins(setup: Setup) -> None:
    assert setup.post("ocr", "ocr-runner:8000")
    assert setup.post("lang", "ocr-runner:8000")
    assert not setup.post("ocr", "ocr-runner:8000")
    assert setup.after(10_000) == []
    runner = setup.registry.catalogue().runners["plain:ocr-runner:8000"]
    assert (runner.level.value, runner.host, runner.algorithms) == ("plain", "http://ocr-runner:8000", ["lang", "ocr"])
    assert setup.post("ocr", "http://other:8000/")
    assert setup.registry.hosts() == {"ocr": "http://other:8000/", "lang": "ocr-runner:8000"}
    assert setup.view("ocr") == (["plain:other:8000"], [])


def test_a_plain_host_that_registers_fully_gets_the_full_registration(setup: Setup) -> None:
    setup.post("upper", "h:2")
    setup.post("extra", "h:2")
    setup.put("full", upper=1, host="h:2")
    assert setup.view("upper") == (["full"], [])
    assert setup.view("extra") == (["plain:h:2"], [])
    assert not setup.post("upper", "h:2")
    assert setup.view("upper") == (["full"], [])


@pytest.mark.parametrize("runner_id", ["", "plain:x", "a b", "../x", "x" * 251, "a\n"])
def test_an_impossible_runner_id_is_refused(setup: Setup, runner_id: str) -> None:
    with pytest.raises(BadRegistration, match="name-host-port"):
        setup.put(runner_id, upper=1)


def test_an_algorithm_listed_twice_is_refused(setup: Setup, registration: Make) -> None:
    body = registration(upper=1)
    body["algorithms"] *= 2
    with pytest.raises(BadRegistration, match="twice"):
        setup.registry.register("a", RunnerRegistration.model_validate(body))


def test_a_giant_schema_is_refused_with_advice(setup: Setup, registration: Make) -> None:
    body = registration(upper=1)
    body["algorithms"][0]["output_schema"] = {"enum": ["x" * 100] * 1000}
    with pytest.raises(TooLarge, match=r"'upper'.*shorten it"):
        setup.registry.register("a", RunnerRegistration.model_validate(body))
    assert setup.registry.index == 0


def test_too_many_runners_are_refused_but_renewals_are_not(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_runners=2)
    setup.put("a", upper=1)
    setup.put("b", upper=1)
    with pytest.raises(RegistryFull, match="2 runners"):
        setup.put("c", upper=1)
    setup.put("a", "b2", upper=1)
    setup.after(31)
    setup.put("c", upper=1)


def test_of_too_many_algorithms_the_oldest_that_nobody_offers_is_forgotten(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_algorithms=2)
    setup.put("a", one=1, two=1)
    with pytest.raises(RegistryFull, match="2 algorithms"):
        setup.put("b", three=1)
    setup.put("a", "b2", two=1)
    setup.put("b", three=1)
    assert set(setup.registry.catalogue().algorithms) == {"two", "three"}


def test_what_left_in_order_is_remembered_by_its_boot(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_left=2)
    setup.put("a", "b1", upper=1)
    setup.registry.remove("a")
    setup.put("a", "b2", upper=1)
    assert setup.registry.catalogue().left == {"a": "b1"}
    setup.after(31)
    assert setup.registry.catalogue().left == {"a": "b1"}, "a lease that ran out is no order"
    for name in ("b", "c"):
        setup.put(name, f"{name}1", upper=1)
        setup.registry.remove(name)
    assert setup.registry.catalogue().left == {"b": "b1", "c": "c1"}, "the latest are kept"
    setup.put("c", "c1", upper=1)
    assert setup.registry.catalogue().left == {"b": "b1"}, "what comes back has not left"


def test_a_restored_registry_gives_the_same_catalogue(setup: Setup, clock: Any, registration: Make) -> None:
    setup.post("ocr", "old:1")
    setup.put("gone", away=1, host="h:4")
    setup.registry.remove("gone")
    setup.put("a", upper=1)
    setup.put("b", upper=2, host="h:2")
    setup.put("a", lower=3, upper=1)
    text = setup.registry.snapshot().model_dump_json()
    again = Setup(clock, registration)
    again.registry.restore(Snapshot.model_validate_json(text))
    before, after = setup.registry.catalogue(), again.registry.catalogue()
    assert (after.runners, after.algorithms, after.left) == (before.runners, before.algorithms, before.left)
    assert again.registry.hosts() == setup.registry.hosts()
    assert not again.put("b", upper=2, host="h:2")
    again.after(31)
    assert list(again.registry.catalogue().runners) == ["plain:old:1"]


def test_uptime_comes_from_the_clock(setup: Setup) -> None:
    setup.clock.now += 12.5
    assert setup.registry.catalogue().uptime_seconds == 12.5


def test_runners_tell_what_is_left_of_their_lease(setup: Setup) -> None:
    setup.post("ocr", "old:1")
    setup.put("a", upper=1)
    setup.clock.now += 10
    assert {runner.id: runner.lease_left_seconds for runner in setup.registry.runners()} == {
        "plain:old:1": None,
        "a": 20,
    }
