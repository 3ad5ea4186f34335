"""The Prefer header, well written and not."""

import pytest

from producer.gateway.prefer import MOST_WAIT_SECONDS, wait_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=20", 20),
        ("wait=0.5", 0.5),
        ('respond-async, wait="7"', 7),
        ("WAIT = 3 ; x=1", 3),
        ("wait=999999", MOST_WAIT_SECONDS),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("wait=" + "9" * 5000, 0),
        ("await=5", 0),
    ],
)
def test_wait(header: str | None, seconds: float) -> None:
    assert wait_seconds(header) == seconds
