"""What the operator of a runner lets its handlers fetch."""

from dataclasses import dataclass

from runnerlib.fetching.addresses import AddressRules, read_networks, read_ports

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class FetchRules:
    """As plain values, which travel to worker processes. The last two hold where a handler does not say otherwise."""

    allow_private: str = ""
    ports: str = "80,443"
    max_bytes: int = 20 * MEBIBYTE
    timeout_seconds: float = 15

    @property
    def addresses(self) -> AddressRules:
        return AddressRules(read_networks(self.allow_private), read_ports(self.ports))
