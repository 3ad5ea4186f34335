"""A runner that answers in every wrong way: its own tasks end with a true reason, and nobody else's are touched."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from adversary import BATCH, SLOW, WAYS, Adversary, Way
from environments import Environment, Production, Service, until
from servers.rabbitmq import RabbitMQ

# Each starts a whole environment; the ways go on beside one another.
pytestmark = [pytest.mark.timeout(400), pytest.mark.sized]

SETTINGS = {"RUNNER_MARGIN_SECONDS": "2.5"}
LEASE_SECONDS = "5"
HONEST_EACH = 4
#: With ``--adversary full``, which waits for what is only found out by waiting.
WITHIN_SECONDS = {"short": 120.0, "full": 300.0}
#: Beside what a core needs anyway; answers of 16 MB come, and several at a time.
MOST_MORE_BYTES = 600 * 1024 * 1024
#: A true reason for any of them on a crowded machine, where the adversary itself may be late.
LATE = "did not answer in time"


@pytest.fixture(params=["embedded", "rabbitmq4"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, broker_servers: Callable[[str], RabbitMQ]
) -> Iterator[Environment]:
    with ExitStack() as stack:
        made: Environment
        if request.param == "embedded":
            made = Environment(tmp_path, core_settings=SETTINGS)
        else:
            broker, name = broker_servers("4"), f"adversary_{os.getpid()}"
            broker.add_vhost(name)
            stack.callback(broker.remove_vhost, name)
            made = Production(
                tmp_path,
                core_settings=SETTINGS,
                queue_url=broker.url_of(name),
                database_url=request.getfixturevalue("database_url"),
            )
        made.discovery.settings["LEASE_SECONDS"] = LEASE_SECONDS
        stack.callback(made.stop)
        yield made.start("steady")


@contextmanager
def watched(service: Service) -> Iterator[Callable[[], int]]:
    """The most memory that the process has had."""
    assert service.process is not None
    process, most, over = psutil.Process(service.process.pid), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05) and process.is_running():
            most = max(most, process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: most
    finally:
        over.set()
        thread.join(5)


def test_runner_that_answers_in_every_wrong_way_harms_nobody_else(
    environment: Environment, delete: Any, request: pytest.FixtureRequest
) -> None:
    form = str(request.config.getoption("--adversary"))
    within_seconds = WITHIN_SECONDS[form]
    cancelled = {way.name for way in WAYS if way.cancel or (way.name in SLOW and form == "short")}
    log = environment.folder / "executions.log"
    log.touch()
    taker = environment.controllers[0] if isinstance(environment, Production) else environment.core
    with Adversary(environment.discovery.url, WAYS).running(), watched(taker) as most_bytes:
        until(lambda: {way.algorithm for way in WAYS} <= offered(environment), "every way is offered")
        before = most_bytes()
        honest: list[str] = []
        wrong: dict[str, list[str]] = {}
        for way in WAYS:
            wrong[way.name] = environment.submit_many(way.algorithm, [{}] * BATCH)
            # on a broker a task that runs has a row once it has run for a second, or at its end
            honest += environment.submit_many("noted", [{"number": n, "log": str(log)} for n in range(HONEST_EACH)])
        began = time.monotonic()
        for way in WAYS:
            if way.name in cancelled:
                for task_id in wrong[way.name]:
                    if way.takes:
                        environment.in_state(task_id, "running")
                    assert delete(environment, task_id) in ((202,) if way.takes else (200, 202)), way.name
        views = {
            way.name: [environment.finished(task_id, within_seconds) for task_id in wrong[way.name]] for way in WAYS
        }
        assert time.monotonic() - began < within_seconds
        for number, task_id in enumerate(honest):
            view = environment.finished(task_id)
            assert (view["state"], view["result"], view["attempt"]) == ("succeeded", (number % HONEST_EACH) ** 2, 1)
        assert most_bytes() - before < MOST_MORE_BYTES
    ran = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert ran == Counter(honest), "each honest task ran once"
    problems = [problem for way in WAYS for view in views[way.name] if (problem := wrong_about(way, view, cancelled))]
    assert not problems, "\n".join(problems)
    assert_every_failure_has_a_dead_letter(environment, views)


def offered(environment: Environment) -> set[str]:
    listed = requests.get(f"{environment.core.url}/algorithms", timeout=10).json()
    return {each["name"] for each in (listed if isinstance(listed, list) else listed["algorithms"])}


def wrong_about(way: Way, view: dict[str, Any], cancelled: set[str]) -> str:
    """What is not as it should be with one of its tasks."""
    error = view["error"] or {"code": view["state"], "message": ""}
    if way.name in cancelled:
        return "" if view["state"] == "cancelled" else f"{way.name}: {view}"
    is_expected = error["code"] in way.ends and way.says in error["message"]
    if not (is_expected or LATE in error["message"]) or len(error["message"]) > 11_000:
        return f"{way.name}: {error['code']}: {error['message'][:300]}; attempt {view['attempt']}"
    progress = view["progress"]
    return f"{way.name}: {len(progress['message'])}" if progress and len(progress["message"]) > 1000 else ""


def assert_every_failure_has_a_dead_letter(environment: Environment, views: dict[str, list[dict[str, Any]]]) -> None:
    failed = {view["id"] for found in views.values() for view in found if view["state"] == "failed"}
    assert failed
    answer = requests.get(f"{environment.core.url}/dead", params={"limit": 500}, timeout=20)
    assert failed <= {letter["task_id"] for letter in answer.json()["dead_letters"]}
    assert len(answer.content) < 1024 * 1024
