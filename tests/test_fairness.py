"""Tenants that share an algorithm: who has queued a hundred thousand tasks holds up nobody else's single one."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import requests
from environments import Environment, Production, until
from servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.timeout(900), pytest.mark.sized, pytest.mark.slow]

#: As the runner of `tests/runners/tenants` has them.
CALL_SECONDS, SLOTS = 0.1, 2
#: A single task every so often.
EVERY_SECONDS, SINGLE_TASKS = 1.0, 20
MOST_LATE_SECONDS = 0.1
MOST_AT_ONCE = 1000


@pytest.fixture(params=["embedded", "rabbitmq4"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, broker_servers: Callable[[str], RabbitMQ]
) -> Iterator[Environment]:
    with ExitStack() as stack:
        if request.param == "embedded":
            made = Environment(tmp_path)
        else:
            broker, name = broker_servers("4"), f"tenants_{os.getpid()}"
            queue_url = broker.add_vhost(name)
            stack.callback(broker.remove_vhost, name)
            postgres = request.getfixturevalue("postgres_server")
            database_url = postgres.create_database(name)
            stack.callback(postgres.drop_database, name)
            made = Production(tmp_path, queue_url=queue_url, database_url=database_url)
        stack.callback(made.stop)
        yield made.start("tenants")


def queue_many(environment: Environment, count: int, **message: Any) -> None:
    for start in range(0, count, MOST_AT_ONCE):
        part = [message] * min(MOST_AT_ONCE, count - start)
        answer = requests.post(f"{environment.core.url}/tasks/batch", json=part, timeout=60)
        assert answer.status_code == 202, answer.text


def send(environment: Environment, **message: Any) -> str:
    answer = requests.post(f"{environment.core.url}/tasks", json=message, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def result_of(environment: Environment, task_id: str) -> Any:
    headers = {"Prefer": "wait=20"}
    answer = requests.get(f"{environment.core.url}/tasks/{task_id}", headers=headers, timeout=60).json()
    assert answer["state"] == "succeeded", answer
    return answer["result"]


def ended(environment: Environment, algorithm: str) -> list[dict[str, Any]]:
    """The tasks that have succeeded, newest first, up to a thousand."""
    query = {"algorithm": algorithm, "state": "succeeded", "limit": 1000}
    tasks: list[dict[str, Any]] = requests.get(f"{environment.core.url}/tasks", query, timeout=60).json()["tasks"]
    return tasks


@pytest.mark.serial
def test_single_task_of_one_group_passes_all_that_another_has_queued(
    environment: Environment, request: pytest.FixtureRequest
) -> None:
    many = int(request.config.getoption("--hog-tasks"))
    queue_many(environment, many, algorithm="tenant_call", payload={}, group="a")
    until(lambda: ended(environment, "tenant_call"), "the tenant's tasks are done")
    waits = []
    for _ in range(SINGLE_TASKS * (3 if request.config.getoption("--full") else 1)):
        began = time.time()
        result = result_of(environment, send(environment, algorithm="tenant_call", payload={}, group="b"))
        waits.append(result - began)
        time.sleep(max(0.0, EVERY_SECONDS - (time.time() - began)))
    p95 = quantiles(waits, n=20)[-1]
    print(f"{many:,} queued; {len(waits)} single ones waited {min(waits):.3f} to {max(waits):.3f} s, p95 {p95:.3f}")
    left = requests.get(f"{environment.core.url}/status", timeout=60).json()["tasks"]["waiting"]
    assert left > many / 2, "the tenant had tasks that waited all the time"
    assert p95 <= CALL_SECONDS + MOST_LATE_SECONDS


def test_group_has_no_more_running_than_its_slots(environment: Environment) -> None:
    ids = {
        group: [send(environment, algorithm="two_each", payload={"seconds": 0.3}, group=group) for _ in range(6)]
        for group in ("a", "b")
    }
    spans = {group: [result_of(environment, each) for each in ids[group]] for group in ids}
    for group, times in spans.items():
        most = max(sum(other[0] < begin + 1e-3 < other[1] for other in times) for begin, _ in times)
        assert most <= 2, f"{most} tasks of {group} ran at the same time: {json.dumps(times)}"


def test_delayed_task_says_until_when_it_waits_and_starts_then(environment: Environment) -> None:
    began = time.time()
    task_id = send(environment, algorithm="tenant_call", payload={}, delay_seconds=3, group="later")
    waiting = environment.task(task_id)
    assert (waiting["state"], waiting["group"]) == ("queued", "later")
    assert waiting["waiting_for"].startswith("it was sent to start not before "), waiting
    assert result_of(environment, task_id) >= began + 3
    cancelled = send(environment, algorithm="tenant_call", payload={}, delay_seconds=600)
    assert requests.delete(f"{environment.core.url}/tasks/{cancelled}", timeout=10).json()["state"] == "cancelled"
