"""What discovery is told of: what works, and for a moment what just did."""

from runnerlib.offer import UNREADY_SECONDS, Offer


def test_only_what_works_is_offered() -> None:
    offer = Offer()
    assert offer.at(0, []) == frozenset()
    assert offer.at(1, ["classify"]) == {"classify"}
    assert offer.at(2, ["classify", "read"]) == {"classify", "read"}
    assert offer.unchanged_seconds(2) is None


def test_what_stops_working_is_offered_for_a_moment_more() -> None:
    offer = Offer()
    offer.at(0, ["classify", "read"])
    assert offer.at(10, ["classify"]) == {"classify", "read"}
    assert offer.unchanged_seconds(12) == UNREADY_SECONDS - 2
    assert offer.at(10 + UNREADY_SECONDS, ["classify"]) == {"classify"}
    assert offer.unchanged_seconds(10 + UNREADY_SECONDS) is None


def test_what_works_again_in_time_was_never_away() -> None:
    offer = Offer()
    offer.at(0, ["read"])
    offer.at(1, [])
    assert offer.at(2, ["read"]) == {"read"}
    assert offer.at(2 + UNREADY_SECONDS, ["read"]) == {"read"}
    assert offer.at(50, []) == {"read"}, "the moment begins anew"


def test_each_algorithm_has_a_moment_of_its_own() -> None:
    offer = Offer()
    offer.at(0, ["classify", "read"])
    offer.at(1, ["classify"])
    offer.at(9, [])
    assert offer.unchanged_seconds(9) == UNREADY_SECONDS - 8
    assert offer.at(1 + UNREADY_SECONDS, []) == {"classify"}
    assert offer.at(9 + UNREADY_SECONDS, []) == frozenset()
