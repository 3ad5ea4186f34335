"""The runners as a controller sees them."""

import itertools

import pytest

from controller.directory import RunnerDirectory
from runnerlib.contract import AlgorithmDescription, AlgorithmView, Catalogue, Limits, RunnerLevel, RunnerView


class Source:
    def __init__(self):
        self.catalogue = None
        self.is_sure = True

    async def wait_changed(self, since):
        return since


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def directory(source, clock):
    return RunnerDirectory(source, clock)


def runner(name, boot="b1"):
    return RunnerView(id=name, name=name, host="http://h:1", boot=boot, level=RunnerLevel.FULL, algorithms=["a"])


def catalogue(*runners, current=None, **more):
    view = AlgorithmView(
        description=AlgorithmDescription(name="a"),
        schema_digest="d",
        runners=[each.id for each in runners] if current is None else current,
        **more,
    )
    return Catalogue(
        epoch="e",
        index=1,
        uptime_seconds=100,
        lease_seconds=30,
        runners={each.id: each for each in runners},
        algorithms={"a": view},
    )


def test_nothing_is_known_before_discovery_answered(directory):
    assert directory.known("a") == []
    assert directory.algorithms() == {}
    assert directory.loads("a") == {}
    assert directory.runner("r") is None


def test_runner_with_an_outdated_schema_gets_no_new_work_but_is_asked_for_its_runs(directory, source):
    source.catalogue = catalogue(runner("new"), runner("old"), current=["new"], outdated=["old"])
    assert [each.id for each in directory.known("a")] == ["new"]
    assert {each.id for each in directory.may_have_runs("a")} == {"new", "old"}


def test_runner_of_another_name_is_not_asked_for_runs_of_what_does_not_belong_to_it(directory, source):
    source.catalogue = catalogue(runner("owner"), runner("other"), current=["owner"], clashing=["other"])
    assert [each.id for each in directory.may_have_runs("a")] == ["owner"]


def test_limits_beyond_the_contract_are_not_believed(directory, source):
    source.catalogue = catalogue(runner("text"))
    described = AlgorithmDescription(name="a", limits=Limits(slots=10**9, timeout_seconds=1e12))
    source.catalogue.algorithms["a"] = source.catalogue.algorithms["a"].model_copy(update={"description": described})
    assert (directory.limits("a").slots, directory.limits("a").timeout_seconds) == (1024, 604_800)


def test_quarantine_doubles_up_to_ten_seconds(directory, source, clock):
    source.catalogue = catalogue(runner("r"))
    seconds = []
    for _ in range(6):
        seconds.append(directory.quarantine(runner("r")))
        assert directory.loads("a") == {}
        clock.now += seconds[-1]
        assert directory.loads("a") == {"r": 0}
    assert seconds == [1, 2, 4, 8, 10, 10]


def test_several_failures_at_once_are_one_quarantine(directory, source):
    source.catalogue = catalogue(runner("r"))
    assert [directory.quarantine(runner("r")) for _ in range(5)] == [1] * 5


def test_another_boot_ends_a_quarantine(directory, source):
    source.catalogue = catalogue(runner("r"))
    directory.quarantine(runner("r"))
    source.catalogue = catalogue(runner("r", boot="b2"))
    assert directory.loads("a") == {"r": 0}
    assert directory.quarantine(runner("r", boot="b2")) == 1


def test_answer_ends_a_quarantine(directory, source):
    source.catalogue = catalogue(runner("r"))
    directory.quarantine(runner("r"))
    directory.answered("r")
    assert directory.loads("a") == {"r": 0}


def test_resting_runner_is_passed_over_for_its_time(directory, source, clock):
    source.catalogue = catalogue(runner("r1"), runner("r2"))
    directory.pause("a", "r1", 0.5)
    assert directory.loads("a") == {"r2": 0}
    assert directory.next_free_in_seconds("a") == 0.5
    clock.now += 0.5
    assert set(directory.loads("a")) == {"r1", "r2"}
    assert directory.next_free_in_seconds("a") is None


def test_load_counts_calls_in_flight(directory, source):
    source.catalogue = catalogue(runner("r"))
    first, _second = directory.call_started("a", "r"), directory.call_started("a", "r")
    first()
    first()
    assert directory.loads("a") == {"r": 1}


def test_silent_runner_is_gone_with_another_boot_without_its_entry_or_after_its_lease(directory, source):
    source.catalogue = catalogue(runner("r"))
    assert directory.is_gone("r", "b1", 29) is None
    assert "has not answered" in directory.is_gone("r", "b1", 30)
    assert "anew" in directory.is_gone("r", "b0", 0)
    assert "is gone" in directory.is_gone("x", "b1", 0)


def test_a_process_that_was_stopped_in_order_is_told_from_its_successor_and_its_predecessor(directory, source):
    assert not directory.has_left("r", "b1")
    source.catalogue = catalogue(runner("r", "b2")).model_copy(update={"left": {"r": "b1"}})
    assert directory.has_left("r", "b1")
    assert not directory.has_left("r", "b2")
    assert not directory.has_left("r", "b0")
    assert not directory.has_left("r", None)


def test_registry_that_is_not_sure_makes_nobody_gone(directory, source):
    source.catalogue = catalogue(runner("r"))
    source.is_sure = False
    assert directory.is_gone("x", "b1", 29) is None
    assert directory.is_gone("x", "b1", 30) is not None


def test_runner_that_says_again_and_again_to_ask_at_once_is_left_alone_for_longer(directory, source, clock):
    source.catalogue = catalogue(runner("r"))
    pauses = []
    for _ in range(200):
        directory.pause("a", "r", 0.01)
        pauses.append(directory.next_free_in_seconds("a"))
        clock.now += pauses[-1]
    assert pauses[0] == pytest.approx(0.01)
    assert all(next >= before - 1e-9 for before, next in itertools.pairwise(pauses))
    assert pauses[-1] == pytest.approx(1)
    clock.now += 10
    directory.pause("a", "r", 0.01)
    assert directory.next_free_in_seconds("a") == pytest.approx(0.01)


def test_quarantines_of_runners_that_are_gone_are_forgotten_when_the_registry_is_sure(directory, source):
    source.catalogue = catalogue(runner("r"))
    source.is_sure = False
    for n in range(10):
        directory.quarantine(runner(f"gone{n}"))
    assert len(directory._quarantines) == 10
    source.is_sure = True
    directory.quarantine(runner("r"))
    assert list(directory._quarantines) == ["r"]


def test_limits_that_a_runner_shares_are_one_for_each_time_and_follow_the_catalogue(directory, source):
    def described(timeout_seconds):
        names = [f"a{n}" for n in range(500)]
        one = runner("r").model_copy(update={"algorithms": names})
        limits = Limits(timeout_seconds=timeout_seconds)
        views = {
            name: AlgorithmView(description=AlgorithmDescription(name=name, limits=limits), schema_digest="d")
            for name in names
        }
        source.catalogue = catalogue(one).model_copy(update={"algorithms": views})
        return one

    for timeout_seconds in (7, 8):
        one = described(timeout_seconds)
        assert [each.timeout_seconds for each in directory.shared_limits(one)] == [timeout_seconds]
        assert directory.shared_limits(one) is directory.shared_limits(one)
        assert directory.limits("a0").timeout_seconds == timeout_seconds
