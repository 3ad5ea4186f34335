"""What the gateway believes of a proxy, and what it refuses to be behind one with."""

import asyncio

import pytest
from pydantic import ValidationError

from producer.gateway.proxies import behind_proxies, read_proxies
from producer.gateway.settings import GatewaySettings

TOKEN = "t" * 40


def seen_by_the_application(peer, headers, trusted="127.0.0.1,10.1.0.0/16"):
    """The address and scheme of a request that `peer` sends."""
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"][0], scope["scheme"]))

    scope = {
        "type": "http",
        "scheme": "http",
        "path": "/",
        "client": (peer, 5000),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(behind_proxies(app, "", read_proxies(trusted))(scope, None, None))
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        # What a sender wrote itself stands before what the proxy saw.
        ("127.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("::ffff:127.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["10.1.2.4, 10.1.2.3"], "10.1.2.4"),
        ("127.0.0.1", ["203.0.113.7, <script>"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("203.0.113.9", ["203.0.113.7"], "203.0.113.9"),
        ("10.2.0.1", ["203.0.113.7"], "10.2.0.1"),
    ],
)
def test_address_is_that_of_the_nearest_sender_who_is_no_trusted_proxy(peer, told, address):
    headers = [("x-forwarded-for", line) for line in told]
    assert seen_by_the_application(peer, headers)[0] == address


@pytest.mark.parametrize(
    ("peer", "told", "scheme"),
    [
        ("127.0.0.1", "https", "https"),
        ("127.0.0.1", "http, https", "https"),
        ("127.0.0.1", "javascript", "http"),
        ("9.9.9.9", "https", "http"),
    ],
)
def test_scheme_is_believed_of_trusted_proxies_alone(peer, told, scheme):
    assert seen_by_the_application(peer, [("x-forwarded-proto", told)])[1] == scheme


def test_without_proxies_the_application_is_served_as_it_is():
    async def app(scope, receive, send):
        pass

    assert behind_proxies(app, "", []) is app


def test_settings_of_proxies_are_read_strictly():
    assert GatewaySettings(root_path="plugplay/").root_path == "/plugplay"
    for wrong in ({"root_path": "/a?b"}, {"root_path": "http://host"}, {"trusted_proxies": "proxy.example"}):
        with pytest.raises(ValidationError):
            GatewaySettings(**wrong)


def test_gateway_behind_a_proxy_needs_tokens_though_it_listens_on_loopback():
    for behind in ({"root_path": "/plugplay"}, {"trusted_proxies": "127.0.0.1"}):
        assert "behind a proxy" in GatewaySettings(**behind).unprotected
        assert GatewaySettings(**behind, auth="none").unprotected is None
        assert GatewaySettings(**behind, admin_token=TOKEN).unprotected is None
    assert GatewaySettings().unprotected is None
