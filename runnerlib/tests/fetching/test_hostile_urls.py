"""Nobody gets to what is not public: not by spelling, by names, by names that change, nor by redirects."""

import contextlib

import pytest

from runnerlib.fetching.addresses import FetchRules
from runnerlib.fetching.errors import FetchFailed, FetchRefused
from runnerlib.fetching.fetch import Fetch

HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://2130706433:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://localhost.:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://100.64.0.1/",
    "http://10.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "ftp://127.0.0.1:{port}/",
    "http://user:pw@127.0.0.1:{port}/",
    "http://example.com\\@127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
]


@pytest.fixture
def canaries(serve):
    """The same port on both families, so that no hostile URL is refused for its port. Some containers have no IPv6."""
    started = [serve()]
    with contextlib.suppress(OSError):
        started.append(serve("::1", started[0].port))
    return started


def as_a_stranger(port, **rules):
    """May go anywhere public, also at the port of the server that must not be reached."""
    return Fetch(FetchRules(ports=f"80,443,{port}", timeout_seconds=10, **rules))


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_reaches_nothing(canaries, url):
    with pytest.raises(FetchRefused):
        as_a_stranger(canaries[0].port)(url.format(port=canaries[0].port))
    assert [server.hits for server in canaries] == [[]] * len(canaries)


def test_the_same_servers_are_reached_when_the_operator_allows_it(canaries):
    fetch = as_a_stranger(canaries[0].port, allow_private="127.0.0.0/8,::1")
    for server in canaries:
        assert fetch(f"{server.url}/bytes/3").content == b"xxx"
    assert [server.hits for server in canaries] == [["/bytes/3"]] * len(canaries)


def test_the_message_does_not_tell_what_a_name_inside_leads_to(resolve):
    resolve(["10.1.2.3"])
    with pytest.raises(FetchRefused) as caught:
        as_a_stranger(80)("http://intranet.example/a?token=secret")
    assert str(caught.value) == (
        "http://intranet.example/a?… is not at a public address; send one that is, "
        "or let the operator of the runner allow it in FETCH_ALLOW_PRIVATE"
    )


def test_a_name_that_changes_is_looked_up_once_and_what_was_checked_is_connected_to(serve, resolve):
    """DNS rebinding: 127.0.0.2 stands for a public address, 127.0.0.1 for one inside."""
    inside = serve()
    public = serve("127.0.0.2", inside.port)
    fetch = as_a_stranger(inside.port, allow_private="127.0.0.2/32")
    asked = resolve(["127.0.0.2"], ["127.0.0.1"])
    assert fetch(f"http://rebinding.example:{inside.port}/bytes/3").content == b"xxx"
    assert (asked, public.hits, inside.hits) == (["rebinding.example"], ["/bytes/3"], [])
    with pytest.raises(FetchRefused, match="is not at a public address"):
        fetch(f"http://rebinding.example:{inside.port}/bytes/3")
    assert inside.hits == []


def test_a_name_that_changes_between_two_redirects_is_refused(serve, resolve):
    inside = serve()
    public = serve("127.0.0.2", inside.port)
    asked = resolve(["127.0.0.2"], ["127.0.0.1"])
    with pytest.raises(FetchRefused, match="is not at a public address"):
        as_a_stranger(inside.port, allow_private="127.0.0.2/32")(f"http://rebinding.example:{inside.port}/hops/1")
    assert (len(asked), public.hits, inside.hits) == (2, ["/hops/1"], [])


def test_of_a_name_with_several_addresses_only_those_allowed_are_tried(serve, resolve):
    inside = serve()
    public = serve("127.0.0.2", inside.port)
    resolve(["127.0.0.1", "127.0.0.2"])
    fetch = as_a_stranger(inside.port, allow_private="127.0.0.2/32")
    assert fetch(f"http://both.example:{inside.port}/bytes/3").content == b"xxx"
    assert (public.hits, inside.hits) == (["/bytes/3"], [])


def test_an_address_that_is_down_is_passed_over(server, resolve):
    resolve(["127.0.0.3", "127.0.0.1"])
    fetch = as_a_stranger(server.port, allow_private="127.0.0.0/8")
    assert fetch(f"http://two.example:{server.port}/bytes/3").content == b"xxx"
    resolve(["127.0.0.3"])
    with pytest.raises(FetchFailed, match="cannot be reached"):
        fetch(f"http://two.example:{server.port}/bytes/3")


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/", "//127.1:{port}/", "file:///etc/passwd", "http://169.254.169.254/"]
)
def test_a_redirect_to_what_is_inside_is_refused(serve, location):
    inside = serve()
    outside = serve("127.0.0.2")
    fetch = as_a_stranger(inside.port, allow_private="127.0.0.2/32")
    with pytest.raises(FetchRefused):
        fetch(f"{outside.url}/to/{location.format(port=inside.port)}")
    assert (len(outside.hits), inside.hits) == (1, [])


def test_other_ports_are_refused_but_for_allowed_networks(server):
    with pytest.raises(FetchRefused, match=r"http://8\.8\.8\.8:22/ is at port 22; send one at port 80 or 443"):
        Fetch(FetchRules())("http://8.8.8.8:22/")
    assert Fetch(FetchRules(allow_private="127.0.0.1"))(f"{server.url}/bytes/1").content == b"x"


def test_nothing_of_the_environment_is_used(serve, fetch, monkeypatch, tmp_path):
    proxy, server = serve(), serve()
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    fetch(f"{server.url}/bytes/1")
    assert (len(server.hits), proxy.hits) == (1, [])
    assert set(server.headers[0]) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
