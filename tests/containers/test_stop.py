"""The end of an environment, and its next start."""

import sys
import time

import pytest
import yaml
from containers.checkout import REPOSITORY
from containers.messages import Gateway, channel_to, publish
from containers.project import COMPOSE_FILE, GRACE_SECONDS, Project
from environments import until

#: Longer than what a runner may still end after it was asked to stop.
LONG_SECONDS = GRACE_SECONDS + 3


def test_stop_while_tasks_run_loses_nothing(
    up: Project, gateway: Gateway, queue_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = {
        "stop-long": {"algorithm": "countdown", "payload": {"seconds": LONG_SECONDS}},
        **{f"stop-short-{n}": {"algorithm": "countdown", "payload": {"seconds": 2}} for n in range(3)},
        **{f"stop-upper-{n}": {"algorithm": "upper", "payload": {"text": f"word {n}"}} for n in range(200)},
    }
    expected = {
        "stop-long": f"lift-off after {LONG_SECONDS} s",
        **{f"stop-short-{n}": "lift-off after 2 s" for n in range(3)},
        **{f"stop-upper-{n}": f"WORD {n}" for n in range(200)},
    }
    with channel_to(queue_url) as channel:
        for task_id, message in messages.items():
            publish(channel, task_id, message)
    until(lambda: gateway.found(["stop-long"]).get("stop-long", {}).get("state") == "running", "it runs", 30)

    before = {each.service: each.id for each in up.containers()}
    start = time.monotonic()
    up.compose("stop", within_seconds=240)
    stopped = time.monotonic()
    assert up.containers() == []
    codes = {each.service: each.state["ExitCode"] for each in up.containers(all_of_them=True)}
    assert codes.keys() == before.keys()
    assert {name: code for name, code in codes.items() if code != 0} == {}

    up.up()
    with capsys.disabled():
        print(
            f"\nstopped in {stopped - start:.0f} s, all ready again in {time.monotonic() - stopped:.0f} s",
            file=sys.stderr,
        )
    assert {each.service: each.id for each in up.containers()} == before
    views = gateway.all_ended(messages)
    assert {task_id: view["result"] for task_id, view in views.items()} == expected
    assert {view["state"] for view in views.values()} == {"succeeded"}
    # Runners stop first, so the controller hears what they could not end: nothing counts as lost.
    assert {view["attempt"] for view in views.values()} == {1}
    assert gateway.dead_letters() == []


def test_nothing_is_killed_before_its_grace_is_over() -> None:
    services = yaml.safe_load((REPOSITORY / COMPOSE_FILE).read_text())["services"]
    graces = {name: service.get("environment", {}).get("GRACE_SECONDS") for name, service in services.items()}
    killed_after = {name: service["stop_grace_period"] for name, service in services.items()}
    ours = {name for name, grace in graces.items() if grace is not None}
    assert ours == services.keys() - {"rabbitmq", "postgres"}
    assert [name for name in ours if float(killed_after[name].removesuffix("s")) < float(graces[name]) + 10] == []


def test_down_leaves_nothing_running_and_with_volumes_nothing_at_all(up: Project, gateway: Gateway) -> None:
    assert all(up.left_over().values())
    gateway.run("upper", {"text": "kept"})
    up.compose("down", within_seconds=180)
    left = up.left_over()
    assert (left["container"], left["network"]) == ([], [])
    assert len(left["volume"]) == 3
    up.down()
    assert up.left_over() == {"container": [], "network": [], "volume": []}
