"""The attacks of tests/test_door_attacks.py on the ports that Compose publishes, within its containers' limits."""

import os
import subprocess
import sys

import door_attacks
import pytest
from containers.messages import Gateway
from containers.project import Project


@pytest.mark.sized
@pytest.mark.parametrize("attack", door_attacks.ATTACKS)
def test_attack_on_every_published_port_ends_no_container_and_costs_no_task(
    up: Project, gateway: Gateway, attack: str, pytestconfig: pytest.Config
) -> None:
    seconds, silent = (pytestconfig.getoption(name) for name in ("attack_seconds", "silent_connections"))
    urls = [
        up.url("gateway", 8000) + "/tasks/batch",
        up.url("runner-discovery", 8010) + "/runners/x",
        up.url("text-runner", 8000) + "/batch/upper",
    ]
    before = {each.id: each.started_at for each in up.containers()}
    command = [sys.executable, door_attacks.__file__, attack, str(seconds), *urls]
    # Those who may send tasks get farther than strangers.
    variables = {"SILENT_CONNECTIONS": str(silent), "AUTHORIZATION": gateway.headers["Authorization"]}
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **variables})
    views = []
    try:
        assert attacker.stdout is not None
        with attacker.stdout:
            assert attacker.stdout.readline() == b"begun\n"
        while attacker.poll() is None:
            views.append(gateway.run("upper", {"text": f"task {len(views)}"}))
    finally:
        attacker.kill()
        attacker.wait()
    assert attacker.returncode == 0
    assert len(views) > seconds
    for number, view in enumerate(views):
        assert (view["state"], view["attempt"], view["result"]) == ("succeeded", 1, f"TASK {number}")
    after = up.containers()
    assert {each.id: each.started_at for each in after} == before
    assert not any(each.state["OOMKilled"] for each in after)
    up.wait_healthy("gateway", "runner-discovery", "text-runner", within_seconds=30)
