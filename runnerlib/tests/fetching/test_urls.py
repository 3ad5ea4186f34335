"""Reading and showing URLs."""

import pytest

from runnerlib.fetching.errors import FetchRefused
from runnerlib.fetching.urls import follow, read_url


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
