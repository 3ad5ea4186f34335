"""How much passes, and when the next does."""

import pytest

from runnerlib.service.token_bucket import TokenBucket


def test_bucket_lets_a_burst_in_and_then_its_rate():
    bucket = TokenBucket(rate=2, burst=3, now=0)
    for _ in range(3):
        assert bucket.wait_seconds(1, 0) == 0
        bucket.take(1)
    assert bucket.wait_seconds(1, 0) == pytest.approx(0.5)
    assert bucket.wait_seconds(3, 0) == pytest.approx(1.5)
    assert bucket.wait_seconds(1, 0.5) == 0
    assert bucket.wait_seconds(3, 1000) == 0 and bucket.wait_seconds(4, 1000) == 0


def test_what_is_larger_than_a_burst_passes_after_a_rest_and_is_paid_off_afterwards():
    bucket = TokenBucket(rate=10, burst=5, now=0)
    bucket.take(1)
    assert bucket.wait_seconds(1000, 0) == pytest.approx(0.1)
    assert bucket.wait_seconds(1000, 0.1) == 0
    bucket.take(1000)
    assert bucket.wait_seconds(1, 0.1) == pytest.approx(99.6)


def test_level_is_what_passes_now_and_a_clock_that_goes_back_changes_nothing():
    bucket = TokenBucket(rate=2, burst=4, now=10)
    bucket.take(5)
    assert (bucket.level(10), bucket.level(11), bucket.level(10)) == (-1, 1, 1)
    assert bucket.level(100) == 4
