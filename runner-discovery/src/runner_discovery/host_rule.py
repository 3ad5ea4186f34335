"""Which hosts may be registered: a runner's own address, so that nobody has controllers connect to others' servers."""

import asyncio
import fnmatch
import ipaddress
import socket
from urllib.parse import urlsplit

from runner_discovery.errors import HostNotAllowed
from runnerlib.service.settings import is_loopback

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_RESOLVE_SECONDS = 3.0
_NAMED = "its own address, which discovery sees as"


class HostRule:
    """A runner may register the address that it calls discovery from, or a name of it.

    On this machine that is every address of it. A service that listens on loopback only has no rule.

    Parameters:
        bound_to: the address that discovery listens on.
        allowed: further hosts, names with wildcards (``*.workers.example``) or networks (``10.1.0.0/16``).
    """

    def __init__(self, bound_to: str, allowed: str = "") -> None:
        words = allowed.replace(",", " ").lower().split()
        self._networks = [network for word in words if (network := _network(word)) is not None]
        self._names = [word for word in words if _network(word) is None]
        self._is_free = is_loopback(bound_to)

    async def checked_address(self, host_url: str, peer: str) -> str:
        """The address that controllers must use for this host; empty: whatever its name stands for when they connect.

        Raises HostNotAllowed.
        """
        name = (urlsplit(host_url).hostname or "").lower()
        if self._is_free or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._names):
            return ""
        addresses = await _resolve(name)
        caller = _address(peer)
        for address in addresses:
            if address == caller or any(address in network for network in self._networks):
                return str(address)
        if caller is not None and _is_here(caller):
            here = next((address for address in addresses if _is_here(address)), None)
            if here is not None:
                return str(here)
        stands_for = ", ".join(map(str, addresses[:3])) or "no address"
        raise HostNotAllowed(
            f"host {name[:100]!r} stands for {stands_for}, and a runner registers {_NAMED} {peer}; set ADVERTISE_HOST "
            "there, or add the host to RUNNER_HOSTS of discovery"
        )


#: That of a discovery which only this machine reaches.
EVERY_HOST = HostRule("127.0.0.1")


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        return None


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


async def _resolve(name: str) -> list[Address]:
    literal = _address(name)
    if literal is not None:
        return [literal]
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    addresses = (_address(str(each[4][0])) for each in found)
    return list(dict.fromkeys(address for address in addresses if address is not None))


def _is_here(address: Address) -> bool:
    """Whether it is an address of this machine: only those can be bound to."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return not address.is_unspecified
