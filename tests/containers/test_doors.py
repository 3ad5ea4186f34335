"""The attacks of tests/test_door_attacks.py on containers, within the limits that Compose gives them.

On their own addresses: the engine's proxy, which published ports lead to, is not what is tried here.
"""

import door_attacks
import pytest
from containers.checkout import secret
from containers.messages import Gateway
from containers.project import Project


@pytest.mark.sized
@pytest.mark.parametrize("attack", door_attacks.ATTACKS)
def test_attack_on_every_port_ends_no_container_and_costs_no_task(
    up: Project, attack: str, pytestconfig: pytest.Config
) -> None:
    seconds, silent = (pytestconfig.getoption(name) for name in ("attack_seconds", "silent_connections"))
    urls = [
        up.inner_url("gateway", 8000) + "/tasks/batch",
        up.inner_url("runner-discovery", 8010) + "/runners/x",
        up.inner_url("text-runner", 8000) + "/batch/upper",
    ]
    sender = Gateway(up.inner_url("gateway", 8000), secret(up.folder, "admin-token"))
    before = {each.id: each.started_at for each in up.containers()}
    # Those who may send tasks get farther than strangers.
    variables = {"SILENT_CONNECTIONS": str(silent), "AUTHORIZATION": sender.headers["Authorization"]}
    views = []
    with door_attacks.attacking(attack, seconds, urls, **variables) as attackers:
        while any(attacker.poll() is None for attacker in attackers):
            views.append(sender.run("upper", {"text": f"task {len(views)}"}))
        assert [attacker.returncode for attacker in attackers] == [0, 0, 0]
    assert len(views) > seconds
    for number, view in enumerate(views):
        assert (view["state"], view["attempt"], view["result"]) == ("succeeded", 1, f"TASK {number}")
    after = up.containers()
    assert {each.id: each.started_at for each in after} == before
    assert not any(each.state["OOMKilled"] for each in after)
    up.wait_healthy("gateway", "runner-discovery", "text-runner", within_seconds=30)
