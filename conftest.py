"""Imports our packages before pytest names the test modules after the folders, which have the same names."""

import pytest

import controller
import producer
import runner_discovery
import runnerlib
import taskqueue
import worker

__all__ = ["controller", "producer", "runner_discovery", "runnerlib", "taskqueue", "worker"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="40", help="how often the owner of the task file is killed under load")
