"""Which hosts handlers may fetch from. Pure.

An address is public if the IANA special-purpose registries (RFC 6890) do not list it. Their networks are written out
here in addition to what `ipaddress` knows, which differs between versions of Python.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MEBIBYTE = 1024 * 1024

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # a public number, but inside Azure it is the host's own service
        "169.254.0.0/16",  # link-local: metadata of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocols' own, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
#: All global unicast addresses of IPv6 that have been assigned so far.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: How DNS64 writes public IPv4 addresses, in networks that have only IPv6.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class AddressRules:
    """Networks in `allowed` may be connected to at any port, even if they are not public; public ones at `ports`."""

    allowed: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})

    def refuses_address(self, text: str) -> bool:
        """`text` is a numeric address, as the system returns it."""
        address = _unmapped(ip_address(text))
        return not all(self._is_allowed(one) or is_public(one) for one in (address, *_embedded(address)))

    def refuses_port(self, text: str, port: int) -> bool:
        return port not in self.ports and not self._is_allowed(_unmapped(ip_address(text)))

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self.allowed)


@dataclass(frozen=True)
class FetchRules:
    """What the operator of a runner allows, as plain values that can be sent to worker processes.

    `max_bytes` and `timeout_seconds` apply where a handler does not give its own.
    """

    allow_private: str = ""
    ports: str = "80,443"
    max_bytes: int = 20 * MEBIBYTE
    timeout_seconds: float = 15

    @property
    def addresses(self) -> AddressRules:
        return AddressRules(read_networks(self.allow_private), read_ports(self.ports))


def is_public(address: Address) -> bool:
    """Whether `address` is a host of the public internet; does not look at an IPv4 address embedded in it."""
    if address in _NAT64:
        return True
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)


def _unmapped(address: Address) -> Address:
    """The system sends packets for ::ffff:a.b.c.d to a.b.c.d."""
    return getattr(address, "ipv4_mapped", None) or address


def _embedded(address: Address) -> tuple[Address, ...]:
    """IPv4 addresses that a gateway on the way may extract from an IPv6 address."""
    if not isinstance(address, IPv6Address):
        return ()
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()


def read_networks(text: str) -> tuple[Network, ...]:
    """Reads ``127.0.0.0/8, ::1``. Raises ValueError with a sentence."""
    return tuple(map(_network, _split(text)))


def read_ports(text: str) -> frozenset[int]:
    """Reads ``80,443``. Raises ValueError with a sentence."""
    return frozenset(map(_port, _split(text)))


def _split(text: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in text.split(",")))


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = f"; did you mean {ip_network(text, strict=False)}"
    except ValueError:
        meant = ""
    raise ValueError(f"{text!r} is not a network; write them like 127.0.0.0/8,10.1.0.0/16,::1{meant}") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port; write numbers from 1 to 65535, like 80,443,8080")
    return int(text)
