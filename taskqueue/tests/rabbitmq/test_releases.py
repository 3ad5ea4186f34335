"""What was handed back in good order does not count."""

from taskqueue.rabbitmq.releases import Releases


def test_an_orderly_release_is_subtracted_where_the_broker_counts_it():
    releases = Releases()
    releases.released("a", 1, 0)
    assert releases.uncounted("a", 1, 1) == 1
    releases.released("a", 1, 1)
    assert releases.uncounted("a", 1, 2) == 2


def test_a_release_that_the_broker_does_not_count_is_not_subtracted():
    releases = Releases()
    releases.released("a", 1, 3)
    assert releases.uncounted("a", 1, 3) == 0


def test_a_crash_after_a_release_is_counted():
    releases = Releases()
    releases.released("a", 1, 0)
    assert releases.uncounted("a", 1, 3) == 1


def test_nothing_is_subtracted_for_others_and_for_other_attempts():
    releases = Releases()
    releases.released("a", 1, 0)
    assert releases.uncounted("a", 2, 1) == 0
    assert releases.uncounted("b", 1, 1) == 0
    releases.forget("a", 1)
    assert releases.uncounted("a", 1, 1) == 0


def test_the_record_is_bounded():
    releases = Releases(most=10)
    for number in range(25):
        releases.released(f"t{number}", 1, 0)
    assert len(releases) == 10
    assert releases.uncounted("t24", 1, 1) == 1
    assert releases.uncounted("t0", 1, 1) == 0
