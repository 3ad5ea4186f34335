"""What a runner can reach: discovery, and the world outside; not the broker, the database, or the work of others."""

import json

import pytest
from containers.checkout import secret
from containers.docker_cli import docker
from containers.messages import Gateway
from containers.project import Project
from environments import until

from runnerlib.contract.identity import run_token_of

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


#: Makes each call of `[[method, url, token, body], …]` in argv, and prints `[[status, code of the problem], …]`.
CALL = """
import json, sys, urllib.error, urllib.request

def called(method, url, token, body):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = "Bearer " + token
    data = None if body is None else json.dumps(body).encode()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    content = answer.read()
    found = json.loads(content) if content else None
    return answer.status, found.get("code") if isinstance(found, dict) else None

print(json.dumps([called(*call) for call in json.loads(sys.argv[1])]))
"""
DISCOVERY = "http://runner-discovery:8010"
Call = tuple[str, str, str, object]


def calls(project: Project, service: str, *asked: Call) -> list[tuple[int, str | None]]:
    """What became of calls from inside a container: status, and a problem's code."""
    said = json.loads(project.run_in(service, "python", "-c", CALL, json.dumps(asked)))
    return [(status, code) for status, code in said]


def registration(name: str, host: str, token: str, algorithm: str = "stolen") -> Call:
    body = {"name": name, "host": host, "boot": "b", "level": "plain", "algorithms": [{"name": algorithm}]}
    return "PUT", f"{DISCOVERY}/runners/{name}-forged", token, body


def plain(host: str, token: str) -> Call:
    return "POST", f"{DISCOVERY}/algorithms", token, {"algorithm": "stolen", "host": host}


@pytest.fixture
def own_token(up: Project) -> str:
    """What somebody finds who has broken into the runner `text`."""
    found = up.run_in("text-runner", "cat", "/run/secrets/runner-token").strip()
    assert found == secret(up.folder, "text-runner-token")
    return found


def test_runner_cannot_register_under_the_name_of_another(up: Project, own_token: str, gateway: Gateway) -> None:
    me = f"http://{up.container('text-runner').id[:12]}:8000"
    renamed = own_token.replace("ppr_text.", "ppr_nlp.")
    said = calls(
        up,
        "text-runner",
        registration("nlp", me, own_token, "language_detection"),
        registration("nlp", me, renamed, "language_detection"),
        registration("nlp", me, "", "language_detection"),
        ("PUT", f"{DISCOVERY}/owners/language_detection", own_token, {"runner": "text"}),
        ("DELETE", f"{DISCOVERY}/owners?runner=nlp", own_token, None),
        ("GET", f"{DISCOVERY}/catalogue", own_token, None),
    )
    assert said == [
        (403, "other_runner"),
        (401, "unauthorized"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (403, "forbidden"),
        (403, "forbidden"),
    ]
    assert all(runner.startswith("nlp-") for runner in gateway.runners_of("language_detection"))


def test_runner_cannot_have_the_controller_call_anybody_else(up: Project, own_token: str, gateway: Gateway) -> None:
    names = ["postgres:5432", "rabbitmq:5672", "rabbitmq:15672", "gateway:8000", "controller:8020"]
    names += ["runner-discovery:8010", "nlp-runner:8000", "127.0.0.1:8000", "localhost:8010", "0.0.0.0:8010"]
    numbers = [
        f"{address}:80" for each in ("postgres", "rabbitmq", "gateway", "nlp-runner") for address in addresses(up, each)
    ]
    hosts = [f"http://{host}" for host in (*names, *numbers, *(f"{bridge}:80" for bridge in bridges(up)))]
    asked = [call for host in hosts for call in (registration("text", host, own_token), plain(host, own_token))]
    assert set(calls(up, "text-runner", *asked)) == {(403, "host_not_allowed")}
    assert "stolen" not in gateway.algorithms()


def test_runner_may_register_itself(up: Project, own_token: str, gateway: Gateway) -> None:
    """Else the tests above would pass for calls that are wrong in another way."""
    me = f"http://{up.container('text-runner').id[:12]}:8001"
    call = registration("text", me, own_token, "own_other")
    try:
        assert calls(up, "text-runner", call) == [(200, None)]
        until(lambda: "own_other" in gateway.algorithms(), "it is in the catalogue", 20)
    finally:
        assert calls(up, "text-runner", ("DELETE", f"{call[1]}?boot=b", own_token, None)) == [(204, None)]


def test_runner_takes_no_runs_from_its_neighbours(up: Project, own_token: str) -> None:
    runner = "http://nlp-runner:8000"
    tokens = ["", own_token, own_token.replace("ppr_text.", "ppr_nlp."), run_token_of(own_token)]
    text = {"text": "Bonjour tout le monde"}
    asked: list[Call] = [
        call
        for token in tokens
        for call in (
            ("POST", f"{runner}/run/language_detection", token, text),
            ("POST", f"{runner}/batch/language_detection", token, [{"id": "a", "attempt": 1, "payload": text}]),
            ("GET", f"{runner}/tasks/a", token, None),
            ("DELETE", f"{runner}/tasks/a", token, None),
            ("GET", f"{runner}/metrics", token, None),
        )
    ]
    assert set(calls(up, "text-runner", *asked)) == {(401, "unauthorized")}
    opened: list[Call] = [
        ("GET", f"{runner}/{path}", "", None) for path in ("schemas", "healthz/ready", "openapi.json")
    ]
    assert calls(up, "text-runner", *opened) == [(200, None)] * 3
    runs = up.run_in("runner-discovery", "python", "-m", "runner_discovery", "token", "nlp", "--runs").strip()
    assert calls(up, "text-runner", ("POST", f"{runner}/run/language_detection", runs, text)) == [(200, None)]
