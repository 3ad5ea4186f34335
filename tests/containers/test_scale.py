"""Several replicas of one runner, and one of them is killed."""

import json
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from containers.docker_cli import docker
from containers.messages import Gateway, channel_to, publish
from containers.project import Project
from environments import until

TASKS = 300
REPLICAS = 3
#: Of the tasks; how fast each is on a busy machine is chance.
LEAST_SHARE = 0.05
TEXT = "W niedzielę pojechaliśmy rowerami wzdłuż rzeki aż do młyna. " * 66


@pytest.fixture
def replicas(up: Project, gateway: Gateway) -> Iterator[Project]:
    """Three of `nlp`, all of them in the catalogue; one again afterwards."""
    scale(up, REPLICAS)
    until(lambda: len(gateway.runners_of("language_detection")) == REPLICAS, "three replicas are offered", 30)
    yield up
    scale(up, 1)
    until(lambda: len(gateway.runners_of("language_detection")) == 1, "one is left", 60)


def scale(project: Project, count: int) -> None:
    before = {each.id: each.started_at for each in project.containers() if each.service != "nlp-runner"}
    project.up("--scale", f"nlp-runner={count}", "--no-recreate")
    assert len(project.containers("nlp-runner")) == count
    assert {each.id: each.started_at for each in project.containers() if each.service != "nlp-runner"} == before


def send(queue_url: str, word: str) -> list[str]:
    ids = [f"{word}-{number}" for number in range(TASKS)]
    with channel_to(queue_url) as channel:
        for task_id in ids:
            publish(channel, task_id, {"algorithm": "language_detection", "payload": {"text": TEXT}}, f"answers-{word}")
    return ids


def answers(queue_url: str, word: str) -> Counter[str]:
    """How often each id was answered with the right result."""
    found: Counter[str] = Counter()
    with channel_to(queue_url) as channel:
        for method, _, body in channel.consume(f"answers-{word}", auto_ack=True, inactivity_timeout=2):
            if method is None:
                break
            answer = json.loads(body)
            assert (answer["state"], answer["result"]["language"]) == ("succeeded", "pl"), answer
            found[answer["id"]] += 1
        channel.queue_delete(f"answers-{word}")
    return found


def declare_answers(queue_url: str, word: str) -> None:
    with channel_to(queue_url) as channel:
        channel.queue_declare(f"answers-{word}", durable=True, arguments={"x-queue-type": "quorum"})


def test_replicas_share_the_tasks_and_one_that_is_killed_loses_none(
    replicas: Project, gateway: Gateway, queue_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, killed = (f"{word}-{secrets.token_hex(3)}" for word in ("shared", "killed"))
    declare_answers(queue_url, shared)
    views = gateway.all_ended(send(queue_url, shared))
    shares = Counter(view["runner"] for view in views.values())
    with capsys.disabled():
        print(f"\n{TASKS} tasks over {REPLICAS} replicas: {sorted(shares.values())}", file=sys.stderr)
    assert len(shares) == REPLICAS
    assert min(shares.values()) >= LEAST_SHARE * TASKS, shares
    assert answers(queue_url, shared) == Counter(dict.fromkeys(views, 1))

    declare_answers(queue_url, killed)
    victim = replicas.containers("nlp-runner")[0]
    # Frozen first: what it is given from now on is certainly in its hands when it is killed.
    docker("pause", victim.id)
    ids = send(queue_url, killed)
    done = until(lambda: ended(gateway, ids), "the first have ended", 60)
    docker("kill", "--signal", "KILL", victim.id)
    assert done < TASKS, "it held none of them"
    views = gateway.all_ended(ids)
    with capsys.disabled():
        print(
            f"\none of {REPLICAS} killed when {done} of {TASKS} had ended; {charged(views)} were tried again, counted",
            file=sys.stderr,
        )
    assert {(view["state"], view["result"]["language"]) for view in views.values()} == {("succeeded", "pl")}
    assert answers(queue_url, killed).keys() == views.keys()
    assert gateway.dead_letters() == []


def ended(gateway: Gateway, ids: list[str]) -> int:
    return sum(view["state"] == "succeeded" for view in gateway.found(ids).values())


def charged(views: dict[str, dict[str, Any]]) -> int:
    return sum(view["attempt"] > 1 for view in views.values())
