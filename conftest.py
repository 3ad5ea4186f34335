"""Imports our packages before pytest names the test modules after the folders, which have the same names."""

import logging
from collections.abc import Iterator

import pytest
import structlog

import controller
import producer
import runner_discovery
import runnerlib
import taskqueue
import worker

pytest_plugins = ["servers.fixtures"]

__all__ = ["controller", "producer", "runner_discovery", "runnerlib", "taskqueue", "worker"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="40", help="how often the owner of the task file is killed under load")
    parser.addoption("--fuzz-seconds", default="200", help="how long the gateway and a runner are fuzzed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take longest come first: with several processes none of them is still busy at the end."""
    items.sort(key=_most_seconds, reverse=True)


def _most_seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that configures logging writes to a stderr of its own; the next test must not."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if root.handlers != handlers:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
