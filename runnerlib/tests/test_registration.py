"""The id of a runner, and which algorithms it registers; the rest is tested with a real one in runner/test_start.py."""

from runnerlib.registration import UNREADY_SECONDS, AdvertisedAlgorithms, runner_id


def test_an_id_is_safe_in_a_path() -> None:
    assert runner_id("nlp", "127.0.0.1:80") == "nlp-127.0.0.1-80"
    assert runner_id("my nlp/1", "[::1]:80") == "my-nlp-1--1-80"


def test_only_what_works_is_registered() -> None:
    advertised = AdvertisedAlgorithms()
    assert advertised.at(0, []) == frozenset()
    assert advertised.at(1, ["classify"]) == {"classify"}
    assert advertised.at(2, ["classify", "read"]) == {"classify", "read"}
    assert advertised.unchanged_seconds(2) is None


def test_what_stops_working_stays_registered_for_a_moment() -> None:
    advertised = AdvertisedAlgorithms()
    advertised.at(0, ["classify", "read"])
    assert advertised.at(10, ["classify"]) == {"classify", "read"}
    assert advertised.unchanged_seconds(12) == UNREADY_SECONDS - 2
    assert advertised.at(10 + UNREADY_SECONDS, ["classify"]) == {"classify"}
    assert advertised.unchanged_seconds(10 + UNREADY_SECONDS) is None


def test_what_works_again_in_time_was_never_away() -> None:
    advertised = AdvertisedAlgorithms()
    advertised.at(0, ["read"])
    advertised.at(1, [])
    assert advertised.at(2, ["read"]) == {"read"}
    assert advertised.at(2 + UNREADY_SECONDS, ["read"]) == {"read"}
    assert advertised.at(50, []) == {"read"}, "the moment begins anew"


def test_each_algorithm_has_a_moment_of_its_own() -> None:
    advertised = AdvertisedAlgorithms()
    advertised.at(0, ["classify", "read"])
    advertised.at(1, ["classify"])
    advertised.at(9, [])
    assert advertised.unchanged_seconds(9) == UNREADY_SECONDS - 8
    assert advertised.at(1 + UNREADY_SECONDS, []) == {"classify"}
    assert advertised.at(9 + UNREADY_SECONDS, []) == frozenset()
