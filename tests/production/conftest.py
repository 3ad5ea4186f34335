"""The whole environment on RabbitMQ and PostgreSQL."""

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from environments import Production
from servers.fixtures import BROKER_VERSIONS, missing
from servers.postgresql import PostgreSQL
from servers.rabbitmq import RabbitMQ

#: Its published versions, newest last, are on the package's page; this one is what the example was written for.
AMQPLIB = "amqplib@0.10.9"


@pytest.fixture(scope="module", params=BROKER_VERSIONS, ids=[f"rabbitmq{major}" for major in BROKER_VERSIONS])
def production(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    broker_servers: Callable[[str], RabbitMQ],
    postgres_server: PostgreSQL,
) -> Iterator[Production]:
    """With the steady runner, on each version of the broker in turn; shared by the tests of a module."""
    broker, name = broker_servers(request.param), f"production_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        queue_url = broker.add_vhost(name)
        stack.callback(broker.remove_vhost, name)
        database_url = postgres_server.create_database(name)
        stack.callback(postgres_server.drop_database, name)
        made = Production(tmp_path_factory.mktemp(name), queue_url=queue_url, database_url=database_url)
        stack.callback(made.stop)
        yield made.start("steady")


@pytest.fixture
def production_on(tmp_path: Path) -> Iterator[Callable[..., Production]]:
    """On servers that the test names, because it will kill or freeze them."""
    made: list[Production] = []

    def make(queue_url: str, database_url: str, **settings: str) -> Production:
        folder = tmp_path / f"environment-{len(made)}"
        folder.mkdir()
        made.append(Production(folder, queue_url=queue_url, database_url=database_url, core_settings=settings))
        return made[-1]

    try:
        yield make
    finally:
        for environment in made:
            environment.stop()


@pytest.fixture(scope="session")
def amqplib(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Node's AMQP client, installed once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing("Node and npm are not installed (apt-get install nodejs npm)")
    assert npm is not None
    folder = tmp_path_factory.mktemp("node")
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--silent", "--prefix", str(folder)]
    subprocess.run([npm, "install", *options, AMQPLIB], check=True, timeout=110, capture_output=True)
    yield folder
