"""Runners that come while the environment runs: nothing else is built, restarted or configured."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from containers.checkout import secret
from containers.docker_cli import called, docker
from containers.messages import Gateway
from containers.project import COMPOSE_FILE, Container, Project
from environments import until

#: From being healthy to the first answer from the queue.
FIRST_ANSWER_SECONDS = 5.0
ADAPTER = '''
"""Made by a test."""


def run_shouting(text: str, marks: int = 1) -> str:
    """Says it louder.

    >>> run_shouting(text="hi")
    'HI!'
    """
    return text.upper() + "!" * marks
'''


def others(project: Project, service: str) -> dict[str, tuple[str, str]]:
    """Since when each container runs that is not one of this service."""
    return {each.id: (each.service, each.started_at) for each in project.containers() if each.service != service}


def plug_in(project: Project, runner: str, service: str) -> Container:
    files = (COMPOSE_FILE, f"runners/{runner}/compose.yml")
    before = others(project, service)
    assert len(before) >= 8
    called(["./build.sh", runner], folder=project.folder, settings=project.variables, within_seconds=300)
    project.compose("up", "--detach", service, files=files, within_seconds=300)
    project.wait_healthy(service)
    assert others(project, service) == before
    return project.container(service)


def plug_out(project: Project, runner: str, service: str) -> None:
    files = (COMPOSE_FILE, f"runners/{runner}/compose.yml")
    before = others(project, service)
    project.compose("rm", "--stop", "--force", service, files=files, within_seconds=120)
    assert project.containers(service, all_of_them=True) == []
    assert others(project, service) == before


def answered(gateway: Gateway, algorithm: str, payload: dict[str, object]) -> object:
    """The result of a task that goes through the queue; fails when it takes too long."""
    start = time.monotonic()
    while algorithm not in gateway.algorithms():
        assert time.monotonic() - start < FIRST_ANSWER_SECONDS, f"{algorithm} is not in the catalogue"
    view = gateway.run(algorithm, payload)
    assert view["state"] == "succeeded", view
    assert time.monotonic() - start < FIRST_ANSWER_SECONDS
    return view["result"]


@contextmanager
def by_itself(container: Container) -> Iterator[str]:
    """The address of one more container of the same image, which asks for no token and registers nowhere."""
    made = docker("run", "--detach", "--env", "AUTH=none", "--publish", "127.0.0.1::8000", container.details["Image"])
    try:
        url = f"http://{docker('port', made.strip(), '8000').split()[0]}"
        until(lambda: requests.get(f"{url}/healthz/ready", timeout=5).ok, "it is ready", 60)
        yield url
    finally:
        docker("rm", "--force", made.strip())


def conformance(project: Project, worker_command: list[str], url: str, *words: str) -> tuple[str, list[str]]:
    """The level that `worker conformance` finds, and the checks of it and those below that did not pass."""
    command = [*worker_command, "conformance", url, *words, "--json"]
    told = json.loads(called(command, folder=project.folder, within_seconds=180))
    return told["level"], [check["name"] for check in told["checks"] if check["verdict"] == "failed"]


def hardening(container: Container) -> tuple[object, ...]:
    host = container.details["HostConfig"]
    return (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"], container.details["Config"]["User"])


def test_new_python_runner_joins_and_answers(up: Project, gateway: Gateway, worker_command: list[str]) -> None:
    called([*worker_command, "new", "runner", "shouting"], folder=up.folder, settings=up.variables)
    (up.folder / "runners" / "shouting" / "runner_adapter.py").write_text(ADAPTER.lstrip())
    container = plug_in(up, "shouting", "shouting-runner")
    assert secret(up.folder, "shouting-runner-token").startswith("ppr_shouting.")
    assert answered(gateway, "shouting", {"text": "plug and play", "marks": 2}) == "PLUG AND PLAY!!"
    assert hardening(container) == hardening(up.container("text-runner"))
    plug_out(up, "shouting", "shouting-runner")


def test_runner_in_another_language_joins_answers_and_is_what_it_claims_to_be(
    up: Project, gateway: Gateway, worker_command: list[str]
) -> None:
    container = plug_in(up, "word-count-node", "word-count-node-runner")
    result = answered(gateway, "word_count", {"text": "plug and play and queue"})
    assert isinstance(result, dict)
    assert (result["words"], result["most_common"][0]) == (5, {"word": "and", "count": 2})
    read_only, dropped, _, user = hardening(container)
    assert (read_only, dropped) == (True, ["ALL"])
    assert user not in ("", "0", "root")
    with by_itself(container) as url:
        assert conformance(up, worker_command, url, "--level", "observed")[0] == "observed"
    plug_out(up, "word-count-node", "word-count-node-runner")


def test_runner_of_ours_reaches_the_top_level_in_its_container(up: Project, worker_command: list[str]) -> None:
    words = (
        "--algorithm",
        "countdown",
        "--payload",
        '{"seconds": 0}',
        "--slow",
        '{"seconds": 4}',
        "--level",
        "batched",
    )
    with by_itself(up.container("text-runner")) as url:
        assert conformance(up, worker_command, url, *words) == ("batched", [])
