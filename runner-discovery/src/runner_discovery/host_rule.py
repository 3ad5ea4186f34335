"""Which hosts may be registered: a runner's own address, so that nobody has controllers connect to others' servers."""

import fnmatch
import ipaddress
import socket
from urllib.parse import urlsplit

from runner_discovery.errors import HostNotAllowed
from runner_discovery.name_lookup import NameLookup
from runner_discovery.records import Origin
from runnerlib.service.addresses import Address, Network, address_of
from runnerlib.service.settings import is_loopback


class HostRule:
    """A runner may register the address that it calls discovery from, or a name of it.

    On this machine that is every address of it. A service that listens on loopback only has no rule.

    Parameters:
        bound_to: the address that discovery listens on.
        allowed: further hosts, names with wildcards (``*.workers.example``) or networks (``10.1.0.0/16``).
        lookup: what names stand for.
    """

    def __init__(self, bound_to: str, allowed: str = "", lookup: NameLookup | None = None) -> None:
        self._names, self._networks = read_hosts(allowed)
        self._is_free = is_loopback(bound_to)
        self._lookup = lookup or NameLookup()

    async def checked_address(self, host_url: str, peer: str, who: str = "") -> str:
        """The address that controllers must use for this host; empty: whatever its name stands for when they connect.

        `who` is somebody who may have one look-up at a time. Raises HostNotAllowed, LookupPending.
        """
        name = _name_in(host_url)
        if self._is_free or self._fits_name(name):
            return ""
        literal = address_of(name)
        addresses = await self._lookup.addresses(name, who or peer) if literal is None else [literal]
        caller = address_of(peer)
        for address in addresses:
            if address == caller or any(address in network for network in self._networks):
                return str(address)
        if caller is not None and _is_here(caller):
            here = next((address for address in addresses if _is_here(address)), None)
            if here is not None:
                return str(here)
        stands_for = ", ".join(map(str, addresses[:3])) or "no address"
        raise HostNotAllowed(
            f"host {name[:100]!r} stands for {stands_for}, and a runner registers its own address, which discovery "
            f"sees as {peer}; set ADVERTISE_HOST there, or add the host to RUNNER_HOSTS of discovery"
        )

    def still_allows(self, host_url: str, origin: Origin) -> bool:
        """Whether what an earlier process has checked would be allowed by this one's rule. Looks nothing up."""
        if self._is_free:
            return True
        address, peer = address_of(origin.address), address_of(origin.peer)
        if address is None:
            return self._fits_name(_name_in(host_url))
        is_own = address == peer or (peer is not None and _is_here(peer) and _is_here(address))
        return is_own or any(address in network for network in self._networks)

    def _fits_name(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._names)


def read_hosts(text: str) -> tuple[list[str], list[Network]]:
    """Names and networks. Raises ValueError for what looks like a network and is none."""
    names: list[str] = []
    networks: list[Network] = []
    for word in text.replace(",", " ").lower().split():
        try:
            networks.append(_mapped_down(ipaddress.ip_network(word, strict=False)))
        except ValueError:
            if "/" in word:
                raise ValueError(f"{word[:50]!r} is no network; write 10.1.0.0/16") from None
            names.append(word)
    return names, networks


def _mapped_down(network: Network) -> Network:
    """``::ffff:10.9.0.0/112`` is ``10.9.0.0/16``."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _name_in(host_url: str) -> str:
    return (urlsplit(host_url).hostname or "").lower().removesuffix(".")


def _is_here(address: Address) -> bool:
    """Whether it is an address of this machine: only those can be bound to."""
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return False
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


#: That of a discovery which only this machine reaches.
EVERY_HOST = HostRule("127.0.0.1")
