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
