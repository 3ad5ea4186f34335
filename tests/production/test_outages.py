"""Servers that go away under load and come back: nobody helps, and nothing is lost."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from environments import Production, until
from servers.fixtures import BROKER_VERSIONS
from servers.postgresql import PostgreSQL
from servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def is_ready(url: str) -> bool:
    return requests.get(f"{url}/healthz/ready", timeout=5).status_code == 200


def test_ten_seconds_without_the_database_lose_nothing(
    production_on: Any, broker: Any, own_postgres: PostgreSQL, execution_log: Path
) -> None:
    environment: Production = production_on(broker.url, own_postgres.create_database("tasks"))
    environment.start("steady")
    numbers = [{"number": n, "log": str(execution_log)} for n in range(3_000)]
    ids = environment.submit_many("noted", numbers)
    until(lambda: execution_log.stat().st_size > 3_000, "tasks flow")
    own_postgres.stop()
    until(lambda: not is_ready(environment.controllers[0].url), "the controller says that it cannot work")
    late = b'{"algorithm": "square", "payload": {"number": 7}}'
    environment.publish(late, message_id="late")
    assert requests.post(f"{environment.core.url}/tasks", json={}, timeout=20).status_code in (400, 503)
    before = _unsettled(broker)
    threading.Event().wait(10)
    assert _unsettled(broker) >= before, "nothing was acknowledged while nothing could be recorded"
    own_postgres.start()
    done = "SELECT count(*) FROM tasks WHERE state = 'succeeded'"
    until(lambda: environment.rows(done) == [(len(ids) + 1,)], "everything is recorded", 60)
    until(lambda: is_ready(environment.controllers[0].url), "the controller is ready again", 30)
    for n, task_id in enumerate(ids):
        assert environment.task(task_id)["result"] == n * n if n % 100 == 0 else True
    assert environment.rows("SELECT count(*) FROM dead_letters") == [(0,)]


def _unsettled(broker: Any) -> int:
    """Messages that are waiting or out; the broker counts anew every five seconds."""
    counts: list[int] = []

    def counted() -> bool:
        state = broker.queue_state("tasks.noted")
        if state is not None and "messages" in state:
            counts.append(int(state["messages"]))
        return len(counts) > 0

    until(counted, "the broker counts its messages")
    return counts[-1]


def test_a_broker_frozen_for_a_minute_is_noticed_within_two_heartbeats_and_survived(
    production_on: Any, broker_servers: Callable[[str], RabbitMQ], postgres_server: PostgreSQL
) -> None:
    """On both versions at the same time."""
    servers = [broker_servers(major) for major in BROKER_VERSIONS]
    environments: list[Production] = []
    for major, server in zip(BROKER_VERSIONS, servers, strict=True):
        database = postgres_server.create_database(f"frozen_{major}")
        environments.append(production_on(server.add_vhost("frozen"), database).start("steady"))
    for environment in environments:
        assert environment.finished(environment.submit("square", {"number": 3}))["result"] == 9
    urls = [url for each in environments for url in (each.controllers[0].url, each.core.url)]
    frozen_at = time.monotonic()
    for server in servers:
        server.pause()
    try:
        # 15 s is the default heartbeat
        for url in urls:
            until(lambda url=url: not is_ready(url), f"{url} is not ready", frozen_at + 30 - time.monotonic())
        for environment in environments:
            message = {"algorithm": "square", "payload": {"number": 4}, "id": "frozen"}
            assert requests.post(f"{environment.core.url}/tasks", json=message, timeout=30).status_code == 503
        threading.Event().wait(frozen_at + 60 - time.monotonic())
    finally:
        for server in servers:
            server.resume()
    for url in urls:
        until(lambda url=url: is_ready(url), f"{url} is ready again", 60)
    for environment in environments:
        assert environment.finished(environment.submit("square", {"number": 5}))["result"] == 25
        again = environment.submit("square", {"number": 4}, id="frozen")
        assert environment.finished(again)["result"] == 16


def test_consumer_timeout_shorter_than_a_task_means_one_run_and_one_result(
    production_on: Any, own_broker: Any, database_url: str, execution_log: Path
) -> None:
    server = own_broker()
    server.set_environment("rabbit", consumer_timeout="3000", channel_tick_interval="1000")
    environment: Production = production_on(server.url, database_url)
    environment.start("steady")
    task_id = environment.submit("slow", {"seconds": 15, "log": str(execution_log)})
    view = environment.finished(task_id, 60)
    assert (view["state"], view["result"], view["attempt"]) == ("succeeded", "done", 1)
    assert len(execution_log.read_text().splitlines()) == 1
    assert "PRECONDITION_FAILED" in environment.controllers[0].log.read_text()
    until(lambda: (broker_messages(server) or {}).get("tasks.slow") == 0, "the message is acknowledged", 30)


def broker_messages(server: RabbitMQ) -> dict[str, int]:
    return {queue["name"]: queue.get("messages", -1) for queue in server.management("GET", "queues")}
