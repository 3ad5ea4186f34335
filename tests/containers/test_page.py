"""What docs/containers.md says can be done with an environment that runs, done as it stands there."""

import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from containers.checkout import SECRETS, secret
from containers.docker_cli import called
from containers.messages import Gateway
from containers.project import Project

Run = Callable[[str], str]


@pytest.fixture
def run(up: Project) -> Run:
    """Runs those commands of the page that have some words; other ports are the only difference."""
    page = (up.folder / "docs" / "containers.md").read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)

    def commands(words: str) -> str:
        (found,) = [block for block in blocks if words in block]
        for port, variable in (("8000", "GATEWAY_PORT"), ("5672", "RABBITMQ_PORT")):
            found = found.replace(f"127.0.0.1:{port}", f"127.0.0.1:{up.settings[variable]}")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return called(
            ["bash", "-euc", found], folder=up.folder, settings={**up.variables, "PATH": path}, within_seconds=600
        )

    return commands


def test_first_task_needs_nothing_but_docker(up: Project) -> None:
    page = (up.folder / "docs" / "containers.md").read_text()
    (line,) = re.findall(r"^docker compose exec gateway producer send .*$", page, re.MULTILINE)
    assert line in (up.folder / "README.md").read_text().splitlines()
    assert called(["bash", "-c", line], folder=up.folder, settings=up.variables).strip() == '"PLUG AND PLAY"'


def test_curl_with_the_token_of_the_administrator_gets_a_result(run: Run) -> None:
    view = json.loads(run("Authorization: Bearer"))
    assert (view["state"], view["result"]) == ("succeeded", "PLUG AND PLAY")


def test_token_for_a_program_allows_what_it_was_made_for(up: Project, run: Run) -> None:
    headers = {"Authorization": f"Bearer {run('producer token create').strip()}"}
    url = up.url("gateway", 8000)
    sent = requests.post(f"{url}/algorithms/upper/run", json={"text": "a"}, headers=headers, timeout=60)
    assert sent.json()["result"] == "A"
    assert requests.get(f"{url}/audit", headers=headers, timeout=10).status_code == 403
    assert requests.get(f"{url}/tasks", timeout=10).status_code == 401


def test_sender_gets_an_answer_from_the_broker(run: Run) -> None:
    answer = json.loads(run("docs/examples/send_with_pika.py"))
    assert (answer["state"], answer["result"]["language"]) == ("succeeded", "fr")


def test_changed_secrets_are_taken_at_the_next_start(up: Project, run: Run, gateway: Gateway) -> None:
    keys, password = (up.folder / SECRETS / name for name in ("runner-keys", "rabbitmq-gateway-password"))
    token = secret(up.folder, "text-runner-token")
    keys.write_text(f"{secrets.token_hex(20)},{keys.read_text()}")
    password.write_text(f"{secrets.token_hex(20)}\n")
    run("docker compose restart ")
    assert secret(up.folder, "text-runner-token") != token
    assert gateway.run("upper", {"text": "new"})["result"] == "NEW"


def test_password_of_the_database_is_set_to_that_of_its_file(up: Project, run: Run) -> None:
    def is_let_in() -> bool:
        address = f"postgresql://plugplay:{secret(up.folder, 'postgres-password')}@postgres/plugplay"
        # By an address from which nobody is trusted; the URL is an argument of a client that ends at once.
        asked = f"psql -qtA '{address}' -c 'SELECT 1' || true"
        return up.compose("exec", "--no-TTY", "postgres", "bash", "-c", asked).strip() == "1"

    assert is_let_in()
    lost = "ALTER USER plugplay PASSWORD 'lost'"
    up.compose("exec", "--no-TTY", "postgres", "psql", "-qU", "plugplay", "-c", lost)
    try:
        assert not is_let_in()
    finally:
        run("ALTER USER")
    assert is_let_in()
