"""Pauses between attempts."""

from runnerlib.service.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next_seconds() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert backoff.failures == 4
    backoff.reset()
    assert backoff.next_seconds() == 1.0


def test_pauses_are_spread_as_far_as_allowed() -> None:
    backoff = Backoff(8.0, 8.0, least=0.5)
    pauses = [backoff.next_seconds() for _ in range(2000)]
    assert all(4.0 <= pause <= 8.0 for pause in pauses)
    assert max(pauses) - min(pauses) > 2.0
