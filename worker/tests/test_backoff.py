"""How long to wait before the next start."""

from worker.backoff import Backoff


def test_delay_doubles_up_to_thirty_seconds() -> None:
    backoff = Backoff()
    assert [backoff.next_seconds(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_starts_over() -> None:
    backoff = Backoff()
    assert [backoff.next_seconds(1), backoff.next_seconds(1), backoff.next_seconds(61)] == [0.5, 1, 0.5]


def test_a_process_that_was_ready_starts_over() -> None:
    backoff = Backoff()
    delays = [backoff.next_seconds(3, ready) for ready in (0, 0, 2.5, 0.1)]
    assert delays == [0.5, 1, 0.5, 1]


def test_the_longest_delay_can_be_shorter() -> None:
    backoff = Backoff(most_seconds=5)
    assert [backoff.next_seconds(0) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_a_process_that_always_dies_never_overflows() -> None:
    backoff = Backoff()
    assert {backoff.next_seconds(0) for _ in range(3000)} <= {0.5, 1, 2, 4, 8, 16, 30}
