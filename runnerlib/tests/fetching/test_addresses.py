"""Which addresses are public."""

from ipaddress import ip_address

import pytest

from runnerlib.fetching.addresses import AddressRules, is_public, read_networks, read_ports

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1::80ff:fffe 2001:db8::1 2002:7f00:1::
2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%1 fec0::1 ff02::1 4000::1
"""
PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808"


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_what_is_not_public_is_refused(address):
    assert AddressRules().refuses_address(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_is_public_is_not_refused(address):
    assert not AddressRules().refuses_address(address)


def test_allowed_networks_are_not_refused_and_have_every_port():
    rules = AddressRules(read_networks("10.1.0.0/16, ::1"), read_ports("443"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "::1", "64:ff9b::a01:203"):
        assert not rules.refuses_address(address)
    assert rules.refuses_address("10.2.0.1")
    assert not rules.refuses_port("10.1.2.3", 8080)
    assert rules.refuses_port("8.8.8.8", 80) and not rules.refuses_port("8.8.8.8", 443)


def test_an_allowed_tunnel_does_not_lead_to_what_is_not_allowed():
    rules = AddressRules(read_networks("2002::/16,2001::/32"))
    assert not rules.refuses_address("2002:808:808::")
    assert rules.refuses_address("2002:7f00:1::")
    assert rules.refuses_address("2001:0:7f00:1::80ff:fffe")


def test_an_address_inside_is_looked_at_beside_the_one_around_it():
    assert is_public(ip_address("64:ff9b::7f00:1"))
    assert AddressRules().refuses_address("64:ff9b::7f00:1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.1/8", r"'10.0.0.1/8' is not a network; .* did you mean 10.0.0.0/8"),
        ("10.0.0.0/33", r"'10.0.0.0/33' is not a network; write them like 127.0.0.0/8,10.1.0.0/16,::1$"),
        ("127.0.0.1, localhost", "'localhost' is not a network"),
    ],
)
def test_a_bad_network_is_told(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_networks(text)


@pytest.mark.parametrize("text", ["0", "65536", "http", "80-90", "²"])
def test_a_bad_port_is_told(text):
    with pytest.raises(ValueError, match="is not a port; write numbers"):
        read_ports(f"80,{text}")
