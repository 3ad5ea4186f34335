"""Pytest fixtures: real servers. Where one is not installed the test is skipped, and fails in CI."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from servers.postgresql import PostgreSQL, find_binaries
from servers.rabbitmq import ROOT_VARIABLE, RabbitMQ, installations, versions

#: The two that everything must work on.
BROKER_VERSIONS = ("3", "4")


def missing(what: str) -> None:
    """Skips the test; in CI nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; CI must not skip this")
    pytest.skip(what)


@dataclass(frozen=True)
class Broker:
    """A virtual host of its own on a running RabbitMQ."""

    server: RabbitMQ
    vhost: str

    @property
    def url(self) -> str:
        return self.server.url_of(self.vhost)

    def management(self, method: str, path: str, body: Any = None) -> Any:
        return self.server.management(method, path, body)

    def queue_state(self, name: str) -> dict[str, Any] | None:
        """What the management API tells of a queue; its counts may be some seconds old."""
        state: dict[str, Any] | None = self.management("GET", f"queues/{quote(self.vhost, safe='')}/{quote(name)}")
        return state

    def delete_queue(self, name: str) -> None:
        self.management("DELETE", f"queues/{quote(self.vhost, safe='')}/{quote(name)}")

    def close_connections(self) -> int:
        """Cuts every connection of this virtual host; how many there were."""
        mine = [each for each in self.management("GET", "connections") if each.get("vhost") == self.vhost]
        for each in mine:
            self.management("DELETE", f"connections/{quote(each['name'], safe='')}")
        return len(mine)


@pytest.fixture(scope="session")
def broker_servers() -> Iterator[Callable[[str], RabbitMQ]]:
    """One running RabbitMQ for each major version, started when first asked for."""
    with ExitStack() as stack:
        running: dict[str, RabbitMQ] = {}

        def get(major: str) -> RabbitMQ:
            if major not in running:
                running[major] = stack.enter_context(RabbitMQ(_installation(major)))
            return running[major]

        yield get


@pytest.fixture(params=BROKER_VERSIONS, ids=[f"rabbitmq{major}" for major in BROKER_VERSIONS])
def broker_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broker_server(broker_version: str, broker_servers: Callable[[str], RabbitMQ]) -> RabbitMQ:
    """Shared by the tests of a process: who freezes it or changes a setting undoes that; `own_broker` may be killed."""
    return broker_servers(broker_version)


@pytest.fixture
def broker(broker_server: RabbitMQ) -> Iterator[Broker]:
    """A fresh virtual host, gone after the test."""
    vhost = f"test-{secrets.token_hex(4)}"
    broker_server.add_vhost(vhost)
    try:
        yield Broker(broker_server, vhost)
    finally:
        broker_server.remove_vhost(vhost)


@pytest.fixture
def own_broker(broker_version: str) -> Iterator[Callable[..., RabbitMQ]]:
    """Starts a RabbitMQ of the test's own, which may be killed and reconfigured."""
    with ExitStack() as stack:

        def start(config: Mapping[str, str] | None = None) -> RabbitMQ:
            return stack.enter_context(RabbitMQ(_installation(broker_version), config))

        yield start


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """Shared by all tests: do not stop it; `own_postgres` is for that."""
    with _postgresql() as server:
        yield server


@pytest.fixture
def database_url(postgres_server: PostgreSQL) -> Iterator[str]:
    """A fresh database, gone after the test."""
    name = f"test_{secrets.token_hex(4)}"
    url = postgres_server.create_database(name)
    try:
        yield url
    finally:
        postgres_server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL of the test's own, which may be stopped, killed and frozen."""
    with _postgresql() as server:
        yield server


def _installation(major: str) -> Any:
    found = installations()
    if major not in found:
        hint = "apt-get install rabbitmq-server" if major == "3" else f"{ROOT_VARIABLE} names a folder with one"
        missing(f"RabbitMQ {major}.x is not installed ({hint}); found: {versions(found.values())}")
    return found[major]


def _postgresql() -> PostgreSQL:
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL is not installed (apt-get install postgresql)")
    assert binaries is not None
    return PostgreSQL(binaries)
