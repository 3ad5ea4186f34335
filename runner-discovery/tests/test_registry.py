from collections.abc import Callable
from typing import Any

import pytest

from runner_discovery.conflicts import Conflict
from runner_discovery.errors import BadRegistration, OtherBoot, RegistryError, RegistryFull, TooLarge, UnknownRunner
from runner_discovery.records import Snapshot
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
    assert setup.registry.conflicts.all() == []


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
        setup.registry.remove("a", "b2")
    assert setup.registry.index == 2


def test_a_runner_with_a_lease_leaves_with_its_boot_only_since_another_may_have_come(setup: Setup) -> None:
    setup.put("a", "b1", upper=1)
    with pytest.raises(RegistryError, match=r"boot="):
        setup.registry.remove("a")
    assert setup.view("upper") == (["a"], [])
    setup.post("ocr", "old:1")
    setup.registry.remove("plain:old:1")
    assert setup.view("ocr") == ([], [])


def test_another_schema_is_a_conflict_and_the_newest_registration_is_current(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.put("b", upper=2, host="h:2")
    assert setup.view("upper") == (["b"], ["a"])
    assert setup.registry.conflicts.all() == [Conflict("upper", "b", "a")]
    assert setup.registry.hosts() == {"upper": "http://h:2"}
    setup.put("a", upper=1)
    assert setup.view("upper") == (["b"], ["a"])
    setup.put("a", "b2", upper=2)
    assert setup.view("upper") == (["a", "b"], [])


def test_when_the_newest_leaves_the_older_schema_is_current_again(setup: Setup) -> None:
    setup.put("a", upper=1)
    setup.put("b", upper=2, host="h:2")
    setup.registry.remove("b", "b1")
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


def test_the_first_name_that_registers_an_algorithm_owns_it_and_another_gets_no_work(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1, upper=1)
    setup.put("b", name="weather", host="h:2", predict=1, lower=1)
    view = setup.registry.catalogue().algorithms["predict"]
    assert (view.owner, view.runners, view.outdated, view.clashing) == ("iris", ["a"], [], ["b"])
    assert setup.registry.clashes("b") == {"predict": "iris"}
    assert setup.registry.clashes("a") == {}
    assert setup.view("lower") == (["b"], []), "its other algorithms work"
    assert setup.registry.hosts()["predict"] == "http://127.0.0.1:9001"


def test_another_name_takes_nothing_with_another_schema_either(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    setup.put("a2", name="iris", host="h:3", predict=3)
    assert setup.view("predict") == (["a2"], ["a"]), "the newest of its replicas"
    view = setup.registry.catalogue().algorithms["predict"]
    assert view.description.input_schema == {"title": "v3"}
    assert view.clashing == ["b"]


def test_an_owner_keeps_its_algorithm_while_it_is_away_but_not_for_ever(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, keep_seconds=1000)
    setup.put("a", name="iris", predict=1)
    setup.after(31)
    setup.put("b", name="weather", host="h:2", predict=2)
    assert setup.view("predict") == ([], [])
    assert setup.registry.catalogue().algorithms["predict"].description.input_schema == {"title": "v1"}
    for _ in range(101):
        setup.after(10)
        setup.put("b", name="weather", host="h:2", predict=2)
    assert setup.view("predict") == (["b"], [])
    setup.put("a", name="iris", predict=1)
    assert setup.registry.clashes("a") == {"predict": "weather"}


def test_an_owner_that_registers_without_an_algorithm_gives_it_up(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1, upper=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    setup.put("a", "b2", name="iris", upper=1)
    assert setup.view("predict") == (["b"], [])
    assert setup.registry.clashes("b") == {}


def test_an_algorithm_that_does_not_work_for_a_while_stays_its_runners_own(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1, upper=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    setup.put("a", name="iris", keeps=["predict"], upper=1)
    assert setup.view("predict") == ([], [])
    assert setup.registry.clashes("b") == {"predict": "iris"}
    setup.put("a", name="iris", predict=1, upper=1)
    assert setup.view("predict") == (["a"], [])


def test_a_new_version_of_a_runner_is_no_clash_and_what_it_lost_ends_with_the_old_one(setup: Setup) -> None:
    setup.put("old", "b1", name="iris", predict=1, upper=1)
    setup.put("new", "b2", name="iris", host="h:2", upper=1, classify=1)
    setup.put("other", name="weather", host="h:3", predict=2)
    assert setup.view("predict") == (["old"], [])
    assert setup.registry.clashes("new") == {}
    setup.registry.remove("old", "b1")
    assert setup.view("predict") == (["other"], [])


def test_a_renamed_runner_gets_its_algorithms_once_the_old_name_is_given_up(setup: Setup) -> None:
    setup.put("old", name="iris", predict=1)
    setup.put("new", name="flowers", host="h:2", predict=1)
    assert setup.registry.release("iris") == [], "it is live"
    setup.registry.remove("old", "b1")
    assert setup.registry.clashes("new") == {"predict": "iris"}
    assert setup.registry.release("iris") == ["predict"]
    assert setup.registry.clashes("new") == {}
    assert setup.view("predict") == (["new"], [])


def test_an_algorithm_can_be_given_to_another_runner_that_offers_it(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    for name in ("nobody", "plain:h:2"):
        with pytest.raises(UnknownRunner, match="those who do are 'iris', 'weather'"):
            setup.registry.take_over("predict", name)
    with pytest.raises(RegistryError, match="'nothing'"):
        setup.registry.take_over("nothing", "iris")
    setup.registry.take_over("predict", "weather")
    assert setup.view("predict") == (["b"], [])
    assert setup.registry.clashes("a") == {"predict": "weather"}
    setup.put("a", "b2", name="iris", predict=1)
    assert setup.view("predict") == (["b"], [])


def test_a_plain_registration_takes_nothing_from_a_named_runner_nor_the_other_way_round(setup: Setup) -> None:
    setup.put("a", name="iris", predict=1)
    with pytest.raises(RegistryError, match="belongs to runner 'iris'"):
        setup.post("predict", "old:1")
    setup.after(31)
    with pytest.raises(RegistryError, match="belongs to"):
        setup.post("predict", "old:1")
    setup.post("ocr", "old:1")
    setup.put("b", name="weather", host="h:2", ocr=1)
    assert setup.registry.clashes("b") == {"ocr": "plain:old:1"}
    setup.post("ocr", "other:1")
    assert setup.view("ocr") == (["plain:other:1"], [])
    setup.registry.remove("plain:other:1")
    assert setup.view("ocr") == (["b"], [])


def test_owners_are_remembered_over_a_restart(setup: Setup, clock: Any, registration: Make) -> None:
    setup.put("a", name="iris", predict=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    setup.after(20)
    setup.put("b", name="weather", host="h:2", predict=2)
    setup.after(20)
    text = setup.registry.snapshot().model_dump_json()
    again = Setup(clock, registration)
    again.registry.restore(Snapshot.model_validate_json(text))
    assert again.registry.clashes("b") == {"predict": "iris"}
    assert again.view("predict") == ([], [])
    again.put("a", name="iris", predict=1)
    assert again.view("predict") == (["a"], [])


def test_a_snapshot_of_before_owners_gives_each_algorithm_to_who_offered_it_first(
    setup: Setup, clock: Any, registration: Make
) -> None:
    setup.put("a", name="iris", predict=1)
    setup.put("b", name="weather", host="h:2", predict=2)
    saved = setup.registry.snapshot().model_dump(exclude={"owners", "away_seconds", "offered_seconds"})
    again = Setup(clock, registration)
    again.registry.restore(Snapshot.model_validate(saved))
    assert again.registry.catalogue().algorithms["predict"].owner == "iris"


def test_a_changed_description_alone_is_no_conflict(setup: Setup, registration: Make) -> None:
    setup.put("a", upper=1)
    body = registration(host="h:2", upper=1)
    body["algorithms"][0]["summary"] = "Better words."
    setup.registry.register("b", RunnerRegistration.model_validate(body))
    assert setup.registry.conflicts.all() == []
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
    with pytest.raises(TooLarge, match=r"'upper'.*give a wider return hint"):
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


def test_what_was_offered_for_the_shortest_time_makes_room_first(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_algorithms=2)
    setup.put("honest", one=1)
    setup.after(29)
    setup.registry.remove("honest", "b1")
    for number in range(5):
        setup.put("flood", f"f{number}", **{f"junk{number}": 1})
        setup.registry.remove("flood", f"f{number}")
    assert set(setup.registry.catalogue().algorithms) == {"one", "junk4"}


def big(registration: Make, name: str, kilobytes: int) -> RunnerRegistration:
    """Descriptions of many bytes: 60 KB in each of several algorithms."""
    body = registration(host=f"{name}:1", **{f"{name}_{number}": 1 for number in range(kilobytes // 60)})
    for each in body["algorithms"]:
        each["description"] = "x" * 60_000
    return RunnerRegistration.model_validate({**body, "name": name})


def test_all_descriptions_together_are_bounded_and_earlier_ones_stay(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_bytes=1_000_000)
    for name in ("a", "b"):
        setup.registry.register(name, big(registration, name, 420))
    with pytest.raises(RegistryFull, match="more than 1000000 bytes"):
        setup.registry.register("c", big(registration, "c", 420))
    assert set(setup.registry.catalogue().runners) == {"a", "b"}
    assert not setup.registry.register("a", big(registration, "a", 420)), "renewals are taken"
    setup.registry.remove("b", "b1")
    setup.registry.register("c", big(registration, "c", 420))
    assert setup.registry.total_bytes < 1_000_000
    for each in ("a", "c"):
        setup.registry.remove(each, "b1")
    assert setup.registry.total_bytes > 400_000, "algorithms stay known"


def test_equal_descriptions_count_once(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_bytes=1_000_000)
    for number in range(20):
        replica = big(registration, "a", 420).model_copy(update={"host": f"http://h:{number}"})
        setup.registry.register(f"a{number}", replica)
    assert setup.registry.total_bytes < 500_000


def test_a_snapshot_beyond_the_bounds_is_trimmed_of_what_nobody_offers_first(
    setup: Setup, clock: Any, registration: Make
) -> None:
    for name in ("idle", "live"):
        setup.registry.register(name, big(registration, name, 420))
    setup.registry.remove("idle", "b1")
    snapshot = setup.registry.snapshot()
    again = Setup(clock, registration, max_bytes=500_000)
    left_out = again.registry.restore(snapshot)
    assert set(again.registry.catalogue().runners) == {"live"}
    assert again.view("live_0") == (["live"], [])
    assert left_out and all("algorithm idle_" in what for what in left_out)
    assert again.registry.total_bytes <= 500_000


def test_a_snapshot_of_before_the_bounds_loses_only_what_is_beyond_them(
    setup: Setup, clock: Any, registration: Make
) -> None:
    setup.put("a", upper=1)
    setup.put("b", lower=1, name="other", host="h:2")
    saved = setup.registry.snapshot().model_dump()
    saved["runners"][1]["registration"]["algorithms"][0]["limits"]["slots"] = 10**9
    again = Setup(clock, registration)
    (reason,) = again.registry.restore(Snapshot.model_validate(saved))
    assert "runner b" in reason and "at most 1024" in reason
    assert again.view("upper") == (["a"], [])


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("limits", {"slots": 10**9}, "'slots'.*at most 1024"),
        ("limits", {"batch": 5000}, "'batch'.*at most 4096"),
        ("limits", {"retries": 101}, "'retries'.*at most 100"),
        ("limits", {"timeout_seconds": 604_801}, "'timeout_seconds'.*at most 604800"),
        ("limits", {"result_bytes": 2**30}, "'result_bytes'.*at most"),
        ("summary", "x" * 5000, "first line of its docstring has"),
        ("description", "x" * 70_000, "its docstring has"),
        ("summary", "\x1b[31mred", r"control character \(character 1, U\+001B\)"),
        ("description", "turned \u202e around", r"U\+202E"),
        ("example", {"payload": "x" * 70_000}, "the example in its docstring has"),
        ("input_schema", {"default": 2**64}, "the schema of its parameters cannot be sent: integer of 20 digits"),
    ],
)
def test_what_is_beyond_a_bound_is_refused_in_a_sentence(
    setup: Setup, registration: Make, part: str, value: Any, says: str
) -> None:
    body = registration(upper=1)
    body["algorithms"][0][part] = value
    with pytest.raises((BadRegistration, TooLarge), match=says):
        setup.registry.register("a", RunnerRegistration.model_validate(body))
    assert setup.registry.index == 0


def test_words_of_every_language_are_taken(setup: Setup, registration: Make) -> None:
    body = registration(upper=1)
    body["algorithms"][0]["summary"] = "Größe, 大きさ, גודל\u200f, می\u200cخواهم 👩\u200d🔬\tand\nmore"
    assert setup.registry.register("a", RunnerRegistration.model_validate({**body, "name": "Läufer 1"}))


def test_what_left_in_order_is_remembered_by_its_boot(clock: Any, registration: Make) -> None:
    setup = Setup(clock, registration, max_left=2)
    setup.put("a", "b1", upper=1)
    setup.registry.remove("a", "b1")
    setup.put("a", "b2", upper=1)
    assert setup.registry.catalogue().left == {"a": "b1"}
    setup.after(31)
    assert setup.registry.catalogue().left == {"a": "b1"}, "a lease that ran out is no order"
    for name in ("b", "c"):
        setup.put(name, f"{name}1", upper=1)
        setup.registry.remove(name, f"{name}1")
    assert setup.registry.catalogue().left == {"b": "b1", "c": "c1"}, "the latest are kept"
    setup.put("c", "c1", upper=1)
    assert setup.registry.catalogue().left == {"b": "b1"}, "what comes back has not left"


def test_a_restored_registry_gives_the_same_catalogue(setup: Setup, clock: Any, registration: Make) -> None:
    setup.post("ocr", "old:1")
    setup.put("gone", away=1, host="h:4")
    setup.registry.remove("gone", "b1")
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
