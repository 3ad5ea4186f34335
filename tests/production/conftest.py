"""The whole environment on RabbitMQ and PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import Production


@pytest.fixture
def production(tmp_path: Path, broker: Any, database_url: str) -> Iterator[Production]:
    """On the shared servers, with a virtual host and a database of its own; on both versions of the broker."""
    made = Production(tmp_path, queue_url=broker.url, database_url=database_url)
    try:
        yield made
    finally:
        made.stop()


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
