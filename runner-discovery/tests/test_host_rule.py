"""Whose address may be registered."""

import asyncio
import socket

import pytest

from runner_discovery.errors import HostNotAllowed
from runner_discovery.host_rule import EVERY_HOST, HostRule

FOREIGN = ["169.254.169.254", "10.0.0.1", "[fd00::1]", "nowhere.invalid", "203.0.113.9"]


def checked(host: str, peer: str, *, bound_to: str = "0.0.0.0", allowed: str = "") -> str:
    return asyncio.run(HostRule(bound_to, allowed).checked_address(f"http://{host}:8000", peer))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names stand for, as DNS says."""
    known: dict[str, list[str]] = {}

    async def getaddrinfo(_: object, name: str, *args: object, **more: object) -> list[tuple[object, ...]]:
        if name not in known:
            raise socket.gaierror
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


def test_runner_may_register_the_address_that_it_calls_from(names: dict[str, list[str]]) -> None:
    names["runner"] = ["10.0.0.9", "10.0.0.7"]
    assert checked("10.0.0.7", "10.0.0.7") == "10.0.0.7"
    assert checked("runner", "10.0.0.7") == "10.0.0.7"
    assert checked("runner", "::ffff:10.0.0.7") == "10.0.0.7"


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("peer", ["10.0.0.7", "127.0.0.1"])
def test_runner_may_not_register_what_is_elsewhere(names: dict[str, list[str]], host: str, peer: str) -> None:
    with pytest.raises(HostNotAllowed, match=r"RUNNER_HOSTS"):
        checked(host, peer)


def test_names_of_other_servers_are_refused(names: dict[str, list[str]]) -> None:
    names["postgres"] = ["10.0.0.2"]
    with pytest.raises(HostNotAllowed, match=r"'postgres' stands for 10.0.0.2, .* as 10.0.0.7"):
        checked("postgres", "10.0.0.7")


def test_runner_elsewhere_may_not_register_this_machine(names: dict[str, list[str]]) -> None:
    names["localhost"] = ["127.0.0.1", "::1"]
    for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0"):
        with pytest.raises(HostNotAllowed):
            checked(host, "10.0.0.7")


def test_runner_on_this_machine_may_register_any_address_of_it(names: dict[str, list[str]]) -> None:
    names["localhost"] = ["127.0.0.1"]
    assert checked("localhost", "127.0.0.1") == "127.0.0.1"
    assert checked("127.0.0.2", "127.0.0.1") == "127.0.0.2"
    with pytest.raises(HostNotAllowed):
        checked("0.0.0.0", "127.0.0.1")


def test_operator_can_allow_names_and_networks(names: dict[str, list[str]]) -> None:
    names["a.workers.example"] = ["10.9.0.1"]
    names["other.example"] = ["10.1.2.3"]
    allowed = "*.Workers.example, 10.1.0.0/16"
    # By its name, whatever that stands for when a controller connects; by a network, at this address.
    assert checked("a.workers.example", "10.0.0.7", allowed=allowed) == ""
    assert checked("other.example", "10.0.0.7", allowed=allowed) == "10.1.2.3"
    assert checked("10.1.9.9", "10.0.0.7", allowed=allowed) == "10.1.9.9"
    with pytest.raises(HostNotAllowed):
        checked("10.2.0.1", "10.0.0.7", allowed=allowed)


@pytest.mark.parametrize("host", FOREIGN)
def test_discovery_that_only_this_machine_reaches_takes_every_host(host: str) -> None:
    assert checked(host, "127.0.0.1", bound_to="127.0.0.1") == ""
    assert asyncio.run(EVERY_HOST.checked_address(f"http://{host}", "127.0.0.1")) == ""
