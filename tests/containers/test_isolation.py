"""What a runner can reach: discovery, and the world outside; not the broker, not the database."""

import json

import pytest
from containers.docker_cli import docker
from containers.project import Project

RUNNERS = ("text-runner", "nlp-runner", "meme-classifier-runner")
#: Prints, for each `host:port`, what became of an attempt to connect.
TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def tried(target):
    host, _, port = target.rpartition(":")
    try:
        address = socket.getaddrinfo(host, int(port), socket.AF_INET)[0][4]
    except socket.gaierror:
        return "unknown"
    try:
        socket.create_connection(address, 3).close()
    except OSError:
        return "no connection"
    return "connected"

targets = sys.argv[1:]
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(dict(zip(targets, pool.map(tried, targets)))))
"""


def tried(project: Project, service: str, targets: list[str]) -> dict[str, str]:
    return dict(json.loads(project.run_in(service, "python", "-c", TRY, *targets)))


def addresses(project: Project, service: str) -> list[str]:
    networks = project.container(service).details["NetworkSettings"]["Networks"].values()
    return [network["IPAddress"] for network in networks]


def bridges(project: Project) -> list[str]:
    """The addresses of this machine in the networks of the project."""
    names = docker("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project.name}").split()
    networks = json.loads(docker("network", "inspect", *names))
    return [config["Gateway"] for network in networks for config in network["IPAM"]["Config"]]


@pytest.fixture
def servers(up: Project) -> list[str]:
    """Broker and database, with the ports inside and, on this machine's side, those that are published."""
    return [
        *(f"{host}:5672" for host in ("rabbitmq", *addresses(up, "rabbitmq"))),
        *(f"{host}:15672" for host in ("rabbitmq", *addresses(up, "rabbitmq"))),
        *(f"{host}:5432" for host in ("postgres", *addresses(up, "postgres"))),
    ]


@pytest.mark.parametrize("service", RUNNERS)
def test_from_a_runner_broker_and_database_neither_resolve_nor_connect(
    up: Project, servers: list[str], service: str
) -> None:
    said = tried(up, service, [*servers, "runner-discovery:8010"])
    assert said.pop("runner-discovery:8010") == "connected"
    by_name = {target for target in said if target.startswith(("rabbitmq:", "postgres:"))}
    assert len(by_name) == 3
    assert {target: answer for target, answer in said.items() if target in by_name and answer != "unknown"} == {}
    assert {target: answer for target, answer in said.items() if target not in by_name and answer == "connected"} == {}
    published = [up.settings["RABBITMQ_PORT"], up.settings["GATEWAY_PORT"]]
    around = tried(up, service, [f"{bridge}:{port}" for bridge in bridges(up) for port in published])
    assert set(around.values()) == {"no connection"}, around


def test_controller_reaches_all_of_them(up: Project, servers: list[str]) -> None:
    targets = [*servers, "runner-discovery:8010", *(f"{name}:8000" for name in RUNNERS)]
    assert set(tried(up, "controller", targets).values()) == {"connected"}


def test_gateway_does_not_reach_runners(up: Project) -> None:
    said = tried(up, "gateway", [f"{name}:8000" for name in RUNNERS] + ["postgres:5432"])
    assert said.pop("postgres:5432") == "connected"
    assert set(said.values()) == {"unknown"}
