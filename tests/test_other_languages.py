"""A runner in another language, with nothing of ours, beside the others; and what conformance says of runners."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import Environment, Service, until
from servers.fixtures import missing
from servers.processes import free_port

from runnerlib.contract.identity import RunnerKeys
from worker.errors import NoRunners
from worker.runners import find_runners, list_runners

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runners" / "word-count-node"
LEASE_SECONDS = 3

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        missing("Node is not installed (apt-get install nodejs)")
    return str(found)


@pytest.fixture
def word_count(node: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes the Node runner; not started yet."""
    made: list[Service] = []

    def make(**settings: str) -> Service:
        port = free_port()
        settings = {"PORT": str(port), "GRACE_SECONDS": "3", **settings}
        log = tmp_path / f"node-{port}.log"
        made.append(Service("word-count-node", [node, str(FOLDER / "server.js")], port, settings, log))
        return made[-1]

    yield make
    for service in made:
        service.kill()


def conformance(service: Service, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "worker", "conformance", service.url, *words]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=200)


def test_a_node_runner_joins_answers_and_leaves(environment: Environment, word_count: Callable[..., Service]) -> None:
    environment.discovery.settings["LEASE_SECONDS"] = str(LEASE_SECONDS)
    environment.start()
    runner = word_count(DISCOVERY_URL=environment.discovery.url).start()
    environment.wait_offered(runner)

    ids = environment.submit_many("word_count", [{"text": "plug and play " * number} for number in range(1, 41)])
    views = [environment.finished(task_id) for task_id in ids]
    assert [view["result"]["words"] for view in views] == [3 * number for number in range(1, 41)]
    assert {view["attempt"] for view in views} == {1}
    _is_typed(environment)

    runner.kill()
    waiting = environment.submit("word_count", {"text": "one two"})
    until(lambda: not _registered(environment), "the lease has run out")
    # A controller that has just tried the dead runner still holds the task for a moment.
    said = "no runner offers 'word_count' now"
    until(lambda: said in str(environment.task(waiting).get("waiting_for")), "the task waits for a runner")
    assert environment.task(waiting)["attempt"] == 1
    runner.start()
    view = environment.finished(waiting)
    assert (view["state"], view["result"]["words"], view["attempt"]) == ("succeeded", 2, 1)

    environment.wait_offered(runner)
    assert runner.stop() == 0
    assert not _registered(environment), "it left without taking itself off the list"


def test_a_node_runner_with_a_token_takes_runs_from_its_environment_alone(
    environment: Environment, word_count: Callable[..., Service], tmp_path: Path
) -> None:
    key = secrets.token_hex(20)
    for service in (environment.discovery, environment.core):
        service.settings["RUNNER_KEYS"] = key
    environment.start()
    token = tmp_path / "token"
    token.write_text(RunnerKeys([key]).runner_token("word-count-node") + "\n")
    runner = word_count(DISCOVERY_URL=environment.discovery.url, RUNNER_TOKEN_FILE=str(token)).start()

    def is_offered() -> bool:
        return runner.url in requests.get(f"{environment.core.url}/algorithms/word_count", timeout=5).text

    until(is_offered, f"it has registered; see {runner.log}")
    view = environment.finished(environment.submit("word_count", {"text": "plug and play"}))
    assert (view["state"], view["result"]["words"], view["attempt"]) == ("succeeded", 3, 1)
    answer = requests.post(f"{runner.url}/run/word_count", json={"text": "a"}, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert runner.stop() == 0
    until(lambda: not is_offered(), "it has taken itself off the list")


def _is_typed(environment: Environment) -> None:
    """The gateway shows its fields and refuses what does not fit before it is queued."""
    document = requests.get(f"{environment.core.url}/openapi.json", timeout=10).json()
    assert "/algorithms/word_count/run" in document["paths"]
    assert "Counts the words of a text" in str(document["paths"]["/algorithms/word_count/run"])
    answer = requests.post(f"{environment.core.url}/algorithms/word_count/tasks", json={"txt": "a"}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_payload")
    assert "did you mean 'text'?" in answer.json()["detail"]


def _registered(environment: Environment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{environment.discovery.url}/runners", timeout=5).json()
    return found


def test_conformance_tells_the_level_of_the_node_runner(word_count: Callable[..., Service]) -> None:
    done = conformance(word_count().start(), "--level", "observed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "level 2 of 4, observed" in done.stdout


@pytest.mark.parametrize("token", ["", RunnerKeys(["k" * 40]).runner_token("text")], ids=["plain", "token"])
def test_conformance_finds_nothing_wrong_with_a_runner_of_ours(environment: Environment, token: str) -> None:
    runner = environment.runner(str(ROOT / "runners" / "text"), "text", DISCOVERY_URL="", RUNNER_TOKEN=token).start()
    words = ("--algorithm", "countdown", "--slow", '{"seconds": 3}', "--level", "batched")
    done = conformance(runner, *words, RUNNER_TOKEN=token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert ("token_batch" in done.stdout) == bool(token)


def test_the_node_runners_own_tests_pass(node: str) -> None:
    done = subprocess.run([node, "--test"], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout


def test_a_folder_without_an_adapter_is_no_runner_of_worker() -> None:
    assert not list(FOLDER.glob("*.py"))
    assert {"text", "nlp"} <= {runner.name for runner in list_runners(FOLDER.parent)}
    assert FOLDER.name not in {runner.name for runner in list_runners(FOLDER.parent)}
    with pytest.raises(NoRunners, match="word-count-node"):
        find_runners(FOLDER.parent, [FOLDER.name])
