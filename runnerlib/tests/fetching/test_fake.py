"""The fetch of authors' tests."""

import asyncio

import pytest

from runnerlib.testing import FakeFetch, Fetched, FetchFailed, FetchRefused, call

URL = "https://example.com/cat.png"


def test_a_fake_gives_what_it_was_told_and_remembers():
    fetch = FakeFetch({URL: b"png", "https://b/": Fetched(b"b", "text/html", "https://c/")})
    assert fetch(URL, accept="image/*") == Fetched(b"png", "image/png", URL)
    assert fetch("https://b/").url == "https://c/"
    assert asyncio.run(fetch.aio(URL)).content == b"png"
    assert fetch("data:,a").content == b"a"
    assert fetch.asked == [URL, "https://b/", URL, "data:,a"]


def test_a_fake_fails_as_the_real_one_does():
    fetch = FakeFetch({URL: b"png", "https://gone/": 404, "https://down/": 503, "https://odd/": KeyError("odd")})
    for url, named, error in [
        ("https://gone/", {}, FetchRefused),
        ("https://down/", {}, FetchFailed),
        ("https://odd/", {}, KeyError),
        (URL, {"accept": "text/*"}, FetchRefused),
        (URL, {"max_bytes": 2}, FetchRefused),
        ("https://nobody/told", {}, AssertionError),
    ]:
        with pytest.raises(error):
            fetch(url, **named)


def test_an_adapter_is_called_with_a_fake(write):
    adapter = write("def run_size(url: str, *, fetch) -> int:\n    return len(fetch(url).content)")
    assert call(adapter, "size", {"url": URL}, fetch=FakeFetch({URL: b"123"})) == 3
    assert call(adapter, "size", {"url": "data:,abcd"}) == 4
