"""``data:`` URLs."""

import base64

import pytest

from runnerlib.fetching.data_urls import read_data_url
from runnerlib.fetching.errors import FetchRefused
from runnerlib.fetching.limits import Limits


def read(url, max_bytes=100, accept=()):
    return read_data_url(url, Limits(max_bytes, 1, accept))


@pytest.mark.parametrize(
    ("url", "content", "content_type"),
    [
        ("data:,a%20b", b"a b", "text/plain"),
        ("data:;base64,aGk=", b"hi", "text/plain"),
        ("data:;charset=utf-8,%C3%BC", b"\xc3\xbc", "text/plain"),
        ("data:image/PNG;base64,aGk%3D", b"hi", "image/png"),
        ("DATA:image/svg+xml;charset=utf-8;base64,aGk=", b"hi", "image/svg+xml"),
        ("data:text/html,a,b", b"a,b", "text/html"),
    ],
)
def test_data_urls_are_read(url, content, content_type):
    found = read(url)
    assert (found.content, found.content_type) == (content, content_type)
    assert len(found.url) < 60


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("data:", "cannot be read"),
        ("data:text/plain;base64", "cannot be read"),
        ("data:text/plain,ü", "cannot be read"),
        ("data:nonsense,a", "has no proper type"),
        ("data:a b/c,a", "has no proper type"),
        ("data:image/png;base64,aGk", "is not base64"),
        ("data:image/png;base64,a-_=", "is not base64"),
        ("data:image/png;base64,aG k=", "is not base64"),
        ("data:,100%", "has a % that"),
        ("data:,%zz", "has a % that"),
    ],
)
def test_bad_data_urls_are_refused(url, sentence):
    with pytest.raises(FetchRefused, match=sentence):
        read(url)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 99, 100, 101, 102, 103, 1000])
def test_the_limit_is_exact_for_both_encodings(size):
    content = bytes(range(256))[:size] if size < 256 else bytes(size)
    for url in (
        "data:;base64," + base64.b64encode(content).decode(),
        "data:," + "".join(f"%{byte:02x}" for byte in content),
        "data:," + "a" * size,
    ):
        if size <= 100:
            assert len(read(url).content) == size
        else:
            with pytest.raises(FetchRefused, match=r"larger than 100 bytes"):
                read(url)


def test_the_type_must_be_an_accepted_one():
    assert read("data:image/png,a", accept=("text/*", "image/*")).content == b"a"
    with pytest.raises(FetchRefused, match=r"^data:text/plain,… is text/plain; send the address of image/\* or a/b$"):
        read("data:,a", accept=("image/*", "a/b"))
