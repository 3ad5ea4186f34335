"""How long to wait before the next start."""

from worker.backoff import Backoff


def test_delay_doubles_up_to_thirty_seconds() -> None:
    backoff = Backoff()
    assert [backoff.next_seconds(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_starts_over() -> None:
    backoff = Backoff()
    assert [backoff.next_seconds(1), backoff.next_seconds(1), backoff.next_seconds(61)] == [0.5, 1, 0.5]


def test_a_process_that_always_dies_never_overflows() -> None:
    backoff = Backoff()
    assert {backoff.next_seconds(0) for _ in range(3000)} <= {0.5, 1, 2, 4, 8, 16, 30}
