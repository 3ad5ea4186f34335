"""The Prefer header, well written and not."""

import pytest
from starlette.requests import Request

from producer.gateway.request_parsing import MAX_WAIT_SECONDS, wait_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=20", 20),
        ("wait=0.5", 0.5),
        ('respond-async, wait="7"', 7),
        ("WAIT = 3 ; x=1", 3),
        ("wait=999999", MAX_WAIT_SECONDS),
        ("wait=-1", None),
        ("wait=soon", None),
        ("wait=" + "9" * 5000, None),
        ("await=5", None),
        ("wait=0", 0),
    ],
)
def test_wait(header: str | None, seconds: float | None) -> None:
    headers = [] if header is None else [(b"prefer", header.encode())]
    assert wait_seconds(Request({"type": "http", "headers": headers})) == seconds
