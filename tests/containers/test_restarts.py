"""Each service is restarted while tasks are sent: nothing is lost, nothing comes twice, nobody does anything."""

import sys
import time
from collections.abc import Callable

import pytest
from containers.load import Load
from containers.messages import Gateway
from containers.project import Project


@pytest.mark.parametrize("service", ["rabbitmq", "postgres", "runner-discovery", "controller", "gateway"])
def test_restart_under_load_loses_nothing_and_repeats_nothing(
    up: Project, load: Callable[[str], Load], service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = up.container(service)
    others = {each.id: each.started_at for each in up.containers() if each.service != service}
    with load(service) as tasks:
        tasks.flow()
        start = time.monotonic()
        up.compose("restart", service, within_seconds=120)
        up.wait_healthy(service)
        took = time.monotonic() - start
        tasks.flow(within_seconds=120)
    views = tasks.check()
    with capsys.disabled():
        print(f"\n{service} away for {took:.0f} s: {tasks}", file=sys.stderr)
    after = up.container(service)
    assert after.id == before.id
    assert after.started_at != before.started_at
    assert {each.id: each.started_at for each in up.containers() if each.service != service} == others
    # No run was lost, so none was begun a second time as another attempt.
    assert {view["attempt"] for view in views.values()} == {1}
    if service in ("rabbitmq", "gateway"):
        assert tasks.troubles > 0, "nobody noticed the restart"


def test_all_are_ready_again_after_the_restarts(up: Project, gateway: Gateway) -> None:
    assert [each.service for each in up.containers() if not each.is_healthy] == []
    assert gateway.run("upper", {"text": "still here"})["result"] == "STILL HERE"
