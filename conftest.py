"""Imports our packages before pytest names the test modules after the folders, which have the same names."""

import logging
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

import controller
import producer
import runner_discovery
import runnerlib
import taskqueue
import worker

pytest_plugins = ["servers.fixtures"]

__all__ = ["controller", "producer", "runner_discovery", "runnerlib", "taskqueue", "worker"]


#: Tests with a longer form (marked `sized`): option → what it is, its size in CI, and with ``--full``.
SIZES: dict[str, tuple[str, int | str, int | str]] = {
    "kills": ("how often the owner of the task file is killed under load", 20, 200),
    "waiting-tasks": ("tasks that wait while memory is watched", 30_000, 100_000),
    "generated-runners": ("runners of 50 generated algorithms", 2, 40),
    "flood": ("short or full: how much is registered without end", "short", "full"),
    "adversary": ("short or full: full waits for what is only found out by waiting", "short", "full"),
    "attack-seconds": ("how long each attack on the listening ports lasts", 3, 15),
    "silent-connections": ("open connections of one of these attacks, to each port", 3_000, 9_000),
    "hog-tasks": ("tasks that one tenant queues before another's are sent", 5_000, 100_000),
    "fuzz-seconds": ("how long the gateway and a runner are fuzzed", 30, 300),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the longer form of the tests that have one")
    parser.addoption("--generated-seed", default="1", help="what the generated algorithms are made from")
    for name, (text, short, full) in SIZES.items():
        parser.addoption(f"--{name}", type=type(short), help=f"{text}; {short}, with --full {full}")


def pytest_configure(config: pytest.Config) -> None:
    for name, (_, short, full) in SIZES.items():
        option = name.replace("-", "_")
        if getattr(config.option, option) is None:
            setattr(config.option, option, full if config.option.full else short)
    _take_signals()


def _take_signals() -> None:
    """Started in the background, all of this would ignore Ctrl-C, and with nohup hanging up, which some tests try."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take longest come first: with several processes none of them is still busy at the end."""
    items.sort(key=_most_seconds, reverse=True)


def _most_seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


#: Tests that share something slow to start, by the parts of their ids that are the same: they run in the same process.
_SHARING = (
    re.compile(r"(tests/doors)/.*\[(embedded|rabbitmq\d)\b"),
    re.compile(r"(tests/test_cases\.py)::[^\[]*\[(embedded|rabbitmq\d)\b"),
    re.compile(r"(tests/images|tests/containers)/"),
    re.compile(
        r"(tests/(?:test_plug_in|test_misbehaving_handlers|production/test_strangers|production/test_readme)\.py)"
    ),
    re.compile(r"(runnerlib/tests/runner/\w+\.py)"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Whenever there are several processes. (xdist's own groups do nothing with this version of pytest.)"""
    config.option.loadscopereorder = False
    return SharingScheduling(config, log)


class SharingScheduling(LoadScopeScheduling):
    """One test after the other, in their order, to whoever is free; those that share something as one."""

    def _split_scope(self, nodeid: str) -> str:
        """The scope of a test, by its id."""
        for pattern in _SHARING:
            if found := pattern.match(nodeid):
                return " ".join(found.groups())
        return nodeid


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


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
