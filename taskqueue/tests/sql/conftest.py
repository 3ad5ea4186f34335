"""A look into the database beside the store, for tests of PostgreSQL."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def ask(database_url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs one statement on a connection of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

        yield run
