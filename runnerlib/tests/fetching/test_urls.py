"""Reading and showing URLs, and reading what ``data:`` URLs carry."""

import base64

import pytest

from runnerlib.fetching.errors import FetchRefused
from runnerlib.fetching.urls import FetchLimits, follow, read_data_url, read_url


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("http://example.com", "http://example.com/"),
        (" HTTPS://Example.COM:443/A?b=c#d ", "https://example.com/A?b=c"),
        ("http://example.com.:8080/%41 b", "http://example.com:8080/%41%20b"),
        ("http://straße.de/ü?ä=<", "http://xn--strae-oqa.de/%C3%BC?%C3%A4=%3C"),
        ("http://[2606:4700::00AB]:80/", "http://[2606:4700::ab]/"),
        ("http://a_b.example/?q", "http://a_b.example/?q"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/"),
    ],
)
def test_a_url_is_read_once_for_connection_and_request(url, read):
    assert read_url(url).url == read


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "the URL does not say how to get there; send one that begins with https://, http:// or data:"),
        ("example.com/a.png", "does not say how to get there"),
        ("file:///etc/passwd", "file: URLs are not fetched; send one that begins with"),
        ("gopher://example.com/", "gopher: URLs are not fetched"),
        ("javascript:alert(1)", "javascript: URLs are not fetched"),
        ("http:///path", "has no host that can be read"),
        ("http://", "has no host"),
        ("http://a b/", "has no host"),
        ("http://%31%32%37.0.0.1/", "has no host"),
        ("http://[fe80::1%25eth0]/", "has no host"),
        ("http://[::1", "has no host"),
        ("http://a..b/", "has no host"),
        (f"http://{'a' * 64}.com/", "has no host"),
        ("http://example.com:99999/", "has no host"),
        ("http://exa\u2100mple.com/", "has no host"),
        ("http://user:pw@example.com/", "the URL of example.com has a user name in it"),
        ("http://@example.com/", "has a user name"),
        ("http://example.com\\@127.0.0.1/", "has a user name"),
        ("http://example.com/\r\nHost: x", "has a line break"),
        ("http://example.com/a\tb", "has a line break or another control character"),
        ("http://example.com/" + "a" * 9000, "longer than 8192"),
    ],
)
def test_a_url_that_will_not_do_is_refused_with_advice(url, sentence):
    with pytest.raises(FetchRefused) as caught:
        read_url(url)
    assert sentence in str(caught.value)
    assert "pw" not in str(caught.value)


def test_secrets_in_the_query_are_not_shown():
    assert read_url("https://example.com/a?token=secret#x").shown == "https://example.com/a?…"
    assert len(read_url("https://example.com/" + "a" * 5000).shown) < 300


def test_redirects_are_read_relative_and_absolute():
    start = read_url("http://example.com/a/b?c=d")
    assert follow(start, "../x y").url == "http://example.com/x%20y"
    assert follow(start, "//other.example/z").url == "http://other.example/z"
    assert follow(start, "https://other.example").url == "https://other.example/"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "data:text/plain,a", "http://u:p@example.com/", "http://[:"]
)
def test_a_redirect_to_what_would_not_be_fetched_is_refused(location):
    with pytest.raises(FetchRefused, match=r"^http://example.com/ leads on to where it cannot be followed"):
        follow(read_url("http://example.com/"), location)


def test_a_redirect_from_https_to_http_is_refused():
    with pytest.raises(FetchRefused, match="leads from https to http"):
        follow(read_url("https://example.com/"), "http://example.com/")


def read(url, max_bytes=100, accept=()):
    return read_data_url(url, FetchLimits(max_bytes, 1, accept))


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
